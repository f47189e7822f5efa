/* `hone train` and `hone plan`: the recipe is completed, the model found, and the trainer does the rest. */
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/thread.h"
#include "device/device.h"
#include "job/find_model.h"
#include "train/events.h"

static void on_event(void *user, const char *line) { job_emit(user, line); }

/* What cannot be told for want of memory stays "auto". */
static void settle(json_t *settings, const char *name, const char *value, const char *reason) {
    json_t *row = json_object_get(settings, name);
    const char *origin = json_string_value(json_object_get(row, "origin"));
    if (!origin || !strcmp(origin, "given") || !strcmp(origin, "stored")) return;
    json_object_set_new(row, "value", json_string(value));
    json_object_set_new(row, "reason", json_string(reason));
}

/* What stays open in the recipe, since a resume on another machine decides it anew, and what it is here. */
static void settle_machine(json_t *settings, const struct recipe *recipe) {
    char threads[32];
    struct error ignored;
    const struct device_ops *device = device_find(recipe_device_name(recipe), &ignored);
    snprintf(threads, sizeof threads, "%d", thread_cores());
    settle(settings, "threads", threads, "every core that the process may use");
    if (device) settle(settings, "device", device->name, "the fastest device here");
    settle(settings, "memory", "0", "no bound but what is free");
}

/* Who watches is told every setting, its origin and its reason, before the run begins. */
static void on_prepared(void *user, struct recipe *recipe) {
    struct job *job = user;
    struct error ignored;
    json_t *settings = recipe_describe(recipe);
    settle_machine(settings, recipe);
    if (settings && job->on_event)
        job_emit_json(job,
                      json_pack("{s:s, s:i, s:f, s:i, s:O}", "event", "recipe", "version", event_version,
                                "time", clock_unix(), "step", 0, "settings", settings),
                      &ignored);
    json_decref(settings);
}

/* A resumed run need not name its model again: its own recipe does. *out from mem_alloc. */
static bool model_name(const struct recipe *recipe, char **out, struct error *err) {
    struct recipe stored;
    if (recipe->model) {
        *out = mem_strdup(recipe->model);
        return *out || error_no_memory(err, "train", 0);
    }
    char *path = fs_join(recipe->output, "recipe.yaml");
    if (!path || !recipe_init(&stored, err)) {
        mem_free(path);
        return error_no_memory(err, "train", 0);
    }
    bool ok = false;
    if (fs_kind_of(path) == FS_NOTHING) {
        error_set(err, ERROR_USAGE, "train", "%s holds no run to resume", recipe->output);
        error_fix(err, "Leave --resume out to start one, or name the directory of a run.");
    } else if (recipe_read(&stored, path, err)) {
        *out = stored.model ? mem_strdup(stored.model) : NULL;
        ok = *out || error_set(err, ERROR_INPUT, "train", "%s names no model", path);
    }
    recipe_release(&stored);
    mem_free(path);
    return ok;
}

/* What the adapter names as its base: the store's name, or the last part of the path; never a whole path. */
static char *base_name(const char *name) {
    size_t size = strlen(name);
    while (size > 1 && name[size - 1] == '/') size--;
    size_t start = size;
    while (start > 0 && name[start - 1] != '/') start--;
    return mem_strndup(name + start, size - start);
}

static bool prepare(struct job *job, char **model, char **base, struct error *err) {
    struct recipe *recipe = &job->recipe;
    char *name = NULL;
    if (recipe->recipe && !recipe_read(recipe, recipe->recipe, err)) return false;
    bool ok = recipe_resolve(recipe, "made-by", "hone " HONE_VERSION, "", err) &&
              recipe_check(recipe, job->kind->use, err) && model_name(recipe, &name, err) &&
              job_find_model(job, name, model, NULL, err);
    if (ok) {
        *base = base_name(name);
        ok = *base || error_no_memory(err, "train", 0);
    }
    mem_free(name);
    return ok;
}

static bool run(struct job *job,
                bool (*go)(struct recipe *recipe, const struct trainer_host *host, json_t **result,
                           struct error *err),
                struct error *err) {
    char *model = NULL, *base = NULL;
    bool ok = prepare(job, &model, &base, err);
    struct trainer_host host = {.model_path = model,
                                .base_model = base,
                                .stop = &job->stop,
                                .event = on_event,
                                .prepared = on_prepared,
                                .user = job,
                                .profile = job->options.profile,
                                .runs = &job->options.runs};
    ok = ok && go(&job->recipe, &host, &job->result, err);
    mem_free(model);
    mem_free(base);
    return ok;
}

bool job_train(struct job *job, struct error *err) {
    if (!run(job, trainer_run, err)) return false;
    /* The run's own files name the result from the run's directory; who asked for the run wants to find it.
     */
    const char *what = json_object_get(job->result, "model") ? "model" : "adapter";
    char *path = fs_join(job->recipe.output, what);
    bool ok = path && json_object_set_new(job->result, what, json_text(path)) == 0;
    mem_free(path);
    return ok || error_no_memory(err, "train", 0);
}

bool job_plan(struct job *job, struct error *err) {
    const struct options *options = &job->options;
    if (!options->compare && options->runs.count) {
        error_set(err, ERROR_USAGE, "plan", "--run is read with --compare alone");
        return error_fix(err, "Add --compare, or leave --run out.");
    }
    if (options->compare && options->profile) {
        error_set(err, ERROR_USAGE, "plan", "--compare and --profile exclude each other");
        return error_fix(err, "Give one of the two.");
    }
    return run(job, options->compare ? trainer_compare : trainer_plan, err);
}
