/* The beginning and the end of a run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/process.h"
#include "base/text.h"
#include "base/thread.h"
#include "model/save.h"
#include "train/recipe_owned.h"
#include "train/run_internal.h"
#include "train/run_refuse.h"
#include "train/update.h"

void run_sample_memory(struct run *run) {
    struct process_memory held;
    struct device_memory own;
    struct error ignored;
    process_memory(&held);
    uint64_t bytes = held.anonymous;
    if (run->ops && run->ops->memory) bytes = run->ops->memory(run->device, &own, &ignored) ? own.held : 0;
    if (bytes > run->highest) run->highest = bytes;
    if (held.mapped > run->mapped) run->mapped = held.mapped;
}

static void sample_memory(void *user) { run_sample_memory(user); }

static void remember_warning(void *user, const char *message) {
    struct run *run = user;
    json_list_add(&run->warnings, json_text(message));
}

/* ---- the run's directory ---- */

static const char lock_name[] = ".lock";

/* What a process that was killed before its first step may have left there. */
static bool is_leftover(const char *name) { return !strcmp(name, lock_name) || fs_is_partial(name); }

static bool lock_output(struct run *run, struct error *err) {
    bool taken;
    char *path = fs_join(run->recipe->output, lock_name);
    if (!path) return error_no_memory(err, "train", 0);
    bool ok = fs_lock_open(&run->lock, path, &taken, err);
    mem_free(path);
    if (!ok || !taken) return ok;
    error_set(err, ERROR_USAGE, "train", "the output directory %s is in use by another process",
              run->recipe->output);
    return error_fix(err, "Wait for it, or choose another --output.");
}

static bool refuse_full(struct run *run, bool locked, struct error *err) {
    if (locked) { /* by whom? */
        if (!lock_output(run, err)) return false;
        fs_lock_close(&run->lock);
    }
    error_set(err, ERROR_USAGE, "train", "the output directory %s is not empty", run->recipe->output);
    return error_fix(err, "Go on with --resume, or choose another --output.");
}

/* True when nothing but leftovers stands there. */
static bool check_empty(struct run *run, struct error *err) {
    struct fs_list list;
    bool full = false, locked = false;
    if (!fs_list_open(&list, run->recipe->output, err)) return false;
    for (size_t i = 0; i < list.count; i++) {
        full |= !is_leftover(list.names[i]);
        locked |= !strcmp(list.names[i], lock_name);
    }
    fs_list_close(&list);
    return !full || refuse_full(run, locked && run->lock < 0, err);
}

/* The recipe of the run that is there, if one is; it is locked from now on. */
static bool read_stored(struct run *run, struct error *err) {
    char *path = fs_join(run->recipe->output, "recipe.yaml");
    if (!path) return error_no_memory(err, "train", 0);
    run->resumed = fs_kind_of(path) != FS_NOTHING;
    bool ok = !run->resumed || (lock_output(run, err) && recipe_read(&run->stored, path, err));
    mem_free(path);
    return ok;
}

static bool refuse_no_run(const char *output, struct error *err) {
    error_set(err, ERROR_USAGE, "train", "there is no run to resume in %s", output);
    return error_fix(err, "Leave --resume out, or name the directory of a run.");
}

/* Absent or empty for a new run, with a recipe.yaml for a resumed one. */
static bool check_output(struct run *run, struct error *err) {
    const char *output = run->recipe->output;
    struct fs_info info;
    if (!output) {
        error_set(err, ERROR_USAGE, "train", "--output is missing");
        return error_fix(err, "Name the directory of the run: --output runs/first.");
    }
    if (!fs_stat(output, &info, err)) return false;
    if (info.kind == FS_NOTHING) return true;
    if (info.kind != FS_DIRECTORY) {
        error_set(err, ERROR_USAGE, "train", "--output %s is not a directory", output);
        return error_fix(err, "Choose another --output.");
    }
    if (!run->recipe->resume) return check_empty(run, err);
    if (!read_stored(run, err)) return false;
    if (run->resumed) return true;
    struct error full;
    return check_empty(run, &full) || refuse_no_run(output, err);
}

