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
    void (*on_event)(void *user, const char *line);
    void *user;
    struct locale *locale; /* while it runs */
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

bool api_null(struct hone_error *out, const char *name) {
    struct error err;
    error_set(&err, ERROR_USAGE, "hone", "%s is NULL", name);
    return api_fail(out, &err);
}

bool api_enter(struct locale *out, struct error *err) {
    return locale_enter(out) || error_no_memory(err, "hone", 0);
}

static void take_error(struct error *out, const struct hone_error *err) {
    memset(out, 0, sizeof *out);
    if (!err) return;
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
    struct error own, cause;
    take_error(&own, err);
    json_t *value = json_pack("{s:{s:s, s:o, s:o, s:o, s:o}}", "error", "code", error_code_name(own.code),
                              "where", json_text(own.where), "what", json_text(own.what), "why",
                              json_text(own.why), "fix", json_text(own.fix));
    bool ok = value && json_write(value, &text, &cause);
    json_decref(value);
    char *out = ok ? buf_detach(&text, NULL) : NULL;
    buf_release(&text);
    return out;
}

void hone_free(char *text) { mem_free(text); }

char *hone_escape(const char *text, size_t size, bool keep_lines) {
    struct buf out = {0};
    buf_text(&out, "");
    if (text) text_escape(&out, text, size, keep_lines);
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

bool hone_settings(const char *command, char **json, struct hone_error *cause) {
    struct error err;
    struct locale locale;
    if (!json) return api_null(cause, "json");
    const struct job_kind *kind = command ? job_kind_find(command) : NULL;
    *json = NULL;
    if (command && !kind) {
        job_refuse_name(command, &err);
        return api_fail(cause, &err);
    }
    bool ok = api_enter(&locale, &err);
    json_t *list = ok ? job_settings_list(kind ? kind->use : 0) : NULL;
    ok = ok && api_text(list, json, &err);
    json_decref(list);
    locale_leave(&locale);
    return ok || api_fail(cause, &err);
}

char *hone_settings_markdown(void) {
    struct buf out = {0};
    struct locale locale;
    char *text = locale_enter(&locale) && job_settings_markdown(&out) ? buf_detach(&out, NULL) : NULL;
    locale_leave(&locale);
    buf_release(&out);
    return text;
}

bool hone_job_open(struct hone_job **out, const char *command, struct hone_error *cause) {
    struct error err;
    struct locale locale;
    if (!out) return api_null(cause, "out");
    *out = NULL;
    if (!command) return api_null(cause, "command");
    bool ok = api_enter(&locale, &err);
    struct hone_job *job = ok ? mem_calloc(1, sizeof *job) : NULL;
    if (ok && !job) ok = error_no_memory(&err, "hone", sizeof *job);
    ok = ok && job_open(&job->job, command, &err);
    locale_leave(&locale);
    if (ok) {
        *out = job;
        return true;
    }
    mem_free(job);
    return api_fail(cause, &err);
}

void hone_job_close(struct hone_job **handle) {
    struct hone_job *job = handle ? *handle : NULL;
    if (!job) return;
    job_close(&job->job);
    mem_free(job->result);
    mem_free(job);
    *handle = NULL;
}

bool hone_job_set(struct hone_job *job, const char *name, const char *value, struct hone_error *cause) {
    struct error err;
    struct locale locale;
    if (!job || !name) return api_null(cause, job ? "name" : "job");
    bool ok = api_enter(&locale, &err) && job_set(job->job, name, value, &err);
    locale_leave(&locale);
    return ok || api_fail(cause, &err);
}

/* A function of the caller's runs in the caller's locale. */
static void pass_event(void *user, const char *line) {
    struct hone_job *job = user;
    locale_to_caller(job->locale);
    job->on_event(job->user, line);
    locale_from_caller(job->locale);
}

void hone_job_on_event(struct hone_job *job, void (*on_event)(void *user, const char *json_line),
                       void *user) {
    if (!job) return;
    job->on_event = on_event;
    job->user = user;
    job->job->on_event = on_event ? pass_event : NULL;
    job->job->user = job;
}

bool hone_job_run(struct hone_job *job, struct hone_error *cause) {
    struct error err;
    struct locale locale;
    if (!job) return api_null(cause, "job");
    struct locale *outer = job->locale; /* of a listener that runs the job again, which is refused */
    error_clear(&err);
    job->locale = &locale;
    bool ok =
        api_enter(&locale, &err) && job_run(job->job, &err) && api_text(job->job->result, &job->result, &err);
    locale_leave(&locale);
    job->locale = outer;
    return ok || api_fail(cause, &err);
}

void hone_job_cancel(struct hone_job *job) {
    if (job) atomic_store_explicit(&job->job->stop, 1, memory_order_relaxed);
}

const char *hone_job_result(const struct hone_job *job) { return job ? job->result : NULL; }
