#include "text/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "text/example_content.h"
#include "text/example_internal.h"

enum { shown_problems = 100 };

/* ---- identical rows ---- */

static bool row_digest(const struct dataset_row *row, struct buf *scratch, struct digest *out,
                       struct error *err) {
    buf_clear(scratch);
    if (row->text) buf_text(scratch, row->text);
    if (row->messages && !json_write(row->messages, scratch, err)) return false;
    if (row->tools && !json_write(row->tools, scratch, err)) return false;
    if (scratch->failed) return error_no_memory(err, "data", scratch->size);
    digest_bytes(scratch->data ? scratch->data : "", scratch->size, out);
    return true;
}

static int compare_digests(const void *a, const void *b) {
    const struct digest *x = a, *y = b;
    return strcmp(x->hex, y->hex);
}

/* The digests of all rows, sorted; NULL with *err set on failure. */
static struct digest *sorted_digests(const struct dataset *data, struct error *err) {
    struct buf scratch = {0};
    struct digest *digests = mem_array(data->row_count, sizeof *digests);
    bool ok = digests || error_no_memory(err, "data", data->row_count * sizeof *digests);
    for (size_t i = 0; ok && i < data->row_count; i++)
        ok = row_digest(&data->rows[i], &scratch, &digests[i], err);
    buf_release(&scratch);
    if (!ok) {
        mem_free(digests);
        return NULL;
    }
    qsort(digests, data->row_count, sizeof *digests, compare_digests);
    return digests;
}

static bool count_identical(const struct dataset *data, const struct dataset *valid, size_t *duplicates,
                            size_t *overlap, struct error *err) {
    struct digest *mine = sorted_digests(data, err), *theirs = NULL;
    bool ok = mine != NULL;
    *duplicates = *overlap = 0;
    for (size_t i = 1; ok && i < data->row_count; i++)
        *duplicates += !compare_digests(&mine[i], &mine[i - 1]);
    if (ok && valid) {
        theirs = sorted_digests(valid, err);
        ok = theirs != NULL;
    }
    for (size_t i = 0; ok && valid && i < valid->row_count; i++)
        *overlap += bsearch(&theirs[i], mine, data->row_count, sizeof *mine, compare_digests) != NULL;
    mem_free(mine);
    mem_free(theirs);
    return ok;
}

/* ---- answers and lengths ---- */

static bool has_empty_answer(const struct dataset_row *row) {
    size_t i;
    json_t *message;
    if (row->text) return !row->text[strspn(row->text, " \t\r\n")];
    json_array_foreach(row->messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        bool calls = json_array_size(json_object_get(message, "tool_calls")) > 0;
        if (!strcmp(role, "assistant") && !calls && content_is_blank(json_object_get(message, "content")))
            return true;
    }
    return false;
}

/* Lengths of the examples before anything is cut. */
struct lengths {
    size_t *tokens; /* sorted at the end */
    size_t count, capacity, total, supervised, over, untrained;
    size_t calls_ignored, first_calls_ignored; /* rows; index of the first */
};

static bool add_length(struct lengths *lengths, size_t tokens, struct error *err) {
    if (lengths->count == lengths->capacity) {
        size_t capacity = lengths->capacity ? lengths->capacity * 2 : 256;
        size_t *grown = mem_realloc(lengths->tokens, capacity * sizeof *grown);
        if (!grown) return error_no_memory(err, "data", capacity * sizeof *grown);
        lengths->tokens = grown;
        lengths->capacity = capacity;
    }
    lengths->tokens[lengths->count++] = tokens;
    lengths->total += tokens;
    return true;
}

