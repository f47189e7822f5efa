/* The public functions for errors, settings and jobs: a thin coat over job.h. */
#include <hone/hone.h>

#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "job/api_internal.h"
#include "job/remedy.h"

/* The public codes are the internal ones; a mismatch would lie about exit statuses. */
_Static_assert((int)HONE_INTERRUPTED == (int)ERROR_INTERRUPTED && (int)HONE_USAGE == (int)ERROR_USAGE &&
                   (int)HONE_DISK == (int)ERROR_DISK && (int)HONE_INPUT == (int)ERROR_INPUT,
               "codes differ");
_Static_assert(sizeof(struct hone_error) == sizeof(struct error), "error texts differ in size");

struct hone_job {
    struct job *job;
    char *result;
};

const char *hone_version(void) { return HONE_VERSION; }

bool api_fail(struct hone_error *out, const struct error *err) {
    if (!out) return false;
    const char *fix = err->fix[0] ? err->fix : remedy_for(err);
    memset(out, 0, sizeof *out);
    out->code = (enum hone_code)err->code;
    memcpy(out->where, err->where, sizeof out->where);
    memcpy(out->what, err->what, sizeof out->what);
    memcpy(out->why, err->why, sizeof out->why);
    memcpy(out->fix, fix, strlen(fix) + 1);
    return false;
}

static void take_error(struct error *out, const struct hone_error *err) {
    memset(out, 0, sizeof *out);
    out->code = (enum error_code)err->code;
    memcpy(out->where, err->where, sizeof out->where);
    memcpy(out->what, err->what, sizeof out->what);
    memcpy(out->why, err->why, sizeof out->why);
    memcpy(out->fix, err->fix, sizeof out->fix);
}

const char *hone_code_name(enum hone_code code) { return error_code_name((enum error_code)code); }

int hone_exit_status(enum hone_code code) { return error_exit_status((enum error_code)code); }

char *hone_error_text(const struct hone_error *err) {
    struct error own;
    char text[error_text_size];
    take_error(&own, err);
    error_format(&own, text, sizeof text);
    return mem_strdup(text);
}

/* Error texts may quote files. */
char *hone_error_json(const struct hone_error *err) {
    struct buf text = {0};
    struct error own;
    json_t *value = json_pack("{s:{s:s, s:o, s:o, s:o, s:o}}", "error", "code", hone_code_name(err->code),
                              "where", json_text(err->where), "what", json_text(err->what), "why",
                              json_text(err->why), "fix", json_text(err->fix));
    bool ok = value && json_write(value, &text, &own);
    json_decref(value);
    char *out = ok ? buf_detach(&text, NULL) : NULL;
    buf_release(&text);
    return out;
}

void hone_free(char *text) { mem_free(text); }

char *hone_escape(const char *text, size_t size, bool keep_lines) {
    struct buf out = {0};
    buf_text(&out, "");
    text_escape(&out, text, size, keep_lines);
    char *escaped = out.failed ? NULL : buf_detach(&out, NULL);
    buf_release(&out);
    return escaped;
}

bool api_text(json_t *value, char **out, struct error *err) {
    struct buf text = {0};
    bool ok = value ? json_write(value, &text, err) : error_no_memory(err, "hone", 0);
    *out = ok ? buf_detach(&text, NULL) : NULL;
    buf_release(&text);
    return *out || (ok && error_no_memory(err, "hone", 0));
}

bool hone_settings(const char *command, char **json, struct hone_error *out) {
    struct error err;
    const struct job_kind *kind = command ? job_kind_find(command) : NULL;
    *json = NULL;
    if (command && !kind) {
        job_refuse_name(command, &err);
        return api_fail(out, &err);
    }
    json_t *list = job_settings_list(kind ? kind->use : 0);
    bool ok = api_text(list, json, &err);
    json_decref(list);
    return ok || api_fail(out, &err);
}

char *hone_settings_markdown(void) {
    struct buf out = {0};
    char *text = job_settings_markdown(&out) ? buf_detach(&out, NULL) : NULL;
    buf_release(&out);
    return text;
}

bool hone_job_open(struct hone_job **out, const char *command, struct hone_error *cause) {
    struct error err;
    *out = NULL;
    struct hone_job *job = mem_calloc(1, sizeof *job);
    if (!job) error_no_memory(&err, "hone", sizeof *job);
    if (job && job_open(&job->job, command, &err)) {
        *out = job;
        return true;
    }
    mem_free(job);
    return api_fail(cause, &err);
}

void hone_job_close(struct hone_job **handle) {
    struct hone_job *job = *handle;
    if (!job) return;
    job_close(&job->job);
    mem_free(job->result);
    mem_free(job);
    *handle = NULL;
}

bool hone_job_set(struct hone_job *job, const char *name, const char *value, struct hone_error *cause) {
    struct error err;
    return job_set(job->job, name, value, &err) || api_fail(cause, &err);
}

void hone_job_on_event(struct hone_job *job, void (*on_event)(void *user, const char *json_line),
                       void *user) {
    job->job->on_event = on_event;
    job->job->user = user;
}

bool hone_job_run(struct hone_job *job, struct hone_error *cause) {
    struct error err;
    error_clear(&err);
    if (job_run(job->job, &err) && api_text(job->job->result, &job->result, &err)) return true;
    return api_fail(cause, &err);
}

void hone_job_cancel(struct hone_job *job) {
    atomic_store_explicit(&job->job->stop, 1, memory_order_relaxed);
}

const char *hone_job_result(const struct hone_job *job) { return job->result; }
