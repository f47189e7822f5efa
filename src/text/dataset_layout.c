/* What a file's columns mean: named by the user, or recognised from the first rows. */
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "text/dataset_internal.h"

enum { sampled_rows = 32, shown_columns = 12 };

/* The name of a column when nobody names it otherwise; also the keys of --columns. */
static const char *const column_names[COLUMN_COUNT] = {
    [COLUMN_MESSAGES] = "messages", [COLUMN_PROMPT] = "prompt",           [COLUMN_COMPLETION] = "completion",
    [COLUMN_INPUT] = "input",       [COLUMN_INSTRUCTION] = "instruction", [COLUMN_OUTPUT] = "output",
    [COLUMN_TEXT] = "text",         [COLUMN_SYSTEM] = "system",           [COLUMN_TOOLS] = "tools",
};

/* Layouts in the order in which they are tried when several match equally often. */
static const struct layout_row {
    enum dataset_layout layout;
    const char *name;
    enum dataset_column needs[2]; /* COLUMN_COUNT: none */
    const char *evidence;
} layouts[] = {
    {LAYOUT_MESSAGES,
     "messages",
     {COLUMN_MESSAGES, COLUMN_COUNT},
     "a list of messages with role and content"},
    {LAYOUT_SHAREGPT, "sharegpt", {COLUMN_MESSAGES, COLUMN_COUNT}, "a list of messages with from and value"},
    {LAYOUT_ALPACA, "alpaca", {COLUMN_INSTRUCTION, COLUMN_OUTPUT}, "an instruction and an output"},
    {LAYOUT_PROMPT, "prompt/completion", {COLUMN_PROMPT, COLUMN_COMPLETION}, "a prompt and a completion"},
    {LAYOUT_TEXT, "text", {COLUMN_TEXT, COLUMN_COUNT}, "a text"},
};
enum { layout_count = sizeof layouts / sizeof *layouts };

const char *dataset_layout_name(enum dataset_layout layout) {
    for (size_t i = 0; i < layout_count; i++)
        if (layouts[i].layout == layout) return layouts[i].name;
    return "unknown";
}

/* How often each layout fits the sample: `full` when every column is there, `part` when the first is. */
struct sample {
    size_t rows;
    size_t full[layout_count], part[layout_count], conversations;
    bool seen[COLUMN_COUNT];
    bool nested;        /* a column holds a list of objects */
    struct buf columns; /* the names found, as they are shown */
    const char *names[shown_columns];
    size_t name_count;
};

static void note_column(struct sample *sample, struct arena *arena, const char *name) {
    for (size_t i = 0; i < sample->name_count; i++)
        if (!strcmp(sample->names[i], name)) return;
    if (sample->name_count == shown_columns) return;
    const char *kept = arena_strndup(arena, name, strnlen(name, 64));
    if (!kept) return;
    sample->names[sample->name_count++] = kept;
    if (sample->columns.size) buf_text(&sample->columns, ", ");
    text_escape(&sample->columns, kept, strlen(kept), false);
}

/* 'r' when the turns say role, 'f' when they say from, 0 when it is no list of turns. */
static char spelling_of(const json_t *value, bool cells_are_text) {
    if (cells_are_text && json_is_string(value)) {
        const char *text = json_string_value(value);
        if (strstr(text, "\"role\"")) return 'r';
        return strstr(text, "\"from\"") ? 'f' : 0;
    }
    const json_t *turn = json_array_get(value, 0);
    if (json_object_get(turn, "role")) return 'r';
    return json_object_get(turn, "from") ? 'f' : 0;
}

static void sample_row(struct sample *sample, const struct dataset_columns *columns, const json_t *row,
                       bool csv) {
    const json_t *turns = json_object_get(row, columns->names[COLUMN_MESSAGES]);
    if (!turns && !columns->given[COLUMN_MESSAGES]) {
        turns = json_object_get(row, "conversations");
        sample->conversations += turns != NULL;
    }
    char spelling = spelling_of(turns, csv);
    sample->rows++;
    for (size_t c = 0; c < COLUMN_COUNT; c++)
        sample->seen[c] |= json_object_get(row, columns->names[c]) != NULL;
    for (size_t i = 0; i < layout_count; i++) {
        if (layouts[i].needs[0] == COLUMN_MESSAGES) {
            sample->full[i] += spelling == (layouts[i].layout == LAYOUT_SHAREGPT ? 'f' : 'r');
            sample->part[i] += turns && layouts[i].layout == LAYOUT_MESSAGES;
            continue;
        }
        bool first = json_object_get(row, columns->names[layouts[i].needs[0]]) != NULL;
        bool second = layouts[i].needs[1] == COLUMN_COUNT ||
                      json_object_get(row, columns->names[layouts[i].needs[1]]) != NULL ||
                      (columns->answers_optional && layouts[i].layout == LAYOUT_PROMPT);
        sample->full[i] += first && second;
        sample->part[i] += first || (layouts[i].needs[1] != COLUMN_COUNT && second);
    }
}

