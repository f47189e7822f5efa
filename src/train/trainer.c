#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "train/run_internal.h"
#include "train/schedule.h"
#include "train/update.h"

/* ---- one step ---- */

/* A stop waits this many seconds for the step under way; one that lasts longer is abandoned. */
static const double most_patience = 5;

static void begin_step(struct run *run, size_t tokens) {
    struct patience *p = &run->patience;
    double per_token = p->per_token > 0 ? p->per_token : run->plan.seconds / (double)run->plan.tokens;
    p->begun = clock_seconds();
    p->expected = per_token * (double)tokens;
    p->asked = 0;
}

/* Gradients of an abandoned step are lost, and nothing else: the update has not begun. */
static bool leave_step(void *user) {
    struct patience *p = &((struct run *)user)->patience;
    double now = clock_seconds();
    if (p->asked <= 0) p->asked = now;
    return p->begun + p->expected - now > most_patience || now - p->asked > most_patience;
}

static bool run_micro_batches(struct run *run, const struct pack_layout *layout, float weight,
                              struct error *err) {
    struct batch *batch = &run->batch;
    for (size_t b = 0; b < layout->micro_batches; b++) {
        batch_clear(batch);
        for (uint32_t i = layout->starts[b]; i < layout->starts[b + 1]; i++)
            batch_add(batch, &run->inputs.train.items[layout->items[i]], weight);
        batch->random[0] = (uint32_t)run->recipe->seed;
        batch->random[1] = (uint32_t)((uint64_t)run->recipe->seed >> 32);
        batch->random[2] = (uint32_t)run->progress.epoch;
        batch->binding.inputs[INPUT_RANDOM] = batch->random;
        batch->binding.stop = run->host->stop;
        batch->binding.leave = leave_step;
        batch->binding.user = run;
        if (!run->programs.engine.ops->run(run->programs.train.program, &batch->binding, err)) return false;
    }
    return true;
}

/* The update runs to its end once begun: a stop between clip and step would lose what cannot be repeated. */
static bool run_update(struct run *run, double rate, double *loss, float *norm, struct error *err) {
    struct engine *engine = &run->programs.engine;
    float hyper[HYPER_COLUMNS];
    update_hyper(run->recipe, rate, hyper);
    struct binding binding = {.inputs = {[INPUT_HYPER] = hyper}};
    return engine->ops->download(engine->store, engine->state.loss, loss, sizeof *loss, err) &&
           engine->ops->run(run->programs.update.program, &binding, err) &&
           engine->ops->read(run->programs.update.program, run->programs.update.built.norm, norm,
                             sizeof *norm, err);
}

static bool emit_step(struct run *run, double loss, double rate, float norm, size_t tokens, size_t supervised,
                      double seconds, struct error *err) {
    run_sample_memory(run);
    run->events.step = run->progress.step;
    json_t *fields =
        json_pack("{s:f, s:f, s:f, s:I, s:I, s:f, s:I, s:f}", "loss", loss, "learning_rate", rate,
                  "gradient_norm", isfinite(norm) ? (double)norm : -1.0, "tokens", (json_int_t)tokens,
                  "supervised_tokens", (json_int_t)supervised, "tokens_per_second", (double)tokens / seconds,
                  "memory_bytes", (json_int_t)run->highest, "seconds", seconds);
    const struct tfevents_scalar scalars[] = {{"train/loss", loss},
                                              {"train/learning_rate", rate},
                                              {"train/gradient_norm", (double)norm},
                                              {"train/tokens_per_second", (double)tokens / seconds}};
    events_scalar(&run->events, scalars, sizeof scalars / sizeof *scalars);
    if (!events_emit(&run->events, "step", fields, err)) return false;
    if (isfinite(norm) && isfinite(loss)) return true;
    return events_warn(&run->events, "the gradient is not finite; this step changed nothing", err);
}

static bool train_step(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    const struct examples *train = &run->inputs.train;
    double loss, rate = schedule_rate(run->recipe, p->step + 1, run->plan.steps);
    float norm;
    size_t count = (size_t)run->recipe->batch_size, left = train->count - (size_t)p->cursor, tokens = 0,
           supervised = 0;
    if (count > left) count = left;
    const uint32_t *chosen = run->order + p->cursor;
    for (size_t i = 0; i < count; i++) {
        tokens += train->items[chosen[i]].count;
        supervised += train->items[chosen[i]].supervised;
    }
    begin_step(run, tokens);
    struct arena arena;
    struct pack_layout layout;
    arena_init(&arena, 0);
    bool ok =
        pack_step(&layout, train->items, chosen, count, (size_t)run->plan.micro_batch_tokens, &arena, err) &&
        run_micro_batches(run, &layout, supervised ? -1.0f / (float)supervised : 0, err) &&
        run_update(run, rate, &loss, &norm, err);
    arena_release(&arena);
    if (!ok) return false;
    p->step++;
    p->cursor += (int64_t)count;
    p->tokens += (int64_t)tokens;
    p->loss = loss;
    double seconds = clock_seconds() - run->patience.begun;
    run->patience.per_token = seconds / (double)tokens;
    p->seconds += seconds;
    return emit_step(run, loss, rate, norm, tokens, supervised, seconds, err);
}

/* ---- measuring and saving ---- */

