/* Sessions of the public API: a model kept ready to answer. Settings are those of the command "chat", so a
 * job that never runs holds them. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "job/api_internal.h"
#include "job/talk.h"

struct hone_session {
    struct job *settings;
    struct session *session;
    atomic_int stop;
    atomic_bool busy;                                      /* it generates */
    char warning[find_model_sentence + talk_warning_size]; /* "": none */
};

bool job_chat(struct job *job, struct error *err) {
    (void)job;
    error_set(err, ERROR_USAGE, "chat", "a conversation is no job");
    return error_fix(err, "Use a session (hone_session_open).");
}

/* A JSON value as a setting's text: strings as they are, the rest as JSON writes it. */
static bool set_value(struct job *job, const char *name, const json_t *value, struct error *err) {
    struct buf text = {0};
    size_t i;
    json_t *item;
    if (json_is_array(value)) {
        json_array_foreach(value, i,
                           item) if (json_is_array(item) || !set_value(job, name, item, err)) return false;
        return true;
    }
    if (json_is_object(value) || json_is_null(value))
        return error_set(err, ERROR_USAGE, "chat", "%.60s: not a plain value", name);
    if (json_is_string(value)) return job_set(job, name, json_string_value(value), err);
    bool ok = json_write(value, &text, err) && job_set(job, name, text.data, err);
    buf_release(&text);
    return ok;
}

/* Options are the caller's own text and no file. */
static bool refuse_options(const char *what, const char *why, struct error *err) {
    error_set(err, ERROR_USAGE, "chat", "%s", what);
    if (*why) error_why(err, "%s", why);
    return error_fix(err, "Give a JSON object of settings, such as {\"seed\":1}.");
}

static bool set_options(struct job *job, const char *options, struct error *err) {
    json_t *object = NULL, *value;
    const char *name;
    bool ok = true;
    if (!options) return true;
    if (!json_read(&object, options, strlen(options), "options", 1, err)) {
        const struct error cause = *err;
        return cause.code == ERROR_INPUT && refuse_options(cause.what, cause.why, err);
    }
    if (!json_is_object(object)) ok = refuse_options("options are not a JSON object", "", err);
    json_object_foreach(object, name, value) ok = ok && set_value(job, name, value, err);
    json_decref(object);
    return ok;
}

static void gather_warning(struct hone_session *session, const char *note) {
    char text[talk_warning_size];
    bool more = talk_warning(session->session, session->settings, text);
    snprintf(session->warning, sizeof session->warning, "%s%s%s", note, *note && more ? "; " : "",
             more ? text : "");
}

bool hone_session_open(struct hone_session **out, const char *model, const char *adapter, const char *options,
                       struct hone_error *cause) {
    struct error err;
    struct locale locale;
    char note[find_model_sentence] = "";
    if (!out) return api_null(cause, "out");
    *out = NULL;
    struct hone_session *session = mem_calloc(1, sizeof *session);
    bool ok = api_enter(&locale, &err) && (session || error_no_memory(&err, "chat", sizeof *session)) &&
              job_open(&session->settings, "chat", &err);
    ok = ok && (!model || job_set(session->settings, "model", model, &err)) &&
         (!adapter || job_set(session->settings, "adapter", adapter, &err)) &&
         set_options(session->settings, options, &err) &&
         talk_open(&session->session, session->settings, note, &err) &&
         session_start(session->session, 1, session->settings->options.context, &err);
    if (ok) gather_warning(session, note);
    locale_leave(&locale);
    if (!ok) {
        hone_session_close(&session);
        return api_fail(cause, &err);
    }
    *out = session;
    return true;
}

const char *hone_session_warning(const struct hone_session *session) {
    return session && session->warning[0] ? session->warning : NULL;
}

void hone_session_close(struct hone_session **handle) {
    struct hone_session *session = handle ? *handle : NULL;
    if (!session) return;
    session_close(&session->session);
    job_close(&session->settings);
    mem_free(session);
    *handle = NULL;
}

struct listener {
    bool (*on_text)(void *user, const char *text, size_t size);
    void *user;
    struct locale *locale;
};