/* The first process looks after the directory; the others know with it whether there is a run to go on with.
 */
static bool read_first(struct run *run, struct error *err) {
    char *path = fs_join(run->recipe->output, "recipe.yaml");
    bool ok = path || error_no_memory(err, "train", 0);
    run->resumed = ok && run->recipe->resume && fs_kind_of(path) != FS_NOTHING;
    ok = ok && (!run->resumed || recipe_read(&run->stored, path, err));
    mem_free(path);
    return ok;
}

/* Bytes of the path up to the last directory that is there already; they stay whatever happens. */
static size_t standing(const char *path) {
    char *copy = mem_strdup(path);
    size_t size = copy ? strlen(copy) : strlen(path);
    while (copy && size && fs_kind_of(copy) == FS_NOTHING) {
        while (size && copy[size - 1] == '/') size--;
        while (size && copy[size - 1] != '/') size--;
        copy[size] = '\0';
    }
    mem_free(copy);
    return size;
}

static bool make_output(struct run *run, struct error *err) {
    if (run->resumed) return true; /* it is there, and locked */
    run->standing = standing(run->recipe->output);
    if (!fs_make_directories(run->recipe->output, err)) return false;
    /* Another process may have been faster; from here on what stands there is this run's. */
    return lock_output(run, err) && check_empty(run, err) && (run->made = true);
}

