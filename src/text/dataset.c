#include "text/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/text.h"
#include "text/dataset_internal.h"

enum { most_problems = 1000000, named_problems = 10 };

const char *dataset_container_name(enum dataset_container container) {
    static const char *const names[] = {
        [CONTAINER_JSONL] = "jsonl", [CONTAINER_JSON] = "json", [CONTAINER_CSV] = "csv"};
    return names[container];
}

static bool grow(void **items, size_t count, size_t *capacity, size_t size, struct error *err) {
    if (count < *capacity) return true;
    size_t wanted = *capacity ? *capacity : 32, bytes = 0;
    if (!checked_size_mul(wanted, 2, &wanted) || !checked_size_mul(wanted, size, &bytes))
        return error_no_memory(err, "data", bytes);
    void *grown = mem_realloc(*items, bytes);
    if (!grown) return error_no_memory(err, "data", bytes);
    *items = grown;
    *capacity = wanted;
    return true;
}

static bool add_problem(struct dataset *out, uint32_t file, size_t line, size_t number,
                        const struct dataset_cause *cause, struct error *err) {
    if (out->problem_count == most_problems) {
        error_set(err, ERROR_INPUT, "data", "%s: more than %d bad rows", out->files[file], most_problems);
        return error_why(err, "line %zu: %s", out->problems[0].line, out->problems[0].cause);
    }
    void *problems = out->problems;
    if (!grow(&problems, out->problem_count, &out->problem_capacity, sizeof *out->problems, err))
        return false;
    out->problems = problems;
    struct dataset_problem *problem = &out->problems[out->problem_count++];
    problem->file = file;
    problem->line = line;
    memcpy(problem->cause, cause->text, sizeof problem->cause);
    if (number) {
        struct dataset_cause numbered;
        dataset_cause_set(&numbered, "row %zu: %s", number, cause->text);
        memcpy(problem->cause, numbered.text, sizeof problem->cause);
    }
    return true;
}

static bool add_row(struct dataset *out, const struct dataset_columns *columns, uint32_t file,
                    struct dataset_reader *reader, const json_t *record, struct error *err) {
    struct dataset_row row;
    void *rows = out->rows;
    switch (row_make(&row, record, columns, &out->arena, reader)) {
    case ROW_NO_MEMORY: return error_no_memory(err, "data", reader->size);
    case ROW_BAD: return add_problem(out, file, reader->row_line, reader->row_number, &reader->cause, err);
    case ROW_GOOD: break;
    }
    if (!grow(&rows, out->row_count, &out->row_capacity, sizeof *out->rows, err)) {
        row_release(&row);
        return false;
    }
    out->rows = rows;
    row.index = out->row_count;
    row.line = reader->row_line;
    row.number = reader->row_number;
    row.file = file;
    out->rows[out->row_count++] = row;
    return true;
}

static bool read_rows(struct dataset *out, const struct dataset_columns *columns, uint32_t file,
                      struct dataset_reader *reader, size_t most, struct error *err) {
    json_t *record;
    bool ok = true;
    while (ok && (!most || out->row_count < most)) {
        enum reader_result result = reader_next(reader, &record, err);
        if (result == READER_END) break;
        if (result == READER_FAILED) return false;
        if (result == READER_BAD) {
            ok = add_problem(out, file, reader->row_line, reader->row_number, &reader->cause, err);
            continue;
        }
        ok = add_row(out, columns, file, reader, record, err);
        json_decref(record);
    }
    return ok;
}

static bool no_rows(const struct dataset_reader *reader, struct error *err) {
    error_set(err, ERROR_INPUT, "data", "%s has no rows", reader->path);
    /* A header and all records on one line, as old spreadsheets write them. */
    if (reader->size && memchr(reader->text, '\r', reader->size) &&
        !memchr(reader->text, '\n', reader->size)) {
        error_why(err, "its lines end in carriage returns alone");
        return error_fix(err, "Write newlines in their place: tr '\\r' '\\n'.");
    }
    return error_fix(err,
                     "Each line of a data file is one JSON object, or each record of a CSV file one row.");
}