/* A function of the caller's runs in the caller's locale. */
static bool on_piece(void *user, const char *text, size_t size) {
    struct listener *listener = user;
    locale_to_caller(listener->locale);
    bool more = listener->on_text(listener->user, text, size);
    locale_from_caller(listener->locale);
    return more;
}

/* A request may set how it is sampled; what the model was opened with holds for the session. */
static bool refuse_session_settings(const struct settings *settings, const char *except, struct error *err) {
    for (size_t i = 0; i < settings->count; i++) {
        const struct setting *row = &settings->rows[i];
        bool sampling = strcmp(row->group, "sampling") == 0 && strcmp(row->name, "context") != 0;
        if (settings->states[i].origin != ORIGIN_GIVEN || sampling || strcmp(row->name, except) == 0)
            continue;
        error_set(err, ERROR_USAGE, "chat", "%s holds for the whole session", row->name);
        return error_fix(err, "Give it to hone_session_open.");
    }
    return true;
}

/* The session's settings, with this request's over them. */
static bool request_settings(struct job **out, struct hone_session *session, const char *options,
                             struct error *err) {
    if (!job_open(out, "chat", err)) return false;
    struct settings recipe = recipe_settings(&(*out)->recipe),
                    from_recipe = recipe_settings(&session->settings->recipe);
    struct settings own = options_settings(&(*out)->options),
                    from_own = options_settings(&session->settings->options);
    return set_options(*out, options, err) && refuse_session_settings(&recipe, "seed", err) &&
           refuse_session_settings(&own, "", err) &&
           settings_inherit(&recipe, &from_recipe, ORIGIN_GIVEN, err) &&
           settings_inherit(&own, &from_own, ORIGIN_GIVEN, err);
}

static bool read_request(struct talk *out, const char *request, struct error *err) {
    json_t *value = NULL;
    const char *first = request + strspn(request, " \t\r\n");
    /* A text may begin with a bracket and still be a text. */
    error_clear(err);
    if (*first != '[' || !json_read(&value, request, strlen(request), "request", 1, err))
        return err->code != ERROR_MEMORY && talk_prompt(out, request, err);
    bool ok = talk_value(out, value, "request", err);
    json_decref(value);
    return ok;
}

static bool generate(struct hone_session *session, const char *request, const char *options,
                     struct listener *listener, char **json, struct error *err) {
    struct job *settings = NULL;
    struct talk talk = {0};
    struct request one;
    struct answer answer = {0};
    bool ok = request_settings(&settings, session, options, err) && read_request(&talk, request, err) &&
              talk_request(&talk, session->session, settings, &one, err);
    if (ok && listener->on_text) {
        one.text = on_piece;
        one.user = listener;
    }
    ok = ok && session_generate(session->session, &one, &answer, 1, &session->stop, err);
    if (!ok && err->code == ERROR_INTERRUPTED) error_set(err, ERROR_INTERRUPTED, "chat", "stopped");
    if (ok && json) {
        json_t *value = talk_answer(&answer);
        ok = api_text(value, json, err);
        json_decref(value);
    }
    buf_release(&answer.text);
    talk_release(&talk);
    job_close(&settings);
    return ok;
}

bool hone_session_generate(struct hone_session *session, const char *request, const char *options,
                           bool (*on_text)(void *user, const char *text, size_t size), void *user,
                           char **json, struct hone_error *cause) {
    struct error err;
    struct locale locale;
    struct listener listener = {on_text, user, &locale};
    if (json) *json = NULL;
    if (!session || !request) return api_null(cause, session ? "request" : "session");
    if (atomic_exchange(&session->busy, true)) {
        error_set(&err, ERROR_USAGE, "chat", "the session is generating an answer");
        error_fix(&err, "Wait for it, or open another session.");
        return api_fail(cause, &err);
    }
    atomic_store(&session->stop, 0);
    bool ok = api_enter(&locale, &err) && generate(session, request, options, &listener, json, &err);
    locale_leave(&locale);
    atomic_store(&session->busy, false);
    return ok || api_fail(cause, &err);
}

void hone_session_cancel(struct hone_session *session) {
    if (session) atomic_store_explicit(&session->stop, 1, memory_order_relaxed);
}
