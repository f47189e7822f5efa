/* The beginning and the end of a run. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/process.h"
#include "base/text.h"
#include "base/thread.h"
#include "train/run_internal.h"

void run_sample_memory(struct run *run) {
    struct process_memory held;
    process_memory(&held);
    if (held.anonymous > run->highest) run->highest = held.anonymous;
}

static void remember_warning(void *user, const char *message) {
    struct run *run = user;
    json_array_append_new(run->warnings, json_string(message));
}

/* The result directory: absent or empty for a new run, with a recipe.yaml for a resumed one. */
static bool check_output(struct run *run, struct error *err) {
    const char *output = run->recipe->output;
    struct fs_list list;
    if (!output) {
        error_set(err, ERROR_USAGE, "train", "--output is missing");
        return error_fix(err, "Name the directory of the run: --output runs/first.");
    }
    enum fs_kind kind = fs_kind_of(output);
    if (kind == FS_FILE || kind == FS_OTHER)
        return error_set(err, ERROR_USAGE, "train", "--output %s is not a directory", output);
    if (run->recipe->resume) {
        char *path = fs_join(output, "recipe.yaml");
        if (!path) return error_no_memory(err, "train", 0);
        run->resumed = fs_kind_of(path) == FS_FILE;
        bool ok = !run->resumed || recipe_read(&run->stored, path, err);
        mem_free(path);
        if (ok && !run->resumed && kind == FS_DIRECTORY) {
            error_set(err, ERROR_USAGE, "train", "there is no run to resume in %s", output);
            return error_fix(err, "Leave --resume out, or name the directory of a run.");
        }
        return ok;
    }
    if (kind == FS_NOTHING) return true;
    if (!fs_list_open(&list, output, err)) return false;
    size_t count = list.count;
    fs_list_close(&list);
    if (!count) return true;
    error_set(err, ERROR_USAGE, "train", "the output directory %s is not empty", output);
    return error_fix(err, "Go on with --resume, or choose another --output.");
}

static bool open_device(struct run *run, struct error *err) {
    struct device_options options = {.threads = (int)run->recipe->threads};
    char *mask = NULL;
    run->ops = device_find(recipe_device_name(run->recipe), err);
    if (!run->ops || !recipe_mask(run->recipe, &mask, err)) return false;
    options.mask = mask;
    bool ok = run->ops->open(&run->device, &options, err);
    mem_free(mask);
    json_t *described = NULL;
    ok = ok && run->ops->describe(run->device, &described, err);
    const char *used = json_string_value(json_object_get(described, "used"));
    ok = ok && recipe_resolve(run->recipe, "instruction-set", used ? used : run->ops->name, "", err);
    json_decref(described);
    return ok;
}

static bool resolve_intervals(struct run *run, struct error *err) {
    int64_t every = (run->plan.steps + 9) / 10;
    return (run->recipe->eval_every ||
            recipe_resolve_int(run->recipe, "eval-every", every, "ten times a run", err)) &&
           (run->recipe->save_every ||
            recipe_resolve_int(run->recipe, "save-every", every, "ten times a run", err));
}

bool run_open(struct run *run, struct recipe *recipe, const struct trainer_host *host, bool planning,
              struct error *err) {
    memset(run, 0, sizeof *run);
    run->recipe = recipe;
    run->host = host;
    run->lock = -1;
    run->evaluated_at = run->saved_at = -1;
    run->progress = (struct progress){.eval_loss = NAN, .best_loss = NAN, .loss = NAN};
    run->changed = json_array();
    run->warnings = json_array();
    if (!run->changed || !run->warnings || !recipe_init(&run->stored, err))
        return error_no_memory(err, "train", 0);
    if (!planning && !check_output(run, err)) return false;
    if (run->resumed) {
        if (!recipe_continue(recipe, &run->stored, run->changed, err)) return false;
        recipe->template_clock = run->stored.template_clock;
    }
    if (!recipe->data.count) {
        error_set(err, ERROR_USAGE, "train", "--data is missing");
        return error_fix(err, "Name a file of rows: --data train.jsonl.");
    }
    if (!inputs_open(&run->inputs, recipe, host->model_path, remember_warning, run, err) ||
        !open_device(run, err))
        return false;
    if (run->resumed && !recipe_same_facts(recipe, &run->stored, run->changed, err)) return false;
    return run_plan_build(&run->plan, &run->programs, recipe, &run->inputs, run->ops, run->device, err) &&
           resolve_intervals(run, err);
}