/* What is written here for good, partial files of killed processes left out. */
static bool sweep(const char *output, bool all, struct error *err) {
    struct fs_list list;
    if (!fs_list_open(&list, output, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        if (!all && !(is_leftover(list.names[i]) && strcmp(list.names[i], lock_name))) continue;
        char *path = fs_join(output, list.names[i]);
        ok = path ? fs_remove_tree(path, err) : error_no_memory(err, "train", 0);
        mem_free(path);
    }
    fs_list_close(&list);
    return ok;
}

/* Nothing is left behind of a run that did not start. */
static void leave_nothing(struct run *run) {
    struct error ignored;
    if (run->resumed) return;
    if (run->made) sweep(run->recipe->output, true, &ignored);
    fs_lock_close(&run->lock);
    fs_remove_empty(run->recipe->output, run->standing);
}

/* ---- reading and planning ---- */

static bool open_device(struct run *run, bool planning, struct error *err) {
    struct device_options options = {.name = run->device_name,
                                     .threads = (int)run->recipe->threads,
                                     .tf32 = run->recipe->compute == COMPUTE_TF32};
    char *mask = NULL;
    int ranks = recipe_ranks(run->recipe), cores = thread_cores();
    if (!recipe_own_device(run->recipe, planning, run->device_name, err)) return false;
    if (ranks > 1 && !options.threads) options.threads = cores > ranks ? cores / ranks : 1;
    run->ops = device_find(options.name, err);
    if (!run->ops || !recipe_mask(run->recipe, &mask, err)) return false;
    options.mask = mask;
    bool ok = device_open(run->ops, &run->device, &options, err);
    mem_free(mask);
    json_t *described = NULL;
    ok = ok && run->ops->describe(run->device, &described, err);
    const char *used = json_string_value(json_object_get(described, "used"));
    ok = ok && recipe_resolve(run->recipe, "instruction-set", used ? used : run->ops->name, "", err);
    json_decref(described);
    return ok;
}

static bool resolve_intervals(struct run *run, struct error *err) {
    int64_t every = run_plan_interval(run->plan.steps);
    return (run->recipe->eval_every || !run->inputs.held_out.count ||
            recipe_resolve_int(run->recipe, "eval-every", every, "ten times a run", err)) &&
           (run->recipe->save_every ||
            recipe_resolve_int(run->recipe, "save-every", every, "ten times a run", err));
}

static const struct progress first_progress = {.eval_loss = NAN, .best_loss = NAN, .loss = NAN};

bool run_read(struct run *run, struct recipe *recipe, const struct trainer_host *host, bool planning,
              struct error *err) {
    memset(run, 0, sizeof *run);
    run->recipe = recipe;
    run->host = host;
    run->lock = -1;
    run->saved_at = -1;
    run->standing = SIZE_MAX; /* until it is made, whatever is there stays */
    run->progress = first_progress;
    run->changed = json_array();
    run->warnings = json_array();
    if (!run->changed || !run->warnings || !recipe_init(&run->stored, err))
        return error_no_memory(err, "train", 0);
    if (!planning && !(recipe->rank ? read_first(run, err) : check_output(run, err))) return false;
    if (run->resumed) {
        if (!recipe_continue(recipe, &run->stored, run->changed, err)) return false;
        recipe->template_clock = run->stored.template_clock;
    }
    if (recipe->resume && (!recipe_owned_check(recipe, err) || !update_check(recipe, err))) return false;
    if (!recipe->data.count) {
        error_set(err, ERROR_USAGE, "train", "--data is missing");
        return error_fix(err, "Name a file of rows: --data train.jsonl.");
    }
    if (!inputs_open(&run->inputs, recipe, host->model_path, remember_warning,
                     planning ? NULL : run_agree_clock, run, err) ||
        !open_device(run, planning, err))
        return false;
    if (recipe->early_stopping && !run->inputs.held_out.count) {
        error_set(err, ERROR_USAGE, "train", "--early-stopping needs held-out rows");
        return error_fix(err, "Give --valid FILE, or --valid-split 0.1.");
    }
    if (recipe_origin(recipe, "eval-every") == ORIGIN_GIVEN && !run->inputs.held_out.count)
        remember_warning(run, "--eval-every has nothing to measure, since there are no held-out rows: give "
                              "--valid FILE, or --valid-split 0.1");
    return run_check_layers(recipe, run->inputs.model->config.layers, err) &&
           (!run->resumed || recipe_same_facts(recipe, &run->stored, run->changed, err));
}

bool run_make_plan(struct run *run, struct error *err) {
    return run_plan_build(&run->plan, &run->programs, run->recipe, &run->inputs, run->ops, run->device,
                          err) &&
           resolve_intervals(run, err);
}

bool run_plan_anew(struct run *run, struct recipe *recipe, struct error *err) {
    batch_close(&run->batch);
    run_programs_release(&run->programs);
    mem_free(run->hyper);
    run->hyper = NULL;
    run->recipe = recipe;
    return inputs_renew_method(&run->inputs, recipe, err) && run_make_plan(run, err);
}

/* Where the files of what is offloaded are made: with the run, or where temporary files lie, on a disk. */
static const char *offload_directory(const struct run *run) {
    const char *places[] = {run->recipe->output, getenv("TMPDIR"), "/var/tmp"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i] && fs_kind_of(places[i]) == FS_DIRECTORY && !fs_in_memory(places[i])) return places[i];
    return "/var/tmp";
}

/* Checkpoints that stand at once: those that are kept and the best one, but no more than the run can make,
 * which are those that are due, the last step's, a stop's, and with early stopping one of each evaluation. */
static uint64_t most_checkpoints(const struct run *run) {
    const struct recipe *recipe = run->recipe;
    int64_t made = run->plan.steps / recipe->save_every + 2;
    if (recipe->early_stopping) made += run->plan.steps / recipe->eval_every + 1;
    return (uint64_t)(recipe->keep + 1 < made ? recipe->keep + 1 : made);
}

/* Room for the checkpoints that stand at once, one that is being written, and the result, beside what is
 * offloaded there; those of a resumed run stand. */
static bool check_disk(struct run *run, struct error *err) {
    const uint64_t one = checkpoint_bytes(&run->programs.engine), most = most_checkpoints(run);
    uint64_t free_bytes, there = 0;
    if (run->resumed && !checkpoint_count(run->recipe->output, &there, err)) return false;
    uint64_t need =
        one * (there < most ? most - there + 1 : 1) + checkpoint_result_bytes(&run->programs.engine);
    char have[32], want[32];
    if (offload_directory(run) == run->recipe->output) need += run->plan.offloaded;
    if (!fs_free_bytes(run->recipe->output, &free_bytes, err)) return false;
    if (free_bytes >= need) return true;
    error_set(err, ERROR_DISK, "train", "checkpoints and result need %s, the disk of %s has %s free",
              text_bytes(need, want), run->recipe->output, text_bytes(free_bytes, have));
    return error_fix(err, "Free space there, or choose another --output.");
}