static bool evaluate(struct run *run, struct error *err) {
    struct score score;
    const struct examples *held = &run->inputs.held_out;
    if (!held->count || run->progress.evaluated == run->progress.step) return true;
    double start = clock_seconds();
    if (!score_examples(&score, &run->programs.engine, &run->programs.score, &run->batch, held->items,
                        held->count, run->host->stop, NULL, NULL, err))
        return false;
    double seconds = clock_seconds() - start;
    run->progress.seconds += seconds;
    run->progress.evaluated = run->progress.step;
    run->progress.eval_loss = score.loss;
    if (run->progress.step && isfinite(score.loss) && !(score.loss >= run->progress.best_loss)) {
        run->progress.best_loss = score.loss;
        run->progress.best_step = run->progress.step;
    }
    run_sample_memory(run);
    run->events.step = run->progress.step;
    const struct tfevents_scalar scalar = {"eval/loss", score.loss};
    events_scalar(&run->events, &scalar, 1);
    return events_emit(&run->events, "eval",
                       json_pack("{s:f, s:I, s:I, s:f}", "loss", score.loss, "supervised_tokens",
                                 (json_int_t)score.supervised, "examples", (json_int_t)score.examples,
                                 "seconds", seconds),
                       err);
}

/* A run whose checkpoints cannot be written ends: going on would only make more that is lost. */
static bool refuse_save(const struct run *run, struct error *err) {
    if (err->code != ERROR_DISK) return false;
    if (run->saved_at > 0)
        return error_fix(err, "Free space there; the same command with --resume goes on from step %lld.",
                         (long long)run->saved_at);
    return error_fix(err, "Free space there, and start again with --resume.");
}

static bool save(struct run *run, struct error *err) {
    char path[64];
    if (run->saved_at == run->progress.step) return true;
    double start = clock_seconds();
    if (!checkpoint_save(&run->programs.engine, run->recipe->output, &run->progress, run->host->base_model,
                         path, err))
        return refuse_save(run, err);
    run->saved_at = run->progress.step;
    run->progress.seconds += clock_seconds() - start;
    run_sample_memory(run);
    run->events.step = run->progress.step;
    return events_emit(&run->events, "checkpoint", json_pack("{s:s}", "path", path), err) &&
           checkpoint_prune(run->recipe->output, run->recipe->keep, &run->progress, err);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static bool next_epoch(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    if (run->order && p->cursor < (int64_t)run->inputs.train.count) return true;
    if (!run->order) {
        run->order = mem_array(run->inputs.train.count + 1, sizeof *run->order);
        if (!run->order) return error_no_memory(err, "train", run->inputs.train.count * sizeof *run->order);
    }
    if (p->cursor >= (int64_t)run->inputs.train.count) {
        p->epoch++;
        p->cursor = 0;
    }
    pack_order(run->order, run->inputs.train.count, (uint64_t)run->recipe->seed, (uint32_t)p->epoch,
               run->recipe->shuffle);
    return true;
}

static bool stopped(const struct run *run) { return run->host->stop && atomic_load(run->host->stop); }

static bool train_loop(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    /* One that a stop broke off after the step is made up for, so that what follows from it follows again. */
    if (p->step && due(p->step, run->recipe->eval_every) && !evaluate(run, err)) return false;
    while (p->step < run->plan.steps) {
        if (stopped(run))
            return error_set(err, ERROR_INTERRUPTED, "train", "stopped after step %lld of %lld",
                             (long long)p->step, (long long)run->plan.steps);
        if (!next_epoch(run, err) || !train_step(run, err)) return false;
        bool end = p->step == run->plan.steps;
        if ((end || due(p->step, run->recipe->eval_every)) && !evaluate(run, err)) return false;
        if ((end || due(p->step, run->recipe->save_every)) && !save(run, err)) return false;
    }
    return evaluate(run, err);
}

/* What was reached is kept when the user stops the run. */
static bool save_interrupted(struct run *run, struct error *err) {
    struct error stop = *err, cause;
    if (run->progress.step > 0 && run->saved_at != run->progress.step && !save(run, &cause)) {
        *err = cause;
        return false;
    }
    *err = stop;
    error_fix(err, "Go on with the same command and --resume.");
    return false;
}

static bool finish(struct run *run, json_t **result, struct error *err) {
    struct progress *p = &run->progress;
    if (!run_write_result(run, err)) return false;
    json_t *fields = json_pack("{s:f, s:f, s:s, s:I, s:I}", "loss", p->loss, "seconds", p->seconds, "adapter",
                               "adapter", "steps", (json_int_t)p->step, "tokens", (json_int_t)p->tokens);
    if (!fields || json_object_set_new(fields, "eval_loss",
                                       isnan(p->eval_loss) ? json_null() : json_real(p->eval_loss)) != 0) {
        json_decref(fields);
        return error_no_memory(err, "train", 0);
    }
    *result = json_incref(fields);
    run->events.step = p->step;
    return events_emit(&run->events, "done", fields, err);
}

bool trainer_run(struct recipe *recipe, const struct trainer_host *host, json_t **result, struct error *err) {
    struct run run;
    *result = NULL;
    bool ok = run_read(&run, recipe, host, false, err) && run_make_plan(&run, err) && run_begin(&run, err);
    if (ok) {
        ok = train_loop(&run, err) || (err->code == ERROR_INTERRUPTED && save_interrupted(&run, err));
        ok = ok && finish(&run, result, err);
    }
    run_close(&run);
    return ok;
}

bool trainer_plan(struct recipe *recipe, const struct trainer_host *host, json_t **result,
                  struct error *err) {
    struct run run;
    struct events listener = {.file = {.fd = -1}, .listen = host->event, .user = host->user}; /* no file */
    *result = NULL;
    bool ok = run_read(&run, recipe, host, true, err) && run_make_plan(&run, err);
    if (ok && host->prepared) host->prepared(host->user, recipe);
    ok = ok && run_tell_warnings(&run, &listener, err) && run_start_engine(&run, err) &&
         run_rehearse(&run, err) && run_plan_json(&run.plan, &run.programs, host->profile, result, err);
    run_close(&run);
    return ok;
}
