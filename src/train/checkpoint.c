#include "train/checkpoint.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/safetensors.h"

enum { manifest_limit = 1 << 20 };

/* Whether the weights themselves are trained. */
static bool is_full(const struct engine *engine) { return !engine->state.method.parts; }

uint64_t checkpoint_bytes(const struct engine *engine) {
    const struct model_state *state = &engine->state;
    /* A frozen part of a model is written too: no more than all of it. */
    uint64_t copies = method_is_subtracted(&state->method) ? 2 : 1; /* with where it began */
    return copies * state->table.rows[state->trained].bytes +
           state_class_bytes(&state->table, STATE_OPTIMIZER) +
           (is_full(engine) ? engine->model->mapped_bytes : 0) + (UINT64_C(1) << 16);
}

uint64_t checkpoint_result_bytes(const struct engine *engine) {
    const struct model_state *state = &engine->state;
    uint64_t trained = state->table.rows[state->trained].bytes; /* f32: what is written is no wider */
    return trained + (is_full(engine) ? engine->model->mapped_bytes : 0) + (UINT64_C(1) << 16);
}

/* What of struct progress counts something. */
static const struct {
    const char *key;
    size_t offset;
    int64_t most;
    bool optional;                                                           /* 0 where it is not there */
} counters[] = {{"step", offsetof(struct progress, step), INT32_MAX, false}, /* as the device counts them */
                {"epoch", offsetof(struct progress, epoch), INT32_MAX, false},
                {"cursor", offsetof(struct progress, cursor), UINT32_MAX, false},
                {"tokens", offsetof(struct progress, tokens), INT64_MAX, false},
                {"best_step", offsetof(struct progress, best_step), INT32_MAX, false},
                {"evaluated", offsetof(struct progress, evaluated), INT32_MAX, true},
                {"stale", offsetof(struct progress, stale), INT32_MAX, true},
                {"skipped", offsetof(struct progress, skipped), INT32_MAX, true},
                {"skipped_in_row", offsetof(struct progress, skipped_in_row), INT32_MAX, true},
                {"rollbacks", offsetof(struct progress, rollbacks), 1000, true},
                {"failed_step", offsetof(struct progress, failed_step), INT32_MAX, true},
                {"tries", offsetof(struct progress, tries), 1000, true},
                {"first_saved", offsetof(struct progress, first_saved), INT32_MAX, true},
                {"stopped", offsetof(struct progress, stopped), 1, true},
                {"micro_batch_tokens", offsetof(struct progress, micro_batch_tokens), INT32_MAX, true}};
enum { counter_count = sizeof counters / sizeof *counters };

/* JSON has no NaN: a value that was never measured, or is none, is left out. */
static bool set_number(json_t *object, const char *key, double value) {
    return !isfinite(value) || json_object_set_new(object, key, json_real(value)) == 0;
}

static bool write_state(const char *directory, const struct progress *p, struct error *err) {
    json_t *state = json_pack("{s:i}", "version", 1);
    bool ok = state != NULL;
    for (size_t i = 0; ok && i < counter_count; i++) {
        const int64_t *value = (const int64_t *)(const void *)((const char *)p + counters[i].offset);
        ok = json_object_set_new(state, counters[i].key, json_integer((json_int_t)*value)) == 0;
    }
    ok = ok && (!*p->data.hex || (json_object_set_new(state, "data", json_string(p->data.hex)) == 0 &&
                                  json_object_set_new(state, "seed", json_integer(p->seed)) == 0));
    ok = ok && set_number(state, "loss", p->loss) && set_number(state, "eval_loss", p->eval_loss) &&
         set_number(state, "best_loss", p->best_loss) && set_number(state, "seconds", p->seconds);
    char *path = fs_join(directory, "state.json");
    if (!ok || !path)
        ok = error_no_memory(err, "checkpoint", 0);
    else
        ok = json_write_file(state, path, true, err);
    json_decref(state);
    mem_free(path);
    return ok;
}

enum { most_moments = optimizer_most_states + 2 };

/* The optimizer's state as tensors, named as its row names it, the moving average, and what scales the loss;
 * `rows` are those of the state table. */