bool run_write_recipe(struct run *run, struct error *err) {
    char *path = fs_join(run->recipe->output, "recipe.yaml");
    bool ok = path ? recipe_write(run->recipe, path, err) : error_no_memory(err, "train", 0);
    mem_free(path);
    return ok;
}

static bool open_hyper(struct run *run, struct error *err) {
    size_t groups = (size_t)run->programs.engine.state.parts.groups;
    run->hyper = mem_array(groups * HYPER_COLUMNS, sizeof *run->hyper);
    return run->hyper || error_no_memory(err, "train", groups * HYPER_COLUMNS * sizeof *run->hyper);
}

bool run_start_engine(struct run *run, struct error *err) {
    struct run_programs *p = &run->programs;
    p->engine.state.table.directory = offload_directory(run);
    p->engine.state.table.bound = run->recipe->memory;
    return engine_start(&p->engine, program_bytes(run_programs_largest(p)), err) &&
           program_compile(&p->train, &p->engine, err) && program_compile(&p->update, &p->engine, err) &&
           program_compile(&p->score, &p->engine, err) &&
           batch_open(&run->batch, run->plan.micro_batch_tokens, run->plan.segments, err) &&
           open_hyper(run, err);
}

/* With early stopping the result is the best checkpoint's: one that is lost cannot be it. */
static bool forget_lost_best(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    char text[error_text_size + 64], reason[error_text_size];
    if (!run->recipe->early_stopping || !p->best_step || p->best_step == p->step ||
        checkpoint_check(&run->programs.engine, run->recipe->output, p->best_step, err))
        return true;
    if (err->code != ERROR_INPUT) return false;
    error_format(err, reason, sizeof reason);
    snprintf(text, sizeof text, "the best checkpoint is lost, the best from here on counts: %s", reason);
    remember_warning(run, text);
    p->best_step = 0;
    p->best_loss = NAN;
    return true;
}

/* `failed`: what a rollback is from; NULL: the run begins or goes on. */
static bool load_checkpoint(struct run *run, const struct progress *failed, bool *found, struct error *err) {
    struct engine *engine = &run->programs.engine;
    const char *output = run->recipe->output;
    *found = false;
    if (failed)
        return checkpoint_go_back(engine, output, failed, &run->progress, found, remember_warning, run, err);
    return !run->resumed ||
           checkpoint_load(engine, output, &run->progress, found, remember_warning, run, err);
}

static bool load_start(struct run *run, const struct progress *failed, struct error *err) {
    bool found;
    const struct recipe *recipe = run->recipe;
    snprintf(run->progress.data.hex, sizeof run->progress.data.hex, "%s", recipe->data_digest);
    run->progress.seed = recipe->seed;
    run->kept = (struct best){NAN, 0};
    if (!engine_init_scaling(&run->programs.engine, err) || !load_checkpoint(run, failed, &found, err))
        return false;
    if (found) run->plan.start_seconds = 0; /* it lies in the checkpoint */
    run->saved_at = found ? run->progress.step : -1;
    if (found && !forget_lost_best(run, err)) return false;
    if (found) run->kept = (struct best){run->progress.best_loss, run->progress.best_step};
    if (found) return true;
    struct engine *engine = &run->programs.engine;
    double begin = clock_seconds();
    bool ok = run->inputs.adapter ? engine_load_adapter(engine, run->inputs.adapter, err)
                                  : engine_init_trained(engine, (uint64_t)run->recipe->seed, err);
    if (run->plan.start) run->plan.start_seconds = clock_seconds() - begin;
    return ok && engine_init_average(engine, err);
}