/* Room for the checkpoints that stand at once, and one that is being written. */
static bool check_disk(struct run *run, struct error *err) {
    uint64_t free_bytes, need = checkpoint_bytes(&run->programs.engine) * (uint64_t)(run->recipe->keep + 2);
    char have[32], want[32];
    if (!fs_free_bytes(run->recipe->output, &free_bytes, err)) return false;
    if (free_bytes >= need) return true;
    error_set(err, ERROR_DISK, "train", "checkpoints need %s, the disk of %s has %s free",
              text_bytes(need, want), run->recipe->output, text_bytes(free_bytes, have));
    return error_fix(err, "Free space there, or choose another --output.");
}

static bool lock_output(struct run *run, struct error *err) {
    bool taken;
    char *path = fs_join(run->recipe->output, ".lock");
    if (!path) return error_no_memory(err, "train", 0);
    bool ok = fs_lock_open(&run->lock, path, &taken, err);
    mem_free(path);
    if (!ok || !taken) return ok;
    error_set(err, ERROR_USAGE, "train", "the output directory %s is in use by another process",
              run->recipe->output);
    return error_fix(err, "Wait for it, or choose another --output.");
}

static bool write_recipe(struct run *run, struct error *err) {
    char *path = fs_join(run->recipe->output, "recipe.yaml");
    bool ok = path ? recipe_write(run->recipe, path, err) : error_no_memory(err, "train", 0);
    mem_free(path);
    return ok;
}

bool run_start_engine(struct run *run, struct error *err) {
    struct run_programs *p = &run->programs;
    const uint64_t sizes[] = {program_bytes(&p->train), program_bytes(&p->update), program_bytes(&p->score)};
    uint64_t arena = 0;
    for (int i = 0; i < 3; i++)
        if (sizes[i] > arena) arena = sizes[i];
    return engine_start(&p->engine, arena, err) && program_compile(&p->train, &p->engine, err) &&
           program_compile(&p->update, &p->engine, err) && program_compile(&p->score, &p->engine, err) &&
           batch_open(&run->batch, run->plan.micro_batch_tokens, run->plan.segments, err);
}

static void tell_skipped(void *user, const char *message) {
    struct run *run = user;
    struct error ignored;
    events_warn(&run->events, message, &ignored);
}

static bool load_start(struct run *run, struct error *err) {
    bool found = false;
    if (run->resumed && !checkpoint_load(&run->programs.engine, run->recipe->output, &run->progress, &found,
                                         tell_skipped, run, err))
        return false;
    if (found) run->saved_at = run->progress.step;
    if (found) return true;
    return run->inputs.adapter ? engine_load_adapter(&run->programs.engine, run->inputs.adapter, err)
                               : engine_init_adapter(&run->programs.engine, (uint64_t)run->recipe->seed, err);
}

static bool first_events(struct run *run, struct error *err) {
    size_t index;
    json_t *warning, *plan = json_object();
    if (!plan || !run_plan_json(&run->plan, plan, err)) {
        json_decref(plan);
        return false;
    }
    run->events.step = 0;
    bool ok = events_emit(&run->events, "plan", plan, err);
    json_array_foreach(run->warnings, index, warning) ok =
        ok && events_warn(&run->events, json_string_value(warning), err);
    run->events.step = run->progress.step;
    if (ok && run->resumed)
        ok = events_emit(
            &run->events, "resume",
            json_pack("{s:I, s:O}", "from_step", (json_int_t)run->progress.step, "changed", run->changed),
            err);
    return ok;
}