static size_t list_moments(const struct engine *engine, int rows[most_moments],
                           struct tensor tensors[most_moments]) {
    const struct model_state *state = &engine->state;
    size_t count = 0;
    for (int s = 0; s < most_moments; s++) {
        int at = s < optimizer_most_states    ? state->moments[s]
                 : s == optimizer_most_states ? state->average
                                              : state->scaling;
        if (at < 0) continue;
        const struct state_row *row = &state->table.rows[at];
        rows[count] = at;
        tensors[count++] = (struct tensor){
            .name = row->name, .dtype = row->dtype, .rank = 1, .dim = {row->dim[0]}, .bytes = row->bytes};
    }
    return count;
}

/* One at a time, so that saving takes what the plan says of it. */
struct moments {
    struct engine *engine;
    int rows[most_moments];
};

static bool emit_moment(void *user, size_t index, struct fs_writer *file, struct error *err) {
    const struct moments *moments = user;
    struct engine_row row;
    if (!engine_row_open(&row, moments->engine, moments->rows[index], true, err)) return false;
    bool ok = fs_writer_write(file, row.data, row.bytes, err);
    engine_row_release(&row);
    return ok;
}

static bool write_optimizer(struct engine *engine, const char *directory, struct error *err) {
    struct moments moments = {.engine = engine};
    struct tensor tensors[most_moments];
    size_t count = list_moments(engine, moments.rows, tensors);
    char *path = fs_join(directory, "optimizer.safetensors");
    bool ok = path ? safetensors_write_each(path, tensors, count, NULL, emit_moment, &moments, err)
                   : error_no_memory(err, "checkpoint", 0);
    mem_free(path);
    return ok;
}

static void path_of(int64_t step, char out[64]) {
    snprintf(out, 64, "checkpoints/step-%08lld", (long long)step);
}

static bool file_record(const char *directory, const char *name, json_t *records, struct error *err) {
    struct digest digest;
    struct fs_info info;
    char *path = fs_join(directory, name);
    bool ok = path ? fs_stat(path, &info, err) && digest_file(path, &digest, err)
                   : error_no_memory(err, "checkpoint", 0);
    if (ok && json_object_set_new(
                  records, name,
                  json_pack("{s:I, s:s}", "bytes", (json_int_t)info.size, "digest", digest.hex)) != 0)
        ok = error_no_memory(err, "checkpoint", 0);
    mem_free(path);
    return ok;
}

/* Calls `visit` for each file of a checkpoint that a resume or another command reads, by its name in there.
 * The adapter's README.md is none: it is a card for people, who may write in it, and a checkpoint is no worse
 * for it. */
typedef bool visit_file(const char *directory, const char *name, json_t *records, struct error *err);
static bool each_file(const char *directory, bool full, visit_file *visit, json_t *records,
                      struct error *err) {
    static const char *const names[] = {"optimizer.safetensors", "state.json", "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors"};
    bool ok = true;
    for (size_t i = 0; ok && i < (full ? 2 : 4); i++) ok = visit(directory, names[i], records, err);
    if (!full || !ok) return ok;
    struct fs_list list = {0};
    char *model = fs_join(directory, "model");
    ok = model ? fs_list_open(&list, model, err) : error_no_memory(err, "checkpoint", 0);
    for (size_t i = 0; ok && i < list.count; i++) {
        char *name = fs_join("model", list.names[i]);
        ok = name ? visit(directory, name, records, err) : error_no_memory(err, "checkpoint", 0);
        mem_free(name);
    }
    fs_list_close(&list);
    mem_free(model);
    return ok;
}

static bool write_manifest(const char *directory, bool full, struct error *err) {
    json_t *records = json_object(), *manifest = json_pack("{s:i, s:O}", "version", 1, "files", records);
    char *path = fs_join(directory, "MANIFEST");
    bool ok = manifest && path;
    if (!ok) error_no_memory(err, "checkpoint", 0);
    ok = ok && each_file(directory, full, file_record, records, err);
    ok = ok && json_write_file(manifest, path, true, err);
    json_decref(records);
    json_decref(manifest);
    mem_free(path);
    return ok;
}

