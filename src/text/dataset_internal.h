/* What the parts of the data set reader share: columns, the reader of one file's rows, and making a
 * row of a record. Closed to other folders. */
#ifndef HONE_TEXT_DATASET_INTERNAL_H
#define HONE_TEXT_DATASET_INTERNAL_H

#include "base/fs.h"
#include "text/csv.h"
#include "text/dataset.h"

enum dataset_column {
    COLUMN_MESSAGES,
    COLUMN_PROMPT,
    COLUMN_COMPLETION,
    COLUMN_INSTRUCTION,
    COLUMN_INPUT,
    COLUMN_OUTPUT,
    COLUMN_TEXT,
    COLUMN_SYSTEM,
    COLUMN_TOOLS,
    COLUMN_COUNT
};

/* What a file calls each column. */
struct dataset_columns {
    const char *names[COLUMN_COUNT];
    bool given[COLUMN_COUNT]; /* named by the user */
    enum dataset_layout layout;
    bool answers_optional;
};

/* One clause that says what is wrong with a row; escaped, so that it can be shown as it is. */
struct dataset_cause {
    char text[sizeof((struct dataset_problem *)0)->cause];
};
/* Fills the clause; always returns false. */
bool dataset_cause_set(struct dataset_cause *cause, const char *format, ...) PRINTF_LIKE(2, 3);

/* Says what people take for JSON that the text is, or NULL. */
const char *json_mistake(const char *text, size_t size);

enum reader_result { READER_ROW, READER_BAD, READER_END, READER_FAILED };

/* The records of one file, as JSON objects, one at a time (dataset_read.c). */
struct dataset_reader {
    const char *path;
    struct fs_map map;
    const char *text; /* the map behind a byte order mark */
    size_t size;
    enum dataset_container container;
    const char *evidence;     /* for the container */
    char told[512];           /* where it names what the file holds */
    size_t first, first_line; /* where the records begin */
    size_t at, line;
    bool in_object;   /* JSON: the list is a member of an object */
    bool in_sequence; /* JSON: no list, but objects one behind the other */
    bool done;
    struct csv csv;
    struct csv_record header, record;
    size_t row_line;      /* of the last record */
    size_t row_number;    /* of JSON, where many may stand in one line: its place, from 1; else 0 */
    const char *row_text; /* of the last record in JSON */
    size_t row_size;
    struct dataset_cause cause; /* of the last READER_BAD */
};

bool reader_open(struct dataset_reader *reader, const char *path, struct error *err);
void reader_close(struct dataset_reader *reader);
bool reader_is_named_csv(const struct dataset_reader *reader); /* by its ending */
void reader_rewind(struct dataset_reader *reader);
/* READER_ROW: *row is a new JSON object. READER_BAD: reader->cause says why. Both set row_line. */
enum reader_result reader_next(struct dataset_reader *reader, json_t **row, struct error *err);

/* Which layout, and which column is which (dataset_layout.c). Names live in `arena`; the reasons are
 * appended to *evidence. Reads the first rows and rewinds. */
bool columns_recognise(struct dataset_columns *out, struct dataset_reader *reader,
                       const struct dataset_options *options, struct arena *arena, struct buf *evidence,
                       struct error *err);

/* The record that the reader came to, to a row (dataset_row.c); the reader's cause says why not. */
enum row_result { ROW_GOOD, ROW_BAD, ROW_NO_MEMORY };
enum row_result row_make(struct dataset_row *row, const json_t *record, const struct dataset_columns *columns,
                         struct arena *arena, struct dataset_reader *reader);
void row_release(struct dataset_row *row);
/* A list of turns, in either spelling (role/content or from/value), made uniform. */
enum row_result messages_make(json_t **out, const json_t *list, struct dataset_cause *cause);
/* "text", "a list" …, for causes. */
const char *json_kind_name(const json_t *value);

#endif
