/* One table of plans: each method with each way to recompute, on one model, data and machine, and what runs
 * that were made so have measured. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "train/run_internal.h"
#include "train/run_log.h"

enum { most_values = 8, value_size = 24 };

/* A setting that the rows of the table vary, and its values. */
struct axis {
    const char *name;
    char values[most_values][value_size];
    int count;
};

/* Every choice but `auto`; where one was given, that one. */
static bool list_values(struct axis *axis, struct recipe *recipe, struct error *err) {
    struct settings settings = recipe_settings(recipe);
    size_t index = settings_find(&settings, axis->name, USE_PLAN);
    struct buf given = {0};
    const char *at = recipe_rows[index].choices;
    if (recipe->states[index].origin == ORIGIN_GIVEN && setting_write(&recipe_rows[index], recipe, &given))
        at = given.data;
    for (axis->count = 0; *at && axis->count < most_values; at += *at == '|') {
        int size = (int)strcspn(at, "|");
        if (strncmp(at, "auto", 4) != 0) snprintf(axis->values[axis->count++], value_size, "%.*s", size, at);
        at += size;
    }
    bool ok = !given.failed || error_no_memory(err, "plan", 0);
    buf_release(&given);
    return ok;
}

/* The recipe as it was given, with one value of each axis. */
static bool make_variant(struct recipe *out, const struct recipe *given, const struct axis *axes,
                         const int *chosen, int axis_count, struct error *err) {
    if (!recipe_init(out, err)) return false;
    struct settings to = recipe_settings(out),
                    from = {recipe_rows, recipe_row_count, (void *)(uintptr_t)given,
                            (struct setting_state *)(uintptr_t)given->states};
    bool ok = settings_inherit(&to, &from, ORIGIN_GIVEN, err);
    for (int a = 0; ok && a < axis_count; a++) {
        size_t row = settings_find(&to, axes[a].name, USE_PLAN);
        ok = settings_set(&to, row, axes[a].values[chosen[a]], err);
    }
    return ok;
}

/* What this plan is, where it can run; why not, where it cannot. */
static bool plan_row(struct run *run, struct recipe *variant, json_t **row, struct error *err) {
    struct error cause;
    bool fits = run_plan_anew(run, variant, &cause);
    if (fits) {
        if (!run_start_engine(run, err) || !run_rehearse(run, err) ||
            !run_plan_json(&run->plan, &run->programs, false, row, err))
            return false;
        json_object_del(*row, "profile");
    } else if (cause.code == ERROR_MEMORY || cause.code == ERROR_USAGE) {
        *row = json_pack("{s:s, s:s, s:I}", "why", cause.what, "fix", cause.fix, "peak_bytes",
                         (json_int_t)run->plan.peak);
    } else {
        *err = cause;
        return false;
    }
    json_object_put(row, "fits", json_boolean(fits));
    return *row || error_no_memory(err, "plan", 0);
}

/* ---- what was measured ---- */

/* The run was made with this very plan, as far as it tells. */
static bool made_so(const json_t *row, const json_t *plan) {
    static const char *const keys[] = {
        "method",         "base_type",          "recompute",           "compute",
        "frozen_weights", "micro_batch_tokens", "trainable_parameters"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *told = json_object_get(plan, keys[i]);
        if (told && !json_equal(json_object_get(row, keys[i]), told)) return false;
    }
    return true;
}

static bool add_measured(json_t *rows, const char *directory, struct events *listener, struct error *err) {
    struct run_log log;
    char text[512];
    size_t index, found = 0;
    json_t *row;
    if (!run_log_open(&log, directory, err)) return false;
    bool ok = true;
    json_array_foreach(rows, index, row) {
        if (!log.plan || log.peak_bytes <= 0 || !made_so(row, log.plan)) continue;
        found++;
        ok = ok &&
             json_object_set_new(row, "measured_peak_bytes", json_integer((json_int_t)log.peak_bytes)) == 0 &&
             json_object_set_new(row, "run", json_text(directory)) == 0;
    }
    if (!ok) error_no_memory(err, "plan", 0);
    snprintf(text, sizeof text, "%.300s %s", directory,
             log.plan && log.peak_bytes > 0 ? "was made with another plan than any of these"
                                            : "has done no step yet");
    run_log_close(&log);
    return ok && (found || events_warn(listener, text, err));
}

/* Before anything takes time. */
static bool check_runs(const struct trainer_host *host, struct error *err) {
    for (size_t i = 0; host->runs && i < host->runs->count; i++) {
        struct run_log log;
        if (!run_log_open(&log, host->runs->items[i], err)) return false;
        run_log_close(&log);
    }
    return true;
}

static bool has_run(const char *directory) {
    char *path = directory ? fs_join(directory, "events.jsonl") : NULL;
    bool there = path && fs_kind_of(path) == FS_FILE;
    mem_free(path);
    return there;
}

static bool add_all_measured(struct run *run, const char *output, json_t *rows, struct events *listener,
                             struct error *err) {
    const struct text_list *runs = run->host->runs;
    bool ok = !has_run(output) || add_measured(rows, output, listener, err);
    for (size_t i = 0; ok && runs && i < runs->count; i++)
        ok = add_measured(rows, runs->items[i], listener, err);
    return ok;
}

/* ---- the table ---- */

static bool add_rows(struct run *run, const struct recipe *given, struct axis axes[2], json_t *rows,
                     struct error *err) {
    bool ok = true;
    for (int i = 0; ok && i < axes[0].count * axes[1].count; i++) {
        const int chosen[] = {i / axes[1].count, i % axes[1].count};
        struct recipe variant;
        json_t *row = NULL;
        ok = make_variant(&variant, given, axes, chosen, 2, err) && plan_row(run, &variant, &row, err);
        for (int a = 0; ok && a < 2; a++)
            ok = json_object_set_new(row, axes[a].name, json_string(axes[a].values[chosen[a]])) == 0 ||
                 error_no_memory(err, "plan", 0);
        if (ok) ok = json_array_append(rows, row) == 0 || error_no_memory(err, "plan", 0);
        json_decref(row);
        run->recipe = NULL; /* the variant's end */
        recipe_release(&variant);
        if (ok && run->host->stop && atomic_load(run->host->stop))
            ok = error_set(err, ERROR_INTERRUPTED, "plan", "stopped");
    }
    return ok;
}

bool trainer_compare(struct recipe *recipe, const struct trainer_host *host, json_t **result,
                     struct error *err) {
    struct axis axes[2] = {{.name = "method"}, {.name = "recompute"}};
    struct recipe given;
    struct run run;
    struct events listener = {.file = {.fd = -1}, .listen = host->event, .user = host->user}; /* no file */
    json_t *rows = json_array();
    *result = NULL;
    if (!rows || !make_variant(&given, recipe, axes, NULL, 0, err)) {
        json_decref(rows);
        return error_no_memory(err, "plan", 0);
    }
    memset(&run, 0, sizeof run);
    run.lock = -1;
    bool ok = check_runs(host, err) && list_values(&axes[0], recipe, err) &&
              list_values(&axes[1], recipe, err) && run_read(&run, recipe, host, true, err) &&
              run_tell_warnings(&run, &listener, err) && add_rows(&run, &given, axes, rows, err) &&
              add_all_measured(&run, given.output, rows, &listener, err);
    if (ok) {
        *result = json_pack("{s:O}", "rows", rows);
        ok = *result || error_no_memory(err, "plan", 0);
    }
    run_close(&run);
    recipe_release(&given);
    json_decref(rows);
    return ok;
}