bool run_begin(struct run *run, struct error *err) {
    const char *output = run->recipe->output;
    bool made = fs_kind_of(output) == FS_NOTHING;
    struct error ignored;
    bool ok = fs_make_directories(output, err) && lock_output(run, err) && check_disk(run, err) &&
              write_recipe(run, err);
    if (!ok) { /* nothing is left behind of a run that did not start */
        fs_lock_close(&run->lock);
        if (made) fs_remove_tree(output, &ignored);
        return false;
    }
    ok = events_open(&run->events, output, run->host->event, run->host->user, err);
    run->events_open = ok;
    if (!ok || !run_start_engine(run, err) || !load_start(run, err) || !run_rehearse(run, err)) return false;
    run_sample_memory(run);
    if (run->host->prepared) run->host->prepared(run->host->user, run->recipe);
    return first_events(run, err);
}

static bool write_text(const char *directory, const char *name, const struct buf *text, struct error *err) {
    char *path = fs_join(directory, name);
    bool ok = path ? fs_write_atomic(path, text->data, text->size, err) : error_no_memory(err, "train", 0);
    mem_free(path);
    return ok;
}

/* tokenizer.json, tokenizer_config.json, chat_template.jinja. */
static bool write_text_files(struct run *run, const char *directory, struct error *err) {
    const struct model *model = run->inputs.model;
    struct buf json = {0}, config = {0}, source = {0};
    bool ok = tokenizer_write_json(model->tokenizer, &json, err) &&
              write_text(directory, "tokenizer.json", &json, err) &&
              tokenizer_write_config(model->tokenizer, model->config.context, &config, err) &&
              write_text(directory, "tokenizer_config.json", &config, err);
    if (ok && run->inputs.render.source) {
        buf_append(&source, run->inputs.render.source, run->inputs.render.source_size);
        ok = !source.failed ? write_text(directory, "chat_template.jinja", &source, err)
                            : error_no_memory(err, "train", 0);
    }
    buf_release(&json);
    buf_release(&config);
    buf_release(&source);
    return ok;
}

static json_t *card_facts(const struct run *run) {
    const struct progress *p = &run->progress;
    json_t *card = json_pack("{s:I, s:I, s:I}", "steps", (json_int_t)p->step, "examples",
                             (json_int_t)run->inputs.train.count, "tokens", (json_int_t)p->tokens);
    if (card && !isnan(p->loss)) json_object_set_new(card, "training loss", json_real(p->loss));
    if (card && !isnan(p->eval_loss)) json_object_set_new(card, "held-out loss", json_real(p->eval_loss));
    if (card) json_object_set_new(card, "data", json_string(fs_base_name(run->recipe->data.items[0])));
    return card;
}

bool run_write_result(struct run *run, struct error *err) {
    struct error ignored;
    char *final = fs_join(run->recipe->output, "adapter"),
         *partial = fs_join(run->recipe->output, "adapter.partial");
    json_t *card = card_facts(run);
    bool ok = final && partial && card;
    if (!ok) error_no_memory(err, "train", 0);
    ok = ok && fs_remove_tree(partial, err) && fs_make_directories(partial, err) &&
         engine_save_adapter(&run->programs.engine, partial, run->host->base_model, card, err) &&
         write_text_files(run, partial, err) && fs_remove_tree(final, err) && fs_rename(partial, final, err);
    if (!ok && partial) fs_remove_tree(partial, &ignored);
    json_decref(card);
    mem_free(final);
    mem_free(partial);
    return ok;
}

void run_close(struct run *run) {
    if (run->events_open) events_close(&run->events);
    batch_close(&run->batch);
    if (run->ops) run_programs_release(&run->programs);
    if (run->device) run->ops->close(&run->device);
    inputs_close(&run->inputs);
    fs_lock_close(&run->lock);
    mem_free(run->order);
    json_decref(run->changed);
    json_decref(run->warnings);
    recipe_release(&run->stored);
}