bool checkpoint_save(struct engine *engine, const char *run, const struct progress *progress,
                     const char *base_model, char path[64], struct error *err) {
    struct error ignored;
    path_of(progress->step, path);
    struct buf partial = {0};
    bool full = is_full(engine);
    char *final = fs_join(run, path), *trained = NULL;
    bool ok = final && buf_printf(&partial, "%s%s", final, fs_partial_mark) &&
              (trained = fs_join(partial.data, full ? "model" : "adapter"));
    if (!ok) error_no_memory(err, "checkpoint", 0);
    ok = ok && fs_remove_tree(partial.data, err) && fs_make_directories(full ? partial.data : trained, err) &&
         (full ? engine_save_model(engine, trained, true, err)
               : engine_save_adapter(engine, trained, false, base_model, NULL, err)) &&
         write_optimizer(engine, partial.data, err) && write_state(partial.data, progress, err) &&
         write_manifest(partial.data, full, err);
    /* One of this step may stand there, from before a resume or without its evaluation. */
    ok = ok && fs_replace_tree(partial.data, final, err);
    if (!ok && partial.data) fs_remove_tree(partial.data, &ignored);
    mem_free(final);
    mem_free(trained);
    buf_release(&partial);
    return ok;
}

/* The step in "step-00000100"; -1 for anything else. */
static int64_t step_of(const char *name) {
    char *end;
    if (strncmp(name, "step-", 5) || name[5] < '0' || name[5] > '9') return -1;
    long long step = strtoll(name + 5, &end, 10);
    return *end ? -1 : step;
}

/* What is no checkpoint comes first. Names alone would not do: they have more digits from step 100,000,000
 * on.
 */
static int step_order(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int64_t left = step_of(x), right = step_of(y);
    return left != right ? (left > right) - (left < right) : strcmp(x, y);
}

/* In the order of their steps. */
static bool list_checkpoints(const char *run, struct fs_list *list, char **folder, struct error *err) {
    *list = (struct fs_list){0};
    *folder = fs_join(run, "checkpoints");
    if (!*folder) return error_no_memory(err, "checkpoint", 0);
    if (fs_kind_of(*folder) == FS_NOTHING) return true;
    if (!fs_list_open(list, *folder, err)) return false;
    if (list->count) qsort(list->names, list->count, sizeof *list->names, step_order);
    return true;
}

bool checkpoint_count(const char *run, uint64_t *out, struct error *err) {
    struct fs_list list;
    char *folder;
    *out = 0;
    bool ok = list_checkpoints(run, &list, &folder, err);
    for (size_t i = 0; ok && i < list.count; i++) *out += step_of(list.names[i]) >= 0;
    fs_list_close(&list);
    mem_free(folder);
    return ok;
}

static bool check_file(const char *directory, const char *name, const json_t *record, struct error *err) {
    struct digest digest;
    struct fs_info info;
    const char *want = json_string_value(json_object_get(record, "digest"));
    json_int_t bytes = json_integer_value(json_object_get(record, "bytes"));
    char *path = fs_join(directory, name);
    bool ok = path ? fs_stat(path, &info, err) : error_no_memory(err, "checkpoint", 0);
    if (ok && info.kind != FS_FILE)
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s is missing or no file", path);
    if (ok && (json_int_t)info.size != bytes)
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s is damaged: it has %llu bytes, MANIFEST says %lld",
                       path, (unsigned long long)info.size, (long long)bytes);
    ok = ok && digest_file(path, &digest, err);
    if (ok && (!want || strcmp(want, digest.hex)))
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s is damaged: its digest differs from MANIFEST",
                       path);
    mem_free(path);
    return ok;
}

/* What has been checked is struck off the list. */
static bool check_listed(const char *directory, const char *name, json_t *records, struct error *err) {
    const json_t *record = json_object_get(records, name);
    if (!record)
        return error_set(err, ERROR_INPUT, "checkpoint", "%s/MANIFEST does not list %s", directory, name);
    bool ok = check_file(directory, name, record, err);
    json_object_del(records, name);
    return ok;
}