static bool tell_from(const struct run *run, size_t first, struct events *events, struct error *err) {
    bool ok = run->warnings || error_no_memory(err, "train", 0);
    for (size_t i = first; ok && i < json_array_size(run->warnings); i++)
        ok = events_warn(events, json_string_value(json_array_get(run->warnings, i)), err);
    return ok;
}

bool run_go_back(struct run *run, struct error *err) {
    struct progress failed = run->progress;
    size_t told = json_array_size(run->warnings);
    bool passed = failed.step >= failed.failed_step; /* so far it was another step that failed */
    failed.tries = passed ? 1 : failed.tries + 1;
    if (passed) failed.failed_step = failed.step + 1;
    run->progress = first_progress;
    mem_free(run->order); /* it may have been another epoch's */
    run->order = NULL;
    if (!engine_reset(&run->programs.engine, err) || !load_start(run, &failed, err)) return false;
    run->progress.rollbacks = failed.rollbacks + 1;
    run->progress.failed_step = failed.failed_step;
    run->progress.tries = failed.tries;
    run->progress.seconds = failed.seconds;
    return tell_from(run, told, &run->events, err);
}

bool run_tell_warnings(const struct run *run, struct events *events, struct error *err) {
    return tell_from(run, 0, events, err);
}

/* The checkpoint was reached with micro-batches of another size: the same result to rounding. */
static bool note_micro_batch(struct run *run, struct error *err) {
    int64_t before = run->progress.micro_batch_tokens, now = run->plan.micro_batch_tokens;
    char text[96];
    snprintf(text, sizeof text, "micro-batch-tokens %lld → %lld", (long long)before, (long long)now);
    for (size_t i = 0; i < json_array_size(run->changed); i++)
        if (!strcmp(json_string_value(json_array_get(run->changed, i)), text)) return true;
    return !before || before == now || json_array_append_new(run->changed, json_string(text)) == 0 ||
           error_no_memory(err, "train", 0);
}

/* On a device with memory of its own: how long it took to bring the weights there, and from then to here. */
static bool tell_upload(struct run *run, struct error *err) {
    const struct engine_load *load = &run->programs.engine.load;
    if (!run->ops->memory) return true;
    double rate = load->copied_seconds > 0 ? (double)load->copied_bytes / load->copied_seconds : 0;
    return events_emit(&run->events, "upload",
                       json_pack("{s:I, s:f, s:f, s:I, s:f, s:f}", "bytes", (json_int_t)load->copied_bytes,
                                 "seconds", load->copied_seconds, "bytes_per_second", rate, "made_bytes",
                                 (json_int_t)load->made_bytes, "made_seconds", load->made_seconds,
                                 "ready_seconds", clock_seconds() - load->done),
                       err);
}

/* What a resumed run has before it, by the plan, whose time is the whole run's. */
static double seconds_left(const struct run *run) {
    const struct run_plan *plan = &run->plan;
    double to_go = (double)(plan->steps - run->progress.step) / (double)plan->steps;
    if (run_out_of_patience(run)) to_go = 0;
    return (plan->seconds - plan->start_seconds) * to_go + plan->start_seconds;
}

static bool first_events(struct run *run, struct error *err) {
    json_t *plan = NULL;
    if (!run_plan_json(&run->plan, &run->programs, false, &plan, err)) return false;
    run->events.step = 0;
    bool ok = events_emit(&run->events, "plan", plan, err) && tell_upload(run, err) &&
              run_tell_warnings(run, &run->events, err);
    run->events.step = run->progress.step;
    if (run->resumed) events_restart(&run->events);
    if (ok && run->resumed)
        ok = events_emit(&run->events, "resume",
                         json_pack("{s:I, s:f, s:O}", "from_step", (json_int_t)run->progress.step,
                                   "seconds_left", seconds_left(run), "changed", run->changed),
                         err);
    return ok;
}

static bool open_events(struct run *run, struct error *err) {
    run->events_open = events_open(&run->events, run->recipe->output, run->host->event, run->host->user, err);
    return run->events_open;
}

