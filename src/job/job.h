/* Jobs: the one front door. The command line and every other view open a job by name, set values, run it,
 * read events and the result; what a job does is a function in a file of its own.
 *
 * Knows everything below; knows no terminal and no flags. The public API (include/hone/hone.h) is a thin
 * coat over this in api.c and session.c.
 *
 * Words: job kind (a row of the table), event (a JSON object while it runs), result (one at the end). */
#ifndef HONE_JOB_JOB_H
#define HONE_JOB_JOB_H

#include <stdatomic.h>

#include "job/options.h"
#include "train/recipe.h"

struct job;

struct job_kind {
    const char *name;                                /* "data check" */
    unsigned use;                                    /* its bit of enum recipe_use */
    bool (*run)(struct job *job, struct error *err); /* fills job->result */
};

extern const struct job_kind job_kinds[];
extern const size_t job_kind_count;
const struct job_kind *job_kind_find(const char *name); /* NULL: none */
/* "there is no command …", with the nearest. Always returns false. */
bool job_refuse_name(const char *name, struct error *err);

struct job {
    const struct job_kind *kind;
    struct recipe recipe;
    struct options options;
    void (*on_event)(void *user, const char *line);
    void *user;
    atomic_int stop; /* nonzero: leave as soon as possible, with ERROR_INTERRUPTED */
    bool ran;
    json_t *result;
};

bool job_open(struct job **out, const char *name, struct error *err);
void job_close(struct job **job);
bool job_set(struct job *job, const char *name, const char *value, struct error *err);
bool job_run(struct job *job, struct error *err);
/* Hands an event to whoever listens. */
void job_emit(struct job *job, const char *line);
/* The same from a value, which is released; event, version, time and step stand in it already. */
bool job_emit_json(struct job *job, json_t *event, struct error *err);
/* An event "warning". */
bool job_warn(struct job *job, const char *message, struct error *err);
/* ERROR_INTERRUPTED when a stop was asked for. */
bool job_going(struct job *job, struct error *err);

/* All settings of a use, described; NULL when out of memory. `use` 0: all. */
json_t *job_settings_list(unsigned use);
/* docs/settings.md. */
bool job_settings_markdown(struct buf *out);

/* The jobs, a file each. */
bool job_doctor(struct job *job, struct error *err);
bool job_pull(struct job *job, struct error *err);
bool job_data_check(struct job *job, struct error *err);
bool job_data_stats(struct job *job, struct error *err);
bool job_data_preview(struct job *job, struct error *err);
bool job_train(struct job *job, struct error *err);
bool job_plan(struct job *job, struct error *err);
bool job_eval(struct job *job, struct error *err);
bool job_generate(struct job *job, struct error *err);
bool job_chat(struct job *job, struct error *err); /* refuses: a conversation is a session */
bool job_bench(struct job *job, struct error *err);
bool job_convert(struct job *job, struct error *err);
bool job_report(struct job *job, struct error *err);
bool job_settings(struct job *job, struct error *err);

#endif