static int compare_sizes(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

/* How many tokens of an example stay within --max-length; what is split stays, in pieces. */
static size_t kept_tokens(const struct renderer *renderer, const struct marked_tokens *marked) {
    size_t count = marked->tokens.count, most = renderer->max_length;
    if (!most || count <= most || renderer->overlength == OVERLENGTH_SPLIT) return count;
    return renderer->overlength == OVERLENGTH_DROP ? 0 : most;
}

/* Whether a run trains token i: one that an example, which a piece of a split row is too, begins with has
 * nothing before it to be told from. */
static bool is_trained(const struct renderer *renderer, const struct marked_tokens *marked, size_t i) {
    size_t most = renderer->max_length;
    bool begins = i == 0 || (renderer->overlength == OVERLENGTH_SPLIT && most && i % most == 0);
    return !begins && i < kept_tokens(renderer, marked) && marked->trained[i];
}

static bool trains(const struct renderer *renderer, const struct marked_tokens *marked) {
    size_t kept = kept_tokens(renderer, marked);
    if (!kept && marked->tokens.count) return true; /* dropped for its length, and counted as such */
    for (size_t i = 1; i < kept; i++)
        if (is_trained(renderer, marked, i)) return true;
    return false;
}

static bool measure_row(struct lengths *out, const struct dataset *data, const struct dataset_row *row,
                        const struct renderings *renderings, const struct renderer *renderer,
                        struct marked_tokens *marked, struct error *err) {
    bool over = false, trained = false, ok = true;
    for (size_t i = 0; ok && i < renderings->count; i++) {
        ok = rendering_tokens(marked, renderer, &renderings->items[i], err) ||
             row_error(err, data->files[row->file], row);
        ok = ok && add_length(out, marked->tokens.count, err);
        if (!ok) break;
        out->supervised += marked->supervised;
        over |= renderer->max_length && marked->tokens.count > renderer->max_length;
        trained |= trains(renderer, marked);
    }
    out->over += over;
    out->untrained += !trained;
    if (renderings->calls_ignored && !out->calls_ignored++) out->first_calls_ignored = row->index;
    return ok;
}

static bool measure(struct lengths *out, struct dataset *data, const struct renderer *renderer,
                    struct error *err) {
    struct marked_tokens marked = {0};
    bool ok = true, refused;
    for (size_t r = 0; ok && r < data->row_count; r++) {
        const struct dataset_row *row = &data->rows[r];
        struct renderings renderings;
        if (row_render(&renderings, renderer, data->files[row->file], row, &refused, err)) {
            ok = measure_row(out, data, row, &renderings, renderer, &marked, err);
            renderings_release(&renderings);
        } else {
            ok = refused && dataset_refuse_row(data, r, err->what, err);
        }
    }
    marked_tokens_release(&marked);
    dataset_order_problems(data);
    if (ok && out->count) qsort(out->tokens, out->count, sizeof *out->tokens, compare_sizes);
    return ok;
}

/* The smallest length that at least `percent` of the examples do not exceed (nearest rank). */
static size_t percentile(const struct lengths *lengths, size_t percent) {
    if (!lengths->count) return 0;
    size_t rank = (lengths->count * percent + 99) / 100;
    return lengths->tokens[rank ? rank - 1 : 0];
}

static json_t *count_json(size_t value) { return json_integer((json_int_t)value); }

/* Buckets that double: up to 16, 32, 64 … tokens. */
static json_t *histogram(const struct lengths *lengths) {
    json_t *buckets = json_array();
    size_t at = 0;
    for (size_t bound = 16; buckets && at < lengths->count; bound *= 2) {
        size_t from = at;
        while (at < lengths->count && lengths->tokens[at] <= bound) at++;
        json_list_add(&buckets,
                      json_pack("{s:o, s:o}", "up_to", count_json(bound), "rows", count_json(at - from)));
    }
    return buckets;
}

static json_t *lengths_json(const struct lengths *lengths) {
    double mean = lengths->count ? (double)lengths->total / (double)lengths->count : 0;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o}", "min",
                     count_json(percentile(lengths, 0)), "p50", count_json(percentile(lengths, 50)), "p90",
                     count_json(percentile(lengths, 90)), "p99", count_json(percentile(lengths, 99)), "max",
                     count_json(percentile(lengths, 100)), "mean", mean, "total", count_json(lengths->total),
                     "supervised", count_json(lengths->supervised), "histogram", histogram(lengths));
}

/* ---- reports ---- */

json_t *data_problems_json(const struct dataset *data) {
    json_t *problems = json_array();
    for (size_t i = 0; problems && i < data->problem_count && i < shown_problems; i++) {
        const struct dataset_problem *problem = &data->problems[i];
        json_list_add(&problems, json_pack("{s:s, s:o, s:s}", "file", data->files[problem->file], "line",
                                           count_json(problem->line), "cause", problem->cause));
    }
    return problems;
}

static json_t *files_json(const struct dataset *data) {
    json_t *files = json_array();
    for (size_t i = 0; files && i < data->file_count; i++) json_list_add(&files, json_string(data->files[i]));
    return files;
}

