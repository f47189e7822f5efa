/* Rows to training examples: template, tokens and the mask of what is trained. The one renderer that
 * training, evaluation, preview and generation share.
 *
 * A row is rendered and tokenised once, whole. A token is trained when its first byte lies in a
 * trained span: what rendering that assistant turn adds after the generation prompt (the end marker
 * included). Where a prefix's rendering is not a prefix of the whole, the row becomes one example per
 * assistant turn (each ending with that turn). Rows without a template: prompt + completion as they
 * stand, end-of-text trained; text: every token trained, with BOS where the tokenizer asks, and
 * end-of-text. A rendered template gets neither BOS nor end-of-text. */
#ifndef HONE_TEXT_EXAMPLE_H
#define HONE_TEXT_EXAMPLE_H

#include "text/dataset.h"
#include "text/template.h"
#include "text/tokenizer.h"

enum train_on { TRAIN_ON_ASSISTANT, TRAIN_ON_LAST, TRAIN_ON_ALL };
enum overlength { OVERLENGTH_TRUNCATE, OVERLENGTH_DROP, OVERLENGTH_SPLIT, OVERLENGTH_REFUSE };

/* In which form a template reads the content of a message, a bit for each role (example_content.h). */
struct content_forms {
    unsigned parts;      /* a list of parts, as it stands; else as one text */
    unsigned parts_only; /* a text too as a list, of one part */
};

struct renderer {
    const struct tokenizer *tokenizer;
    const struct template *template; /* NULL: the model has none */
    const json_t *arguments;         /* object of extra variables (--template-arg), or NULL */
    const char *system;              /* put before rows that have no system turn, or NULL */
    double now;                      /* the clock that templates see */
    struct content_forms content;
    enum train_on train_on;
    enum overlength overlength;
    size_t max_length; /* tokens */
};

struct example {
    uint32_t row;        /* index of the row in its data set: the Philox "example index" */
    uint32_t count;      /* tokens */
    uint32_t supervised; /* trained tokens, the first token never counted: it has no predecessor */
    const int32_t *ids;
    const uint8_t *trained; /* [count] 1: this token is a target */
};

struct example_counts {
    size_t rows, truncated, dropped, split, skipped_untrained;
    size_t calls_ignored;       /* rows with trained tool calls that the template leaves out; */
    size_t first_calls_ignored; /* the first of them, by its index */
    size_t tokens, supervised;
};

struct examples {
    struct example *items;
    size_t count;
    struct example_counts counts;
    struct arena arena;
};

/* All rows in order; those with held[i] go to *held_out (both NULL: none are). Rows left without a trained
 * token are skipped and counted; when none is left, it fails. Rows that the template refuses become problems
 * of the data set; with any problem it fails as dataset_refuse says, unless `skip_bad_rows`.
 * OVERLENGTH_SPLIT makes pieces of max_length tokens, each an example of its own; pieces without a
 * trained token are left out. max_length 0: no limit. On failure both are released. */
bool examples_build(struct examples *out, struct examples *held_out, const struct renderer *renderer,
                    struct dataset *dataset, const bool *held, bool skip_bad_rows, struct error *err);
void examples_release(struct examples *examples);

/* Fills in renderer->content, the rest of which is set, by rendering a few made up conversations. */
bool renderer_find_content_forms(struct renderer *renderer, struct error *err);

/* Renders a conversation for generation: messages + the generation prompt; appended to *out. */
bool renderer_prompt(const struct renderer *renderer, const json_t *messages, const json_t *tools,
                     struct buf *out, struct error *err);
/* The same for plain text where there is no template: a single user turn is its text. Appends ids. */
bool renderer_prompt_tokens(const struct renderer *renderer, const json_t *messages, const json_t *tools,
                            struct tokens *out, struct error *err);
/* Text of one row as trained, with the trained byte spans, appended. Where the row becomes one example
 * per assistant turn, it is the last of them; text/report.h shows all. */
bool renderer_row(const struct renderer *renderer, const struct dataset *dataset,
                  const struct dataset_row *row, struct buf *text, struct template_spans *trained,
                  struct error *err);

#endif
