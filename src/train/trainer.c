#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "train/run_internal.h"

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
                       json_pack("{s:o, s:I, s:I, s:f}", "loss", json_number(score.loss), "supervised_tokens",
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
        int64_t before = p->step;
        if (!next_epoch(run, err) || !run_step(run, err)) return false;
        if (p->step <= before) continue; /* it went back */
        bool end = p->step == run->plan.steps;
        if ((end || due(p->step, run->recipe->eval_every)) && !evaluate(run, err)) return false;
        if ((end || due(p->step, run->recipe->save_every)) && !save(run, err)) return false;
    }
    return evaluate(run, err);
}

/* What was reached is kept when the user or --nan-policy stops the run. */
static bool save_stopped(struct run *run, struct error *err) {
    struct error stop = *err, cause;
    if (run->progress.step > 0 && run->saved_at != run->progress.step && !save(run, &cause)) {
        *err = cause;
        return false;
    }
    *err = stop;
    if (stop.code == ERROR_INTERRUPTED) error_fix(err, "Go on with the same command and --resume.");
    return false;
}

static bool finish(struct run *run, json_t **result, struct error *err) {
    struct progress *p = &run->progress;
    if (!run_write_result(run, err)) return false;
    json_t *fields =
        json_pack("{s:o, s:f, s:s, s:I, s:I, s:o}", "loss", json_number(p->loss), "seconds", p->seconds,
                  run_result_name(run), run_result_name(run), "steps", (json_int_t)p->step, "tokens",
                  (json_int_t)p->tokens, "eval_loss", json_number(p->eval_loss));
    if (!fields) return error_no_memory(err, "train", 0);
    *result = json_incref(fields);
    run->events.step = p->step;
    return events_emit(&run->events, "done", fields, err);
}

bool trainer_run(struct recipe *recipe, const struct trainer_host *host, json_t **result, struct error *err) {
    struct run run;
    *result = NULL;
    bool ok = run_read(&run, recipe, host, false, err) && run_make_plan(&run, err) && run_begin(&run, err);
    if (ok) {
        ok = train_loop(&run, err);
        if (!ok && (err->code == ERROR_INTERRUPTED || run.halted)) save_stopped(&run, err);
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