static bool add_lengths(json_t *report, const struct lengths *lengths, const struct dataset *data) {
    int failed = json_object_set_new(report, "over_length", count_json(lengths->over));
    failed |= json_object_set_new(report, "untrained", count_json(lengths->untrained));
    failed |= json_object_set_new(report, "tool_calls_ignored", count_json(lengths->calls_ignored));
    if (!lengths->calls_ignored) return !failed;
    const struct dataset_row *row = &data->rows[lengths->first_calls_ignored];
    failed |= json_object_set_new(
        report, "tool_calls_ignored_first",
        json_pack("{s:s, s:o}", "file", data->files[row->file], "line", count_json(row->line)));
    return !failed;
}

/* What both reports tell; with lengths where there is a renderer. */
static bool report(json_t **out, struct lengths *lengths, struct dataset *data, const struct dataset *valid,
                   const struct renderer *renderer, struct error *err) {
    size_t duplicates, overlap, empty = 0;
    *out = NULL;
    if (!count_identical(data, valid, &duplicates, &overlap, err)) return false;
    if (renderer && !measure(lengths, data, renderer, err)) return false;
    for (size_t i = 0; i < data->row_count; i++) empty += has_empty_answer(&data->rows[i]);
    json_t *value = json_pack(
        "{s:o, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "files", files_json(data), "container",
        dataset_container_name(data->container), "layout", dataset_layout_name(data->layout), "evidence",
        data->evidence.data ? data->evidence.data : "", "digest", data->digest.hex, "rows",
        count_json(data->row_count - data->refused_count), "bad_rows", count_json(data->problem_count),
        "problems", data_problems_json(data), "empty_answers", count_json(empty), "duplicates",
        count_json(duplicates), "overlap", valid ? count_json(overlap) : json_null());
    if (!value) return error_no_memory(err, "data", 0);
    if (renderer && !add_lengths(value, lengths, data)) {
        json_decref(value);
        return error_no_memory(err, "data", 0);
    }
    *out = value;
    return true;
}

bool data_report_check(json_t **out, struct dataset *data, const struct dataset *valid,
                       const struct renderer *renderer, struct error *err) {
    struct lengths lengths = {0};
    bool ok = report(out, &lengths, data, valid, renderer, err);
    mem_free(lengths.tokens);
    return ok;
}

bool data_report_stats(json_t **out, struct dataset *data, const struct dataset *valid,
                       const struct renderer *renderer, struct error *err) {
    struct lengths lengths = {0};
    bool ok = report(out, &lengths, data, valid, renderer, err);
    if (ok && renderer && json_object_set_new(*out, "tokens", lengths_json(&lengths)) != 0) {
        json_decref(*out);
        *out = NULL;
        ok = error_no_memory(err, "data", lengths.count);
    }
    mem_free(lengths.tokens);
    return ok;
}

/* ---- preview ---- */

static json_t *spans_json(const struct template_spans *spans) {
    json_t *out = json_array();
    for (size_t i = 0; out && i < spans->count; i++)
        json_list_add(
            &out, json_pack("[o, o]", count_json(spans->spans[i].first), count_json(spans->spans[i].end)));
    return out;
}

/* The text of a token that stands around a text without being in it; nothing where there is none. */
static int add_token_text(json_t *example, const char *key, const struct tokenizer *tokenizer, int32_t id) {
    size_t size = 0;
    const char *text = id >= 0 ? tokenizer_token(tokenizer, id, &size) : NULL;
    return text ? json_object_set_new(example, key, json_stringn(text, size)) : 0;
}

static bool add_tokens(json_t *example, const struct marked_tokens *marked, const struct rendering *rendering,
                       const struct renderer *renderer, struct error *err) {
    json_t *ids = json_array(), *starts = json_array(), *flags = json_array();
    const struct tokens *tokens = &marked->tokens;
    size_t kept = kept_tokens(renderer, marked), count = tokens->count;
    for (size_t i = 0; ids && starts && flags && i < count; i++) {
        json_list_add(&ids, json_integer(tokens->ids[i]));
        json_list_add(&starts, json_integer((json_int_t)tokens->starts[i]));
        json_list_add(&flags, json_integer(is_trained(renderer, marked, i)));
    }
    int failed = json_object_set_new(example, "kept", count_json(kept));
    if (rendering->bare && count > 1 && tokens->starts[1] == 0)
        failed |= add_token_text(example, "begin", renderer->tokenizer, tokens->ids[0]);
    if (rendering->bare && count > 0 && tokens->starts[count - 1] == rendering->text.size)
        failed |= add_token_text(example, "end", renderer->tokenizer, tokens->ids[count - 1]);
    failed |= json_object_set_new(example, "ids", ids);
    failed |= json_object_set_new(example, "starts", starts);
    failed |= json_object_set_new(example, "flags", flags);
    return !failed || error_no_memory(err, "data", marked->tokens.count);
}