static bool read_file(struct dataset *out, uint32_t file, const struct dataset_options *options,
                      struct digest *digest, struct error *err) {
    struct dataset_reader reader;
    struct dataset_columns columns;
    struct buf evidence = {0};
    if (!reader_open(&reader, out->files[file], err)) return false;
    digest_bytes(reader.map.data, reader.map.size, digest);
    bool ok = columns_recognise(&columns, &reader, options, &out->arena, &evidence, err);
    if (ok && file == 0) {
        out->container = reader.container;
        out->layout = columns.layout;
        buf_append(&out->evidence, evidence.data ? evidence.data : "", evidence.size);
        ok = !out->evidence.failed || error_no_memory(err, "data", evidence.size);
    }
    if (ok && file && (reader.container != out->container || columns.layout != out->layout)) {
        buf_printf(&out->evidence, "; %s is another: ", fs_base_name(out->files[file]));
        buf_append(&out->evidence, evidence.data ? evidence.data : "", evidence.size);
        ok = !out->evidence.failed || error_no_memory(err, "data", evidence.size);
    }
    size_t before = out->row_count + out->problem_count;
    ok = ok && read_rows(out, &columns, file, &reader, options->max_rows, err);
    bool enough = options->max_rows && out->row_count == options->max_rows;
    if (ok && !enough && out->row_count + out->problem_count == before) ok = no_rows(&reader, err);
    buf_release(&evidence);
    reader_close(&reader);
    return ok;
}

static bool copy_names(struct dataset *out, const char *const *files, size_t count, struct error *err) {
    out->files = arena_array(&out->arena, count, sizeof *out->files);
    if (!out->files) return error_no_memory(err, "data", count);
    for (size_t i = 0; i < count; i++) {
        out->files[i] = arena_strdup(&out->arena, files[i]);
        if (!out->files[i]) return error_no_memory(err, "data", strlen(files[i]));
    }
    out->file_count = count;
    return true;
}

static bool read_files(struct dataset *out, const struct dataset_options *options, struct error *err) {
    struct buf digests = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < out->file_count; i++) {
        struct digest digest;
        ok = read_file(out, (uint32_t)i, options, &digest, err);
        if (ok) buf_text(&digests, digest.hex);
        if (ok && out->file_count == 1) out->digest = digest;
    }
    if (ok && digests.failed) ok = error_no_memory(err, "data", digests.size);
    if (ok && out->file_count > 1) digest_bytes(digests.data, digests.size, &out->digest);
    buf_release(&digests);
    return ok && (out->row_count || dataset_refuse(out, err));
}

bool dataset_open(struct dataset *out, const char *const *files, size_t count,
                  const struct dataset_options *options, struct error *err) {
    static const struct dataset_options defaults = {0};
    memset(out, 0, sizeof *out);
    if (!count || count > UINT32_MAX) return error_set(err, ERROR_USAGE, "data", "no data file is named");
    if (copy_names(out, files, count, err) && read_files(out, options ? options : &defaults, err))
        return true;
    dataset_close(out);
    return false;
}

void dataset_close(struct dataset *dataset) {
    for (size_t i = 0; i < dataset->row_count; i++) row_release(&dataset->rows[i]);
    mem_free(dataset->rows);
    mem_free(dataset->problems);
    buf_release(&dataset->evidence);
    arena_release(&dataset->arena);
    memset(dataset, 0, sizeof *dataset);
}

/* "; line 3: cause" into at most `room` bytes; how many it took. */
static size_t put_clause(char *out, size_t room, const struct dataset *dataset,
                         const struct dataset_problem *problem, bool first) {
    const char *file = fs_base_name(dataset->files[problem->file]), *gap = first ? "" : "; ";
    bool same = problem->file == problem[-1].file;
    int length = same ? snprintf(out, room + 1, "%sline %zu: %s", gap, problem->line, problem->cause)
                      : snprintf(out, room + 1, "%s%s:%zu: %s", gap, file, problem->line, problem->cause);
    if (length > (int)room) text_ellipsis(out, room + 1);
    return strlen(out);
}