/* Of a later version it is not damaged: to go on from an older one would remove it. */
static bool check_version(const json_t *manifest, const char *path, struct error *err) {
    json_int_t version = json_integer_value(json_object_get(manifest, "version"));
    if (version == 1) return true;
    if (version < 1) return error_set(err, ERROR_INPUT, "checkpoint", "%s has no version", path);
    error_set(err, ERROR_USAGE, "checkpoint", "%s is of version %lld, and 1 is the last that is known here",
              path, (long long)version);
    return error_fix(err,
                     "Go on with the version of hone that wrote it; without this checkpoint --resume goes "
                     "on from the one before.");
}

static bool check_manifest(const char *directory, bool full, struct error *err) {
    json_t *manifest = NULL;
    char *path = fs_join(directory, "MANIFEST");
    bool ok = path || error_no_memory(err, "checkpoint", 0);
    if (ok && fs_kind_of(path) != FS_FILE) /* a pipe would be waited for */
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s is missing or no file", path);
    ok = ok && json_read_file(&manifest, path, manifest_limit, err);
    json_t *records = json_object_get(manifest, "files");
    ok = ok && check_version(manifest, path, err) && each_file(directory, full, check_listed, records, err);
    if (ok && json_object_size(records))
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s lists %s, which is missing", path,
                       json_object_iter_key(json_object_iter(records)));
    json_decref(manifest);
    mem_free(path);
    return ok;
}

