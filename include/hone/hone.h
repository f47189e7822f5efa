/* hone: fine-tune, measure and use language models.
 *
 * A job is one command with settings: open it, set values by the names that `hone settings` lists, run it,
 * read its result. A session keeps a model loaded and generates text.
 *
 *     struct hone_job *job;
 *     struct hone_error err;
 *     bool ok = hone_job_open(&job, "train", &err) && hone_job_set(job, "model", "smollm2.gguf", &err) &&
 *               hone_job_set(job, "data", "rows.jsonl", &err) &&
 *               hone_job_set(job, "output", "runs/one", &err) && hone_job_run(job, &err);
 *     if (!ok) fprintf(stderr, "%s: %s\n", err.where, err.what);
 *     hone_job_close(&job);
 *
 * Conventions, for every function below:
 *   - Functions that can fail return bool and take `struct hone_error *err` last; false means that *err is
 *     filled. `err` may be NULL: the cause is then lost. *err is left alone on success.
 *   - A pointer that is NULL where a thing is needed (a handle, a name, a place for a result) is HONE_USAGE;
 *     functions that cannot fail then do nothing, or return NULL.
 *   - Texts are UTF-8 and NUL-terminated. Texts passed in are copied; the caller keeps them.
 *   - Handles are opened with a pointer to the handle, which is NULL after a failure; closing takes NULL, and
 *     NULL inside, and sets it to NULL. A handle that has been closed must not be used, as with free().
 *   - `char *` results are the caller's and are released by hone_free; `const char *` results belong to the
 *     handle that gave them.
 *   - One thread at a time uses a handle, except for hone_job_cancel and hone_session_cancel. Different
 *     handles may be used by different threads at the same time. Threads that a handle starts end when it is
 *     closed; functions of the caller's are called by the thread that runs the job or generates.
 *   - After fork(), a child uses no handle of its parent's; it may open its own.
 *   - The library prints nothing, exits never, and leaves signal handlers, the locale, the working directory
 *     and the environment as they are; its files take no descriptor of a standard stream.
 *   - Numbers have a point whatever the locale is; functions of the caller's run in the caller's locale.
 *   - jansson asks for memory through the library once it has read JSON, unless the program gave it functions
 *     of its own; the blocks are malloc's, as before.
 *   - Numbers in JSON read back to the same bits. Sizes are bytes, times are seconds. */
#ifndef HONE_HONE_H
#define HONE_HONE_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__GNUC__)
#define HONE_API __attribute__((visibility("default")))
#else
#define HONE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0": the version of the library that is loaded. Never NULL. */
HONE_API const char *hone_version(void);

/* ---- errors ---- */

/* What kind of error it is. hone_exit_status gives the status that the program leaves with. */
enum hone_code {
    HONE_OK = 0,
    HONE_FAILED = 1,     /* something outside failed; status 1 */
    HONE_INTERNAL = 2,   /* a mistake of the library, reported instead of crashing; status 1 */
    HONE_USAGE = 3,      /* an unknown, out-of-range or conflicting setting; status 2 */
    HONE_INPUT = 4,      /* a file, a row or a request is refused; status 3 */
    HONE_MEMORY = 5,     /* memory cannot suffice; status 4 */
    HONE_DISK = 6,       /* no space left, or a write failed; status 4 */
    HONE_INTERRUPTED = 7 /* cancelled; a training run can be resumed; status 130 */
};

/* An error as a value. Texts are terminated, cut to fit, and may be empty. */
struct hone_error {
    enum hone_code code;
    char where[64]; /* the part: "train", "gguf" */
    char what[512]; /* one clause: file, line or field, and what is wrong with it */
    char why[2048]; /* the cause */
    char fix[512];  /* the remedy */
};

/* "usage", "input" …; "internal" for an unknown code. Never NULL. */
HONE_API const char *hone_code_name(enum hone_code code);
/* 0, 1, 2, 3, 4 or 130. */
HONE_API int hone_exit_status(enum hone_code code);
/* "where: what: why. fix" as one line without a newline; of NULL as of no error. NULL when out of memory. */
HONE_API char *hone_error_text(const struct hone_error *err);
/* {"error":{"code":,"where":,"what":,"why":,"fix":}} as one line without a newline. NULL when out of memory.
 */
HONE_API char *hone_error_json(const struct hone_error *err);

/* Releases a text that the library gave to the caller. Takes NULL. */
HONE_API void hone_free(char *text);

/* Text from files or models made safe for a terminal: control characters, bidirectional marks and bytes that
 * are not UTF-8 become \xNN or \u{N}. `size` bytes are read, none where `text` is NULL; newline and tab stay
 * when `keep_lines`. NULL when out of memory. */
HONE_API char *hone_escape(const char *text, size_t size, bool keep_lines);

