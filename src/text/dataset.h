/* Data files to rows: JSONL, JSON and CSV; chat messages, prompt/completion, Alpaca, ShareGPT, text.
 *
 * Knows files of rows and what their columns mean; knows no model. The next step (text/example.h)
 * renders and tokenises a row with a template and a tokenizer that it is handed.
 *
 * Words: row (one record of the file), turn (one message), layout (what the columns mean),
 * container (how rows are written). */
#ifndef HONE_TEXT_DATASET_H
#define HONE_TEXT_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"

enum dataset_container { CONTAINER_JSONL, CONTAINER_JSON, CONTAINER_CSV };
enum dataset_layout { LAYOUT_MESSAGES, LAYOUT_PROMPT, LAYOUT_ALPACA, LAYOUT_SHAREGPT, LAYOUT_TEXT };

const char *dataset_container_name(enum dataset_container container); /* "jsonl" … */
const char *dataset_layout_name(enum dataset_layout layout); /* "messages", "prompt/completion" … */

/* One row, normalised. `messages` keeps the message objects whole (tool calls, names, weight) in a
 * JSON array of {"role","content",…}; "from"/"value" of ShareGPT, instruction/input/output of Alpaca and
 * prompt/completion are turned into user and assistant turns. Content is text, or a list of parts of text,
 * [{"type":"text","text":…}]. `text` rows have text only. */
struct dataset_row {
    size_t index;  /* 0-based in the data set, over the good rows of all files, before any shuffle */
    size_t line;   /* 1-based line of the file where the row begins */
    size_t number; /* in JSON, where many rows may stand in one line: the row's place in the file, from 1;
                      else 0 */
    uint32_t file; /* which of the files */
    enum dataset_layout layout;
    bool refused;           /* by the template: a bad row that keeps its place (dataset_refuse_row) */
    json_t *messages;       /* NULL for text rows; owned by the data set */
    json_t *tools;          /* the row's "tools", or NULL */
    const char *prompt;     /* prompt and completion as they stand, for models without a template; */
    const char *completion; /* NULL unless the layout is prompt or alpaca */
    const char *text;       /* NULL unless the layout is text */
};

struct dataset_problem {
    uint32_t file;
    size_t line;
    char cause[320];
};

struct dataset_options {
    const char *columns;   /* "prompt=question,completion=answer", or NULL to recognise the layout */
    size_t max_rows;       /* rows kept, the rest is not read; 0: all */
    bool answers_optional; /* rows to be answered: a row needs no assistant turn and no completion */
};

struct dataset {
    char **files;
    size_t file_count;
    struct digest digest;             /* of the file's bytes; of several files: of their digests in order */
    enum dataset_container container; /* of the first file */
    enum dataset_layout layout;
    struct buf evidence; /* why, of files unlike the first too: "32 of the first 32 rows have a `messages`
                            list of role and content" */
    struct dataset_row *rows;
    size_t row_count, row_capacity;
    size_t refused_count;             /* of the rows */
    struct dataset_problem *problems; /* every bad row, in order: those that are no row, and refused ones */
    size_t problem_count, problem_capacity;
    struct arena arena;
};

/* Reads every row of every file. Bad rows (broken JSON, invalid UTF-8, missing columns, no assistant
 * turn, unknown roles' shapes) become problems, not failures. Fails on: a file that cannot be read,
 * no good row at all, more than 1,000,000 bad ones, a layout that cannot be recognised (the message
 * shows the columns found and how to name them). `options` may be NULL. On failure *out is released.
 * Errors: ERROR_INPUT; ERROR_USAGE for `columns` that make no sense. */
bool dataset_open(struct dataset *out, const char *const *files, size_t count,
                  const struct dataset_options *options, struct error *err);
void dataset_close(struct dataset *dataset);

/* Makes row `index` a bad one: the template that it was rendered with refuses it. The row keeps its place and
 * its draw in a split. dataset_order_problems comes after the last of them. */
bool dataset_refuse_row(struct dataset *dataset, size_t index, const char *cause, struct error *err);
void dataset_order_problems(struct dataset *dataset);

/* The refusal for a data set with problems: the first ten named, all counted. Always returns false. */
bool dataset_refuse(const struct dataset *dataset, struct error *err);

/* A conversation that is no row, such as a request: its messages checked and made as those of a row. New
 * reference. Errors: ERROR_INPUT, naming the message. */
bool dataset_messages(json_t **out, const json_t *list, struct error *err);

/* Splits: marks the round(fraction · rows) rows with the lowest Philox word for (seed, row index) as
 * held out: counter = (row index, 0, 0, 0xffffffff), word 0; ties by index. held[row_count] is set.
 * Fails (ERROR_USAGE) when the fraction leaves no row on one of the two sides. */
bool dataset_split(const struct dataset *dataset, double fraction, uint64_t seed, bool *held,
                   struct error *err);

#endif
