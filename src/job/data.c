/* `hone data check`, `stats` and `preview`: files and, with --model, what its template and tokenizer make of
 * them. What is told is made in text/report.h. */
#include <string.h>

#include "base/text.h"
#include "job/job.h"
#include "job/subject.h"
#include "text/report.h"

struct inputs {
    struct dataset data, valid;
    bool has_valid, has_model;
    struct subject subject;
};

static bool open_files(struct dataset *out, struct job *job, const struct text_list *files,
                       struct error *err) {
    struct dataset_options options = {.columns = job->recipe.columns};
    memset(out, 0, sizeof *out);
    if (!files->count) {
        error_set(err, ERROR_USAGE, job->kind->name, "no data is named");
        return error_fix(err, "hone %s rows.jsonl.", job->kind->name);
    }
    return dataset_open(out, (const char *const *)files->items, files->count, &options, err);
}

static void close_inputs(struct inputs *in) {
    if (in->has_model) subject_close(&in->subject);
    if (in->has_valid) dataset_close(&in->valid);
    dataset_close(&in->data);
}

static bool open_inputs(struct inputs *in, struct job *job, struct error *err) {
    memset(in, 0, sizeof *in);
    if (!open_files(&in->data, job, &job->recipe.data, err)) return false;
    bool ok = job_going(job, err);
    if (ok && job->recipe.valid.count)
        ok = in->has_valid = open_files(&in->valid, job, &job->recipe.valid, err);
    if (ok && job->recipe.model) ok = in->has_model = subject_open(&in->subject, job, err);
    if (!ok) close_inputs(in);
    return ok;
}

static const struct renderer *renderer_of(const struct inputs *in) {
    return in->has_model ? &in->subject.render.renderer : NULL;
}

/* The report names the first hundred; a check names every one. */
static bool name_all_problems(const struct dataset *data, json_t *result, struct error *err) {
    json_t *list = json_array();
    struct buf file = {0};
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < data->problem_count; i++) {
        const struct dataset_problem *problem = &data->problems[i];
        buf_clear(&file);
        text_escape(&file, data->files[problem->file], strlen(data->files[problem->file]), false);
        ok = !file.failed &&
             json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "file", file.data, "line",
                                                   (json_int_t)problem->line, "cause", problem->cause)) == 0;
    }
    buf_release(&file);
    ok = ok && json_object_set(result, "problems", list) == 0;
    json_decref(list);
    return ok || error_no_memory(err, "data check", data->problem_count);
}

bool job_data_check(struct job *job, struct error *err) {
    struct inputs in;
    if (!open_inputs(&in, job, err)) return false;
    bool ok =
        data_report_check(&job->result, &in.data, in.has_valid ? &in.valid : NULL, renderer_of(&in), err) &&
        name_all_problems(&in.data, job->result, err);
    if (ok && in.has_valid) { /* bad rows of the held-out files count as well */
        json_t *valid = NULL;
        ok = data_report_check(&valid, &in.valid, NULL, renderer_of(&in), err) &&
             name_all_problems(&in.valid, valid, err);
        if (ok)
            ok = json_object_set(job->result, "valid", valid) == 0 || error_no_memory(err, "data check", 0);
        json_decref(valid);
    }
    close_inputs(&in);
    return ok;
}

bool job_data_stats(struct job *job, struct error *err) {
    struct inputs in;
    if (!open_inputs(&in, job, err)) return false;
    bool ok =
        data_report_stats(&job->result, &in.data, in.has_valid ? &in.valid : NULL, renderer_of(&in), err);
    close_inputs(&in);
    return ok;
}

bool job_data_preview(struct job *job, struct error *err) {
    struct inputs in;
    if (!job->recipe.model) {
        error_set(err, ERROR_USAGE, "data preview", "--model is missing");
        return error_fix(err, "What a row becomes depends on the model's template: --model NAME.");
    }
    if (!open_inputs(&in, job, err)) return false;
    bool ok = data_report_preview(&job->result, &in.data, renderer_of(&in), 0, (size_t)job->options.rows,
                                  job->recipe.skip_bad_rows, err);
    if (ok)
        ok = json_object_set_new(job->result, "of", json_integer((json_int_t)in.data.row_count)) == 0 ||
             error_no_memory(err, "data preview", 0);
    close_inputs(&in);
    return ok;
}
