/* A row's texts and their tokens, before anything is cut: what examples and previews are made of. */
#ifndef HONE_TEXT_EXAMPLE_INTERNAL_H
#define HONE_TEXT_EXAMPLE_INTERNAL_H

#include "text/example.h"

/* The text of one example and the bytes of it that are trained. */
struct rendering {
    struct buf text;
    struct template_spans trained; /* ascending, apart */
    bool bare; /* no template made it: BOS where the tokenizer asks, and end-of-text, trained */
};

struct renderings {
    struct rendering *items;
    size_t count, capacity;
    bool calls_ignored; /* a trained turn has tool calls, and the template renders it as if it had none */
};

/* `data_name` stands in messages with the row's line. On failure *out is released; where *refused says that
 * the template refuses this row (template_render), the message is the template's alone. */
bool row_render(struct renderings *out, const struct renderer *renderer, const char *data_name,
                const struct dataset_row *row, bool *refused, struct error *err);
void renderings_release(struct renderings *renderings);

struct marked_tokens {
    struct tokens tokens; /* starts: SIZE of the text for an end-of-text that stands behind it */
    uint8_t *trained;     /* [tokens.count] */
    size_t trained_capacity;
    size_t supervised; /* trained tokens, the first left out */
};

/* Replaces what *out holds, and keeps its memory. */
bool rendering_tokens(struct marked_tokens *out, const struct renderer *renderer,
                      const struct rendering *rendering, struct error *err);
void marked_tokens_release(struct marked_tokens *marked);

/* Adds "FILE:LINE" to an error that arose while a row was rendered. Returns false. */
bool row_error(struct error *err, const char *data_name, const struct dataset_row *row);

/* What templates see (example_variables.c), new references; NULL when out of memory. A message is shown
 * without our `weight` and what is null, its thoughts under `thinking` and `reasoning_content` too, its
 * content in the form that the template reads. */
json_t *variables_make(const struct renderer *renderer, const json_t *tools);
json_t *message_shown(const struct renderer *renderer, const json_t *message);
/* Bytes of all texts in a value. */
size_t texts_size(const json_t *value);

#endif