static bool sample_rows(struct sample *sample, const struct dataset_columns *columns,
                        struct dataset_reader *reader, struct arena *arena, struct error *err) {
    json_t *row;
    const char *key;
    json_t *value;
    while (sample->rows < sampled_rows) {
        enum reader_result result = reader_next(reader, &row, err);
        if (result == READER_END) break;
        if (result == READER_FAILED) return false;
        if (result == READER_BAD) continue;
        sample_row(sample, columns, row, reader->container == CONTAINER_CSV);
        json_object_foreach(row, key, value) {
            note_column(sample, arena, key);
            sample->nested |= json_is_object(json_array_get(value, 0));
        }
        json_decref(row);
    }
    reader_rewind(reader);
    return true;
}

/* Whether the header of CSV names a column that a row may have, where no record could be read. */
static bool header_is_known(struct sample *sample, const struct dataset_columns *columns,
                            const struct dataset_reader *reader, struct arena *arena) {
    bool known = false;
    for (size_t i = 0; i < reader->header.count; i++) {
        size_t size;
        const char *name = csv_field(&reader->header, i, &size);
        for (size_t c = 0; c < COLUMN_COUNT; c++)
            known |= strlen(columns->names[c]) == size && !memcmp(columns->names[c], name, size);
        known |= size == strlen("conversations") && !memcmp(name, "conversations", size);
        const char *kept = arena_strndup(arena, name, size);
        if (kept) note_column(sample, arena, kept);
    }
    return known || !reader->header.count;
}

static int column_by_key(const char *key, size_t size) {
    for (int c = 0; c < COLUMN_COUNT; c++)
        if (strlen(column_names[c]) == size && !memcmp(column_names[c], key, size)) return c;
    return -1;
}

/* "prompt=question,completion=answer" */
static bool parse_columns(struct dataset_columns *columns, const char *text, struct arena *arena,
                          struct error *err) {
    while (*text) {
        size_t size = strcspn(text, ","), key = strcspn(text, "=,");
        int column = column_by_key(text, key);
        if (key >= size || size == key + 1) {
            error_set(err, ERROR_USAGE, "data", "--columns: `%.*s` is not of the form NAME=COLUMN", (int)size,
                      text);
            return error_fix(err, "For example: --columns prompt=question,completion=answer");
        }
        if (column < 0) {
            error_set(err, ERROR_USAGE, "data", "--columns: `%.*s` is not a part of a row", (int)key, text);
            return error_fix(
                err, "Parts are messages, prompt, completion, instruction, input, output, text, system "
                     "and tools.");
        }
        if (columns->given[column])
            return error_set(err, ERROR_USAGE, "data", "--columns: `%s` is named twice",
                             column_names[column]);
        columns->names[column] = arena_strndup(arena, text + key + 1, size - key - 1);
        if (!columns->names[column]) return error_no_memory(err, "data", size);
        columns->given[column] = true;
        text += size;
        if (*text == ',') text++;
    }
    return true;
}

/* The layout that the named columns ask for: its row in `layouts`, -1 when they leave it open, -2 when
 * they contradict each other. */
static int layout_of_given(const struct dataset_columns *columns) {
    int chosen = -1;
    for (int i = 0; i < layout_count; i++) {
        bool asked = columns->given[layouts[i].needs[0]];
        if (layouts[i].needs[1] != COLUMN_COUNT) asked |= columns->given[layouts[i].needs[1]];
        if (!asked || layouts[i].layout == LAYOUT_SHAREGPT) continue;
        if (chosen >= 0) return -2;
        chosen = i;
    }
    return chosen;
}

static int best_layout(const size_t counts[layout_count]) {
    int best = 0;
    for (int i = 1; i < layout_count; i++)
        if (counts[i] > counts[best]) best = i;
    return counts[best] ? best : -1;
}

static bool refuse_layout(const struct dataset_reader *reader, const struct sample *sample,
                          struct error *err) {
    error_set(err, ERROR_INPUT, "data", "%s: the layout of the rows cannot be recognised", reader->path);
    error_why(err, "the columns are %s", sample->columns.size ? sample->columns.data : "none");
    if ((reader->in_sequence || sample->nested) && sample->rows == 1)
        error_why(err,
                  "%s; its columns are %s; a list of rows would be looked for in `data`, `train` or `rows`",
                  reader->evidence, sample->columns.size ? sample->columns.data : "none");
    if (reader->container == CONTAINER_CSV && !reader_is_named_csv(reader))
        return error_fix(err, "Text is given as rows too, {\"text\": \"...\"} on a line of its own; or name "
                              "the columns: --columns "
                              "prompt=COLUMN,completion=COLUMN.");
    return error_fix(
        err, "Name them: --columns prompt=COLUMN,completion=COLUMN (or messages=, text=, or instruction= "
             "and output=).");
}

/* "the first row", "the first 12 rows" */
static const char *first_rows(const struct sample *sample, char out[48]) {
    snprintf(out, 48, sample->rows == 1 ? "the first row" : "the first %zu rows", sample->rows);
    return out;
}