static double number_or_nan(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* A place in other rows, or in another order of them, is none here: a folder was copied from another run. */
static bool check_place(const json_t *state, const struct progress *run, const char *path,
                        struct error *err) {
    const char *data = json_string_value(json_object_get(state, "data"));
    if (!data || !*run->data.hex) return true;
    bool same = !strcmp(data, run->data.hex);
    if (same && json_integer_value(json_object_get(state, "seed")) == run->seed) return true;
    return error_set(err, ERROR_INPUT, "checkpoint", "%s is of a run %s", path,
                     same ? "with another --seed" : "on other data");
}

static bool read_state(const char *directory, struct progress *out, struct error *err) {
    json_t *state = NULL;
    char *path = fs_join(directory, "state.json");
    bool ok =
        path ? json_read_file(&state, path, manifest_limit, err) : error_no_memory(err, "checkpoint", 0);
    for (size_t i = 0; ok && i < counter_count; i++) {
        const json_t *value = json_object_get(state, counters[i].key);
        int64_t *count = (int64_t *)(void *)((char *)out + counters[i].offset);
        json_int_t number = json_integer_value(value);
        bool absent = !value && counters[i].optional;
        if (absent || (json_is_integer(value) && number >= 0 && number <= counters[i].most))
            *count = absent ? 0 : number;
        else
            ok = error_set(err, ERROR_INPUT, "checkpoint", "%s: %s is missing or no count", path,
                           counters[i].key);
    }
    ok = ok && check_place(state, out, path, err);
    out->loss = number_or_nan(state, "loss");
    out->eval_loss = number_or_nan(state, "eval_loss");
    out->best_loss = number_or_nan(state, "best_loss");
    out->seconds = json_number_value(json_object_get(state, "seconds"));
    json_decref(state);
    mem_free(path);
    return ok;
}

/* Whether a checkpoint is a stop's. What cannot be read is none: a load says what is wrong with it. */
static bool is_stop(const char *folder, const char *name) {
    struct progress progress = {0};
    struct error ignored;
    char *path = fs_join(folder, name);
    bool stop = path && read_state(path, &progress, &ignored) && progress.stopped;
    mem_free(path);
    return stop;
}

bool checkpoint_prune(const char *run, int64_t keep, const struct progress *now, struct error *err) {
    struct fs_list list;
    char *folder;
    bool ok = list_checkpoints(run, &list, &folder, err);
    int64_t newer = 0;
    for (size_t i = ok ? list.count : 0; ok && i-- > 0;) { /* newest first from the end */
        int64_t step = step_of(list.names[i]);
        bool broken = fs_is_partial(list.names[i]);
        bool stop = step >= 0 && step <= now->step && is_stop(folder, list.names[i]);
        bool surplus = step > now->step || (stop && step < now->step) ||
                       (step >= 0 && !stop && newer >= keep && step != now->best_step);
        if (step >= 0 && step <= now->step && !stop) newer++;
        if (!broken && !surplus) continue;
        char *path = fs_join(folder, list.names[i]);
        ok = path ? fs_remove_tree(path, err) : error_no_memory(err, "checkpoint", 0);
        mem_free(path);
    }
    fs_list_close(&list);
    mem_free(folder);
    return ok;
}

static bool read_optimizer(struct engine *engine, const char *directory, struct error *err) {
    struct safetensors *file = NULL;
    struct tensor tensors[most_moments];
    int rows[most_moments];
    size_t count = list_moments(engine, rows, tensors);
    char *path = fs_join(directory, "optimizer.safetensors");
    bool ok = path ? safetensors_open(&file, path, err) : error_no_memory(err, "checkpoint", 0);
    for (size_t i = 0; ok && i < count; i++) {
        const struct tensor *tensor = safetensors_find(file, tensors[i].name);
        if (!tensor && rows[i] == engine->state.scaling) continue; /* it was trained in another type so far */
        if (!tensor || tensor->dtype != tensors[i].dtype || tensor->bytes != tensors[i].bytes)
            ok = error_set(err, ERROR_INPUT, "checkpoint", "%s: %s is missing or of another size", path,
                           tensors[i].name);
        else
            ok = engine->ops->upload(engine->store, rows[i], tensor->data, (size_t)tensor->bytes, err);
    }
    safetensors_close(&file);
    mem_free(path);
    return ok;
}

static bool read_adapter(struct engine *engine, const char *directory, struct error *err) {
    struct peft *peft = NULL;
    struct method method = {0}, written = {0};
    char *path = fs_join(directory, "adapter");
    bool ok = path ? peft_open(&peft, path, err) && engine_method_of(peft, engine->model, &method, err) &&
                         method_written(&written, &engine->state.method, err)
                   : error_no_memory(err, "checkpoint", 0);
    if (ok && !method_same_parts(&method, &written))
        ok = error_set(err, ERROR_INPUT, "checkpoint", "%s is of another rank or other targets", path);
    ok = ok && engine_load_adapter(engine, peft, err);
    method_release(&method);
    method_release(&written);
    peft_close(&peft);
    mem_free(path);
    return ok;
}

static bool read_model(struct engine *engine, const char *directory, struct error *err) {
    char *path = fs_join(directory, "model");
    bool ok = path ? engine_load_model(engine, path, err) : error_no_memory(err, "checkpoint", 0);
    mem_free(path);
    return ok;
}

static bool load_one(struct engine *engine, const char *directory, struct progress *out, struct error *err) {
    int32_t step;
    bool full = is_full(engine);
    if (!check_manifest(directory, full, err) || !read_state(directory, out, err) ||
        !(full ? read_model : read_adapter)(engine, directory, err) ||
        !read_optimizer(engine, directory, err))
        return false;
    step = (int32_t)(out->step - out->skipped);
    return engine->ops->upload(engine->store, engine->state.step, &step, sizeof step, err);
}

bool checkpoint_load_step(struct engine *engine, const char *run, int64_t step, struct progress *out,
                          struct error *err) {
    char name[64];
    path_of(step, name);
    char *path = fs_join(run, name);
    bool ok = path ? load_one(engine, path, out, err) : error_no_memory(err, "checkpoint", 0);
    mem_free(path);
    return ok;
}

bool checkpoint_check(const struct engine *engine, const char *run, int64_t step, struct error *err) {
    char name[64];
    path_of(step, name);
    char *path = fs_join(run, name);
    bool ok = path ? check_manifest(path, is_full(engine), err) : error_no_memory(err, "checkpoint", 0);
    mem_free(path);
    return ok;
}

/* The checkpoints that a load may take, newest first. */
struct candidates {
    struct fs_list list;
    char *folder;
    const char **names; /* of `list` */
    size_t count;
    size_t due;     /* of them: the others, behind them, are of a stop and for want of better */
    size_t damaged; /* of them, told */
    struct error newest_damage;
    void (*skipped)(void *user, const char *message);
    void *user;
};

static void candidates_close(struct candidates *c) {
    mem_free(c->names);
    mem_free(c->folder);
    fs_list_close(&c->list);
}

static void add_candidates(struct candidates *c, const struct progress *failed, bool stops) {
    for (size_t i = c->list.count; i-- > 0;) {
        const char *name = c->list.names[i];
        int64_t step = step_of(name);
        bool stop = failed && step >= 0 && is_stop(c->folder, name);
        if (step >= 0 && (!failed || step <= failed->step) && stop == stops) c->names[c->count++] = name;
    }
}

/* `failed`: those that are not later, a stop's behind the others; NULL: all. */
static bool candidates_open(struct candidates *c, const char *run, const struct progress *failed,
                            struct error *err) {
    if (!list_checkpoints(run, &c->list, &c->folder, err)) return false;
    c->names = mem_array(c->list.count + 1, sizeof *c->names);
    if (!c->names) return error_no_memory(err, "checkpoint", c->list.count * sizeof *c->names);
    add_candidates(c, failed, false);
    c->due = c->count;
    if (failed) add_candidates(c, failed, true);
    return true;
}

static void tell_damage(struct candidates *c, const char *name, const struct error *cause) {
    char reason[error_text_size], text[error_text_size + 300];
    if (!c->damaged++) c->newest_damage = *cause;
    error_format(cause, reason, sizeof reason);
    snprintf(text, sizeof text, "skipped checkpoint %s: %s", name, reason);
    c->skipped(c->user, text);
}

/* *found false: it is damaged, which is told. */
static bool load_candidate(struct candidates *c, size_t index, struct engine *engine, struct progress *out,
                           bool *found, struct error *err) {
    struct error cause;
    char *path = fs_join(c->folder, c->names[index]);
    if (!path) return error_no_memory(err, "checkpoint", 0);
    *found = load_one(engine, path, out, &cause);
    mem_free(path);
    if (*found) return true;
    if (cause.code == ERROR_INPUT)
        tell_damage(c, c->names[index], &cause);
    else
        *err = cause;
    return cause.code == ERROR_INPUT;
}

/* The one at `first`, or where it is damaged an older one, then a newer one, then a stop's. */
static bool load_from(struct candidates *c, size_t first, const char *run, struct engine *engine,
                      struct progress *out, bool *found, struct error *err) {
    bool ok = true;
    for (size_t i = first; ok && !*found && i < c->due; i++)
        ok = load_candidate(c, i, engine, out, found, err);
    for (size_t i = first; ok && !*found && i-- > 0;) ok = load_candidate(c, i, engine, out, found, err);
    for (size_t i = c->due; ok && !*found && c->damaged && i < c->count; i++)
        ok = load_candidate(c, i, engine, out, found, err);
    if (!ok || *found || !c->damaged) return ok;
    error_set(err, ERROR_INPUT, "checkpoint", "%s has no checkpoint that is whole, %zu %s damaged", run,
              c->damaged, text_plural(c->damaged, "is", "are"));
    const struct error *newest = &c->newest_damage;
    error_why(err, "the newest: %s%s%s", newest->what, *newest->why ? ": " : "", newest->why);
    return error_fix(err, "Start the run anew with another --output.");
}

bool checkpoint_load(struct engine *engine, const char *run, struct progress *out, bool *found,
                     void (*skipped)(void *user, const char *message), void *user, struct error *err) {
    struct candidates c = {.skipped = skipped, .user = user};
    *found = false;
    bool ok = candidates_open(&c, run, NULL, err) && load_from(&c, 0, run, engine, out, found, err);
    candidates_close(&c);
    return ok;
}

/* Whether one is the first that the run has saved. */
static bool is_first(const struct candidates *c, size_t index) {
    struct progress progress = {0};
    struct error ignored;
    char *path = fs_join(c->folder, c->names[index]);
    bool first = path && read_state(path, &progress, &ignored) && progress.first_saved == progress.step;
    mem_free(path);
    return first;
}

bool checkpoint_go_back(struct engine *engine, const char *run, const struct progress *failed,
                        struct progress *out, bool *found, void (*skipped)(void *user, const char *message),
                        void *user, struct error *err) {
    struct candidates c = {.skipped = skipped, .user = user};
    size_t back = (size_t)failed->tries - 1;
    *found = false;
    bool ok = candidates_open(&c, run, failed, err);
    if (ok && c.due && back >= c.due && !is_first(&c, c.due - 1)) back = c.due - 1;
    if (ok && back < c.due) ok = load_from(&c, back, run, engine, out, found, err);
    candidates_close(&c);
    return ok;
}