/* With --method full the frozen and the seldom read weights are written too: a checkpoint would fail. */
static bool check_whole(const struct run *run, struct error *err) {
    return run->resumed || run->recipe->method != TUNING_FULL || model_check_finite(run->inputs.model, err);
}

/* All that can fail for want of memory or a good checkpoint comes before the first file is written. */
bool run_begin(struct run *run, struct error *err) {
    bool first = run_first(run);
    bool ok = !first || (check_whole(run, err) && make_output(run, err) && check_disk(run, err));
    ok = ok && run_start_engine(run, err) && run_join(run, err) &&
         run_plan_joined(&run->plan, &run->programs, run->recipe, err) && load_start(run, NULL, err) &&
         note_micro_batch(run, err) && run_rehearse(run, err);
    if (first)
        ok = ok && sweep(run->recipe->output, false, err) && run_write_recipe(run, err) &&
             open_events(run, err);
    else
        run->events = (struct events){.file = {.fd = -1}};
    ok = run_all_well(run, ok, err);
    run->programs.engine.held = sample_memory;
    run->programs.engine.held_user = run;
    run_sample_memory(run);
    if (ok && first && run->host->prepared) run->host->prepared(run->host->user, run->recipe);
    ok = ok && first_events(run, err);
    run_watch_begin(run);
    ok = ok && run_trace_begin(run, err);
    if (!ok && first) leave_nothing(run);
    return ok;
}

static json_t *card_facts(const struct run *run, const struct progress *p) {
    json_t *card = json_pack("{s:I, s:I, s:I}", "steps", (json_int_t)p->step, "examples",
                             (json_int_t)run->inputs.train.count, "tokens", (json_int_t)p->tokens);
    if (!isnan(p->loss)) json_object_put(&card, "training loss", json_real(p->loss));
    if (!isnan(p->eval_loss)) json_object_put(&card, "held-out loss", json_real(p->eval_loss));
    json_object_put(&card, "data", json_text(fs_base_name(run->recipe->data.items[0])));
    return card;
}

const char *run_result_name(const struct run *run) {
    return run->recipe->method == TUNING_FULL ? "model" : "adapter";
}

static bool write_adapter(struct run *run, const struct progress *reached, const char *directory,
                          struct error *err) {
    json_t *card = card_facts(run, reached);
    bool ok = card || error_no_memory(err, "train", 0);
    ok = ok && fs_make_directories(directory, err) &&
         engine_save_adapter(&run->programs.engine, directory, true, run->host->base_model, card, err) &&
         model_write_text(run->inputs.model, run->inputs.render.source, run->inputs.render.source_size,
                          directory, err);
    json_decref(card);
    return ok;
}

bool run_write_result(struct run *run, const struct progress *reached, struct error *err) {
    struct error ignored;
    struct buf name = {0};
    buf_printf(&name, "%s%s", run_result_name(run), fs_partial_mark);
    char *final = fs_join(run->recipe->output, run_result_name(run)),
         *partial = name.failed ? NULL : fs_join(run->recipe->output, name.data);
    bool ok = (final && partial) || error_no_memory(err, "train", 0);
    ok = ok && fs_remove_tree(partial, err) &&
         (run->recipe->method == TUNING_FULL ? engine_save_model(&run->programs.engine, partial, false, err)
                                             : write_adapter(run, reached, partial, err)) &&
         fs_replace_tree(partial, final, err);
    if (!ok && partial) fs_remove_tree(partial, &ignored);
    buf_release(&name);
    mem_free(final);
    mem_free(partial);
    return ok;
}

void run_close(struct run *run) {
    run_trace_close(run);
    group_close(&run->group);
    if (run->events_open) events_close(&run->events);
    batch_close(&run->batch);
    if (run->ops) run_programs_release(&run->programs);
    if (run->device) run->ops->close(&run->device);
    inputs_close(&run->inputs);
    fs_lock_close(&run->lock);
    mem_free(run->order);
    mem_free(run->hyper);
    json_decref(run->changed);
    json_decref(run->warnings);
    recipe_release(&run->stored);
}