/* A row that the template refuses adds nothing. */
static bool preview_row(json_t *examples, struct dataset *data, size_t index, const struct renderer *renderer,
                        struct error *err) {
    const struct dataset_row *row = &data->rows[index];
    struct marked_tokens marked = {0};
    struct renderings renderings;
    const char *name = data->files[row->file];
    bool ok = true, refused;
    if (!row_render(&renderings, renderer, name, row, &refused, err))
        return refused && dataset_refuse_row(data, index, err->what, err);
    for (size_t i = 0; ok && i < renderings.count; i++) {
        const struct rendering *rendering = &renderings.items[i];
        const char *text = rendering->text.data ? rendering->text.data : "";
        json_t *example =
            json_pack("{s:o, s:s, s:o, s:o, s:o}", "row", count_json(row->index), "file", name, "line",
                      count_json(row->line), "text", json_stringn(text, rendering->text.size), "trained",
                      spans_json(&rendering->trained));
        ok = json_array_append_new(examples, example) == 0 ||
             error_no_memory(err, "data", rendering->text.size);
        if (!ok || !renderer->tokenizer) continue;
        ok = (rendering_tokens(&marked, renderer, rendering, err) || row_error(err, name, row)) &&
             add_tokens(example, &marked, rendering, renderer, err);
    }
    marked_tokens_release(&marked);
    renderings_release(&renderings);
    return ok;
}

/* The refusal counts every bad row, those behind what was asked for too. */
static bool refuse_all(struct dataset *data, const struct renderer *renderer, struct error *err) {
    bool refused;
    for (size_t i = 0; i < data->row_count; i++) {
        struct renderings renderings;
        if (row_render(&renderings, renderer, data->files[data->rows[i].file], &data->rows[i], &refused, err))
            renderings_release(&renderings);
        else if (!refused || !dataset_refuse_row(data, i, err->what, err))
            return false;
    }
    dataset_order_problems(data);
    return dataset_refuse(data, err);
}

bool data_report_preview(json_t **out, struct dataset *data, const struct renderer *renderer, size_t first,
                         size_t count, bool skip_bad_rows, struct error *err) {
    *out = NULL;
    if (first >= data->row_count)
        return error_set(err, ERROR_USAGE, "data", "row %zu is asked for, there %s %zu (from 0)", first,
                         text_plural(data->row_count, "is", "are"), data->row_count);
    json_t *examples = json_array();
    bool ok = examples || error_no_memory(err, "data", count);
    for (size_t i = first, shown = 0; ok && i < data->row_count && shown < count; i++) {
        ok = preview_row(examples, data, i, renderer, err);
        shown += !data->rows[i].refused;
    }
    bool none = data->refused_count == data->row_count;
    if (ok && data->problem_count && (none || !skip_bad_rows)) ok = refuse_all(data, renderer, err);
    if (ok) {
        *out = json_pack("{s:O}", "examples", examples);
        ok = *out || error_no_memory(err, "data", count);
    }
    json_decref(examples);
    return ok;
}

static void show_example(const json_t *example, bool colour, struct buf *out) {
    const json_t *text = json_object_get(example, "text"), *spans = json_object_get(example, "trained");
    const char *bytes = json_string_value(text), *open = colour ? "\033[1;32m" : "\u27e6",
               *close = colour ? "\033[0m" : "\u27e7";
    size_t at = 0, size = json_string_length(text), i;
    json_t *span;
    buf_printf(out, "row %lld, line %lld\n", (long long)json_integer_value(json_object_get(example, "row")),
               (long long)json_integer_value(json_object_get(example, "line")));
    json_array_foreach(spans, i, span) {
        size_t first = (size_t)json_integer_value(json_array_get(span, 0));
        size_t end = (size_t)json_integer_value(json_array_get(span, 1));
        if (first < at || end < first || end > size) continue;
        text_escape(out, bytes + at, first - at, true);
        buf_text(out, open);
        text_escape(out, bytes + first, end - first, true);
        buf_text(out, close);
        at = end;
    }
    text_escape(out, bytes + at, size - at, true);
    buf_text(out, "\n\n");
}

bool data_preview_text(const json_t *preview, bool colour, struct buf *out, struct error *err) {
    size_t i;
    json_t *example;
    json_array_foreach(json_object_get(preview, "examples"), i, example) show_example(example, colour, out);
    return !out->failed || error_no_memory(err, "data", out->size);
}
