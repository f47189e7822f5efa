#include "job/job.h"

#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "train/events.h"

const struct job_kind job_kinds[] = {
    {"doctor", USE_DOCTOR, job_doctor},
    {"pull", USE_PULL, job_pull},
    {"data check", USE_CHECK, job_data_check},
    {"data stats", USE_STATS, job_data_stats},
    {"data preview", USE_PREVIEW, job_data_preview},
    {"train", USE_TRAIN, job_train},
    {"plan", USE_PLAN, job_plan},
    {"eval", USE_EVAL, job_eval},
    {"generate", USE_GENERATE, job_generate},
    {"chat", USE_CHAT, job_chat},
    {"bench", USE_BENCH, job_bench},
    {"convert", USE_CONVERT, job_convert},
    {"report", USE_REPORT, job_report},
    {"settings", USE_SETTINGS, job_settings},
};
const size_t job_kind_count = sizeof job_kinds / sizeof *job_kinds;

const struct job_kind *job_kind_find(const char *name) {
    for (size_t i = 0; i < job_kind_count; i++)
        if (strcmp(job_kinds[i].name, name) == 0) return &job_kinds[i];
    return NULL;
}

bool job_refuse_name(const char *name, struct error *err) {
    const char *nearest = NULL;
    int least = 3;
    for (size_t i = 0; i < job_kind_count; i++) {
        bool begun = strlen(name) > 1 && !strncmp(name, job_kinds[i].name, strlen(name));
        int distance = begun ? 1 : text_distance(name, job_kinds[i].name);
        if (distance >= least) continue;
        least = distance;
        nearest = job_kinds[i].name;
    }
    struct buf shown = {0};
    text_escape(&shown, name, strnlen(name, 60), false);
    error_set(err, ERROR_USAGE, "hone", "there is no command \"%s\"", shown.data ? shown.data : "");
    buf_release(&shown);
    if (nearest) return error_fix(err, "Did you mean \"%s\"?", nearest);
    return error_fix(err, "`hone --help` lists them all.");
}

bool job_open(struct job **out, const char *name, struct error *err) {
    const struct job_kind *kind = job_kind_find(name);
    *out = NULL;
    if (!kind) {
        return job_refuse_name(name, err);
    }
    struct job *job = mem_calloc(1, sizeof *job);
    if (!job) return error_no_memory(err, "hone", sizeof *job);
    job->kind = kind;
    struct settings options = options_settings(&job->options);
    if (recipe_init(&job->recipe, err) && settings_init(&options, err)) {
        *out = job;
        return true;
    }
    job_close(&job);
    return false;
}

void job_close(struct job **handle) {
    struct job *job = *handle;
    if (!job) return;
    struct settings options = options_settings(&job->options);
    settings_release(&options);
    recipe_release(&job->recipe);
    json_decref(job->result);
    mem_free(job);
    *handle = NULL;
}

/* Settings do not know which command they serve, and a stop means the whole job. */
static bool name_command(const struct job *job, struct error *err) {
    size_t size = strnlen(job->kind->name, sizeof err->where - 1);
    if (err->where[0] && strcmp(err->where, "settings") != 0 && err->code != ERROR_INTERRUPTED) return false;
    memcpy(err->where, job->kind->name, size);
    err->where[size] = '\0';
    return false;
}

bool job_set(struct job *job, const char *name, const char *value, struct error *err) {
    struct settings recipe = recipe_settings(&job->recipe), options = options_settings(&job->options);
    if (job->ran) return error_set(err, ERROR_USAGE, job->kind->name, "a job takes no settings once it runs");
    struct settings *sets[] = {&recipe, &options};
    return settings_assign(sets, 2, job->kind->use, name, value, "--", err) || name_command(job, err);
}

bool job_run(struct job *job, struct error *err) {
    if (job->ran) return error_set(err, ERROR_USAGE, job->kind->name, "a job runs once");
    job->ran = true;
    return (job_going(job, err) && job->kind->run(job, err)) || name_command(job, err);
}

void job_emit(struct job *job, const char *line) {
    if (job->on_event) job->on_event(job->user, line);
}

bool job_emit_json(struct job *job, json_t *event, struct error *err) {
    struct buf line = {0};
    bool ok = event && json_write(event, &line, err);
    if (!event) error_no_memory(err, "hone", 0);
    if (ok) job_emit(job, line.data);
    buf_release(&line);
    json_decref(event);
    return ok;
}

bool job_warn(struct job *job, const char *message, struct error *err) {
    return job_emit_json(job,
                         json_pack("{s:s, s:i, s:f, s:i, s:o}", "event", "warning", "version", event_version,
                                   "time", clock_unix(), "step", 0, "message", json_text(message)),
                         err);
}

bool job_going(struct job *job, struct error *err) {
    if (!atomic_load_explicit(&job->stop, memory_order_relaxed)) return true;
    return error_set(err, ERROR_INTERRUPTED, job->kind->name, "stopped");
}