/* ---- settings ---- */

/* The settings of a command ("train", "data check" …), or of all with `command` NULL, as a JSON array of
 * objects with name, key (in recipe.yaml), type (text, path, int, float, bool, choice, bytes, list, names),
 * help, group, effect (result, rounding, harmless), and where they apply: argument, choices, least, most,
 * default, automatic (how "auto" is decided), unit, search. Help, forms and docs are built from it.
 * Errors: HONE_USAGE for an unknown command. */
HONE_API bool hone_settings(const char *command, char **json, struct hone_error *err);

/* The settings as the Markdown of docs/settings.md. NULL when out of memory. */
HONE_API char *hone_settings_markdown(void);

/* ---- jobs ---- */

struct hone_job;

/* Makes a job of a command: "doctor", "pull", "data check", "data stats", "data preview", "train", "plan",
 * "eval", "generate", "convert", "settings", "bench", "report". Nothing is read yet. Errors: HONE_USAGE for
 * an unknown command. */
HONE_API bool hone_job_open(struct hone_job **out, const char *command, struct hone_error *err);
/* Frees the job and everything it gave. Not while hone_job_run is running. */
HONE_API void hone_job_close(struct hone_job **job);

/* Sets a value from text, as the flag `--name value` would; `-` and `_` in names count as the same. `value`
 * NULL: true, for settings of type bool. A list grows by each call; "auto" gives a value back to its rule.
 * Errors: HONE_USAGE with the nearest name, the bounds or the choices, and once the job runs or has run; the
 * job is unchanged. */
HONE_API bool hone_job_set(struct hone_job *job, const char *name, const char *value, struct hone_error *err);

/* Has `on_event` called with every event as one JSON object without a newline, in order, from the thread that
 * runs the job. The text is gone after the call; the function must not use the job, except to cancel it.
 * NULL: no calls. The lines are those of events.jsonl (docs/run-files.md); besides, "recipe" tells
 * a listener every setting with its origin and reason before a run, and "text" the answer as it grows. */
HONE_API void hone_job_on_event(struct hone_job *job, void (*on_event)(void *user, const char *json_line),
                                void *user);

/* Runs the job to its end. A job runs once. Errors: all codes; HONE_INTERRUPTED after a cancel, when a
 * training run has saved what it has and goes on with the setting "resume". */
HONE_API bool hone_job_run(struct hone_job *job, struct hone_error *err);

/* Asks a running (or not yet run) job to stop; it is looked for between operations. Safe from signal handlers
 * and from any thread, as long as the job is open. */
HONE_API void hone_job_cancel(struct hone_job *job);

/* The result as a JSON object, after a hone_job_run that succeeded; NULL before. Belongs to the job. */
HONE_API const char *hone_job_result(const struct hone_job *job);

/* ---- sessions ---- */

struct hone_session;

/* Loads a model (a store name, a GGUF file or a Hugging Face directory) and, unless `adapter` is NULL, a PEFT
 * adapter. `options`: NULL, or a JSON object of settings of "chat" that hold for the session, such as
 * {"threads":2,"system":"Be brief."}; they may name the model and the adapter too, and `model` is NULL then.
 * Errors: HONE_INPUT, HONE_USAGE, HONE_MEMORY. */
HONE_API bool hone_session_open(struct hone_session **out, const char *model, const char *adapter,
                                const char *options, struct hone_error *err);
HONE_API void hone_session_close(struct hone_session **session);

/* What is doubtful about what the session was opened with, as one sentence for its user, such as a context
 * that is larger than the model's; NULL: nothing. Belongs to the session. */
HONE_API const char *hone_session_warning(const struct hone_session *session);

/* Generates one answer. `request`: a text, which becomes one user turn, or a JSON array of messages
 * ([{"role":"user","content":"…"}, …]). `options`: NULL, or a JSON object with max-tokens, temperature,
 * top-p, top-k, min-p, repetition-penalty, seed. `on_text` (may be NULL) gets the text piece by piece, each
 * piece whole UTF-8 characters and not terminated; it must not use the session, except to cancel it, and
 * returning false stops there. On success *json (may be NULL) is
 * {"text":,"prompt_tokens":,"generated_tokens":,"finish_reason":,"seconds":}; the caller's, NULL on failure.
 * Errors: HONE_INPUT, HONE_USAGE, HONE_MEMORY, HONE_INTERRUPTED; the session stays usable. */
HONE_API bool hone_session_generate(struct hone_session *session, const char *request, const char *options,
                                    bool (*on_text)(void *user, const char *text, size_t size), void *user,
                                    char **json, struct hone_error *err);

/* Stops the generation that is running, as hone_job_cancel does; the next one starts fresh. */
HONE_API void hone_session_cancel(struct hone_session *session);

#ifdef __cplusplus
}
#endif

#endif