bool dataset_refuse_row(struct dataset *dataset, size_t index, const char *text, struct error *err) {
    struct dataset_row *row = &dataset->rows[index];
    struct dataset_cause cause;
    if (row->refused) return true;
    dataset_cause_set(&cause, "the template refuses it: %s", text);
    row->refused = true;
    dataset->refused_count++;
    return add_problem(dataset, row->file, row->line, row->number, &cause, err);
}

static int compare_problems(const void *a, const void *b) {
    const struct dataset_problem *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

void dataset_order_problems(struct dataset *dataset) {
    if (dataset->refused_count)
        qsort(dataset->problems, dataset->problem_count, sizeof *dataset->problems, compare_problems);
}

bool dataset_refuse(const struct dataset *dataset, struct error *err) {
    size_t count = dataset->problem_count, named = count < named_problems ? count : named_problems;
    const struct dataset_problem *first = dataset->problems;
    char why[sizeof err->why] = "";
    if (!count) return error_set(err, ERROR_INTERNAL, "data", "refused without a bad row");
    error_set(err, ERROR_INPUT, "data", "%s:%zu: %s (%zu bad %s of %zu)", dataset->files[first->file],
              first->line, first->cause, count, text_plural(count, "row", "rows"),
              count + dataset->row_count - dataset->refused_count);
    /* The others share one text: each gets an equal part of it, and what those before it left. */
    size_t share = named > 1 ? (sizeof why - 1) / (named - 1) : 0, used = 0;
    for (size_t i = 1; i < named; i++)
        used += put_clause(why + used, share * i - used, dataset, &dataset->problems[i], i == 1);
    error_why(err, "%s", why);
    if (dataset->refused_count == dataset->row_count)
        return error_fix(err, dataset->row_count
                                  ? "No row is left; correct the file, or give another --chat-template."
                                  : "No row is left; correct the file.");
    return error_fix(err, "Correct them, or leave them out with --skip-bad-rows.");
}

bool dataset_messages(json_t **out, const json_t *list, struct error *err) {
    struct dataset_cause cause;
    switch (messages_make(out, list, &cause)) {
    case ROW_GOOD: return true;
    case ROW_BAD: return error_set(err, ERROR_INPUT, "data", "%s", cause.text);
    case ROW_NO_MEMORY: break;
    }
    return error_no_memory(err, "data", json_array_size(list));
}

/* ---- split ---- */

struct drawn {
    uint32_t word;
    size_t index;
};

static int compare_drawn(const void *a, const void *b) {
    const struct drawn *x = a, *y = b;
    if (x->word != y->word) return x->word < y->word ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

bool dataset_split(const struct dataset *dataset, double fraction, uint64_t seed, bool *held,
                   struct error *err) {
    size_t rows = dataset->row_count;
    if (!(fraction > 0 && fraction < 1))
        return error_set(err, ERROR_USAGE, "data", "--valid-split %g is not between 0 and 1", fraction);
    size_t wanted = (size_t)llround(fraction * (double)rows);
    if (!wanted || wanted >= rows) {
        error_set(err, ERROR_USAGE, "data", "--valid-split %g of %zu %s holds out %zu", fraction, rows,
                  text_plural(rows, "row", "rows"), wanted);
        return error_fix(err, "Choose a fraction that leaves rows on both sides.");
    }
    struct drawn *drawn = mem_array(rows, sizeof *drawn);
    if (!drawn) return error_no_memory(err, "data", rows * sizeof *drawn);
    for (size_t i = 0; i < rows; i++) {
        uint32_t words[4], counter[4] = {(uint32_t)i, 0, 0, 0xffffffffu};
        philox(seed, counter, words);
        drawn[i] = (struct drawn){words[0], i};
        held[i] = false;
    }
    qsort(drawn, rows, sizeof *drawn, compare_drawn);
    for (size_t i = 0; i < wanted; i++) held[drawn[i].index] = true;
    mem_free(drawn);
    return true;
}
