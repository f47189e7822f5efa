/* `hone data check` and `hone data preview`. */
#include "job/data.h"

#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "job/subject.h"

bool data_open(struct dataset *out, struct job *job, const struct text_list *files, struct error *err) {
    struct dataset_options options = {.columns = job->recipe.columns};
    memset(out, 0, sizeof *out);
    if (!files->count) {
        error_set(err, ERROR_USAGE, job->kind->name, "no data is named");
        return error_fix(err, "hone %s rows.jsonl.", job->kind->name);
    }
    return dataset_open(out, (const char *const *)files->items, files->count, &options, err);
}

/* Text of a stranger as JSON: what is no UTF-8 is escaped. */
static json_t *text_value(const char *text) {
    struct buf out = {0};
    if (utf8_valid(text, strlen(text), NULL)) return json_string(text);
    text_escape(&out, text, strlen(text), true);
    json_t *value = out.failed ? NULL : json_string(out.data);
    buf_release(&out);
    return value;
}

static json_t *describe_problems(const struct dataset *data) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < data->problem_count; i++) {
        const struct dataset_problem *problem = &data->problems[i];
        json_t *one = json_pack("{s:o, s:I, s:o}", "file", text_value(data->files[problem->file]), "line",
                                (json_int_t)problem->line, "cause", text_value(problem->cause));
        if (one && json_array_append_new(list, one) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

json_t *data_describe(const struct dataset *data) {
    json_t *files = json_array();
    for (size_t i = 0; files && i < data->file_count; i++)
        if (json_array_append_new(files, text_value(data->files[i])) != 0) break;
    return json_pack("{s:o, s:s, s:s, s:o, s:I, s:I, s:o, s:s}", "files", files, "container",
                     dataset_container_name(data->container), "layout", dataset_layout_name(data->layout),
                     "evidence", text_value(data->evidence.data ? data->evidence.data : ""), "rows",
                     (json_int_t)data->row_count, "bad_rows", (json_int_t)data->problem_count, "problems",
                     describe_problems(data), "digest", data->digest.hex);
}

/* With a model: what its template and tokenizer make of the rows. */
static bool check_examples(struct job *job, const struct dataset *data, json_t *result, struct error *err) {
    struct subject subject;
    struct examples examples = {0};
    if (!job->recipe.model) return true;
    if (!subject_open(&subject, job, err)) return false;
    bool ok =
        job_going(job, err) && examples_build(&examples, &subject.render.renderer, data, NULL, false, err);
    const struct example_counts *counts = &examples.counts;
    if (ok) {
        json_t *facts =
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "examples", (json_int_t)examples.count, "tokens",
                      (json_int_t)counts->tokens, "supervised_tokens", (json_int_t)counts->supervised,
                      "truncated", (json_int_t)counts->truncated, "dropped", (json_int_t)counts->dropped,
                      "split", (json_int_t)counts->split, "untrained", (json_int_t)counts->skipped_untrained);
        ok = facts && json_object_update(result, facts) == 0;
        json_decref(facts);
        if (!ok) error_no_memory(err, "data check", 0);
    }
    examples_release(&examples);
    subject_close(&subject);
    return ok;
}

bool job_data_check(struct job *job, struct error *err) {
    struct dataset data, valid;
    if (!data_open(&data, job, &job->recipe.data, err)) return false;
    bool ok = job_going(job, err);
    if (ok) {
        job->result = data_describe(&data);
        ok = job->result || error_no_memory(err, "data check", 0);
    }
    if (ok && job->recipe.valid.count) {
        ok = data_open(&valid, job, &job->recipe.valid, err);
        if (ok)
            ok = json_object_set_new(job->result, "valid", data_describe(&valid)) == 0 ||
                 error_no_memory(err, "data check", 0);
        dataset_close(&valid);
    }
    ok = ok && check_examples(job, &data, job->result, err);
    dataset_close(&data);
    return ok;
}

static json_t *describe_row(const struct dataset *data, const struct dataset_row *row, const struct buf *text,
                            const struct template_spans *spans) {
    json_t *trained = json_array();
    for (size_t i = 0; trained && i < spans->count; i++)
        json_array_append_new(
            trained, json_pack("[I, I]", (json_int_t)spans->spans[i].first, (json_int_t)spans->spans[i].end));
    return json_pack("{s:I, s:o, s:I, s:o, s:o}", "row", (json_int_t)row->index, "file",
                     text_value(data->files[row->file]), "line", (json_int_t)row->line, "text",
                     text_value(text->data ? text->data : ""), "trained", trained);
}

static bool preview_row(const struct subject *subject, const struct dataset *data,
                        const struct dataset_row *row, json_t *rows, struct error *err) {
    struct buf text = {0};
    struct template_spans spans = {0};
    bool ok = renderer_row(&subject->render.renderer, data, row, &text, &spans, err);
    if (ok)
        ok = json_array_append_new(rows, describe_row(data, row, &text, &spans)) == 0 ||
             error_no_memory(err, "data preview", text.size);
    buf_release(&text);
    mem_free(spans.spans);
    return ok;
}

bool job_data_preview(struct job *job, struct error *err) {
    struct dataset data;
    struct subject subject = {0};
    if (!data_open(&data, job, &job->recipe.data, err)) return false;
    json_t *rows = json_array();
    bool ok = rows || error_no_memory(err, "data preview", 0);
    if (ok && data.problem_count && !job->recipe.skip_bad_rows) ok = dataset_refuse(&data, err);
    ok = ok && subject_open(&subject, job, err);
    for (size_t i = 0; ok && i < data.row_count && i < (size_t)job->options.rows; i++)
        ok = job_going(job, err) && preview_row(&subject, &data, &data.rows[i], rows, err);
    if (ok) {
        job->result = json_pack("{s:O, s:I}", "rows", rows, "of", (json_int_t)data.row_count);
        ok = job->result || error_no_memory(err, "data preview", 0);
    }
    json_decref(rows);
    subject_close(&subject);
    dataset_close(&data);
    return ok;
}