static bool check_given(const struct dataset_columns *columns, const struct dataset_reader *reader,
                        const struct sample *sample, struct error *err) {
    char rows[48];
    for (int c = 0; c < COLUMN_COUNT; c++) {
        if (!columns->given[c] || sample->seen[c]) continue;
        error_set(err, ERROR_INPUT, "data", "%s: no column `%s` in %s", reader->path, columns->names[c],
                  first_rows(sample, rows));
        error_why(err, "the columns are %s", sample->columns.size ? sample->columns.data : "none");
        return error_fix(err, "Name one of them: --columns %s=COLUMN.", column_names[c]);
    }
    return true;
}

/* A column that every row of the layout needs and none has. */
static bool check_needed(const struct dataset_columns *columns, const struct layout_row *layout,
                         const struct dataset_reader *reader, const struct sample *sample,
                         struct error *err) {
    char rows[48];
    for (int i = 0; i < 2; i++) {
        enum dataset_column column = layout->needs[i];
        bool optional = i && columns->answers_optional;
        if (column == COLUMN_COUNT || column == COLUMN_MESSAGES || optional || sample->seen[column]) continue;
        error_set(err, ERROR_INPUT, "data", "%s: rows of %s need `%s`, which is not in %s", reader->path,
                  layout->name, columns->names[column], first_rows(sample, rows));
        error_why(err, "the columns are %s", sample->columns.size ? sample->columns.data : "none");
        if (column == COLUMN_INSTRUCTION) /* a question under `input` would be joined to itself */
            return error_fix(err, "Name them: --columns prompt=COLUMN,completion=COLUMN.");
        return error_fix(err, "Name it: --columns %s=COLUMN.", column_names[column]);
    }
    return true;
}

/* Alpaca and ShareGPT have a column of that name; in other rows it may be anything, and is told. */
static bool leaves_system(const struct dataset_columns *columns, const struct sample *sample) {
    bool read = columns->layout == LAYOUT_ALPACA || columns->layout == LAYOUT_SHAREGPT;
    return !read && columns->layout != LAYOUT_TEXT && sample->seen[COLUMN_SYSTEM] &&
           !columns->given[COLUMN_SYSTEM];
}

/* "the first row has", "3 of the first 12 rows have" */
static const char *rows_have(const struct sample *sample, size_t full, char out[80]) {
    if (sample->rows == 1)
        snprintf(out, 80, "the first row %s", full ? "has" : "lacks");
    else
        snprintf(out, 80, "%zu of the first %zu rows %s", full, sample->rows,
                 text_plural(full, "has", "have"));
    return out;
}

static bool choose(struct dataset_columns *out, struct sample *sample, const struct dataset_reader *reader,
                   struct buf *evidence, struct error *err) {
    int given = layout_of_given(out), chosen = given;
    if (given == -2) {
        error_set(err, ERROR_USAGE, "data", "--columns names parts of two layouts");
        return error_fix(err, "Name those of one: messages, instruction and output, prompt and completion, "
                              "or text.");
    }
    if (!check_given(out, reader, sample, err)) return false;
    if (chosen < 0) chosen = best_layout(sample->full);
    if (chosen < 0) chosen = best_layout(sample->part);
    if (chosen < 0) return refuse_layout(reader, sample, err);
    if (!check_needed(out, &layouts[chosen], reader, sample, err)) return false;
    if (layouts[chosen].layout == LAYOUT_MESSAGES && sample->full[1] > sample->full[0]) chosen = 1;
    out->layout = layouts[chosen].layout;
    bool turns = layouts[chosen].needs[0] == COLUMN_MESSAGES;
    if (turns && !out->given[COLUMN_MESSAGES] && !sample->seen[COLUMN_MESSAGES] && sample->conversations)
        out->names[COLUMN_MESSAGES] = "conversations";
    char have[80];
    buf_printf(evidence, "%s (%s); layout %s%s: %s %s", dataset_container_name(reader->container),
               reader->evidence, layouts[chosen].name, given >= 0 ? " as --columns says" : "",
               rows_have(sample, sample->full[chosen], have), layouts[chosen].evidence);
    buf_text(evidence, " (columns: ");
    buf_append(evidence, sample->columns.data, sample->columns.size);
    buf_text(evidence, ")");
    if (leaves_system(out, sample))
        buf_text(evidence, "; system is not read: --columns system=system adds it");
    return !evidence->failed || error_no_memory(err, "data", evidence->size);
}

bool columns_recognise(struct dataset_columns *out, struct dataset_reader *reader,
                       const struct dataset_options *options, struct arena *arena, struct buf *evidence,
                       struct error *err) {
    struct sample sample = {0};
    memset(out, 0, sizeof *out);
    memcpy(out->names, column_names, sizeof column_names);
    out->answers_optional = options->answers_optional;
    out->layout = LAYOUT_TEXT;
    bool ok = (!options->columns || parse_columns(out, options->columns, arena, err)) &&
              sample_rows(&sample, out, reader, arena, err);
    /* Without one good record there is nothing to recognise; the problems will tell. */
    if (ok && sample.rows)
        ok = choose(out, &sample, reader, evidence, err);
    else if (ok && reader->container == CONTAINER_CSV && !header_is_known(&sample, out, reader, arena))
        ok = refuse_layout(reader, &sample, err);
    buf_release(&sample.columns);
    return ok;
}
