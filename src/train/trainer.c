#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "train/run_internal.h"

/* ---- measuring and saving ---- */

static void note_evaluation(struct run *run, double loss) {
    struct progress *p = &run->progress;
    bool improved = isfinite(loss) && !(loss >= p->best_loss - run->recipe->early_stopping_threshold);
    p->evaluated = p->step;
    p->eval_loss = loss;
    p->stale = improved ? 0 : p->stale + 1;
    if (isfinite(loss) && !(loss >= p->best_loss)) { /* at first it is NaN */
        p->best_loss = loss;
        p->best_step = p->step;
    }
    if (run->saved_at == p->step) run->saved_at = -1; /* that checkpoint does not know it */
}

static bool evaluate(struct run *run, struct error *err) {
    struct score score;
    const struct examples *held = &run->inputs.held_out;
    if (!held->count || run->progress.evaluated == run->progress.step) return true;
    double start = clock_seconds();
    size_t ranks = (size_t)run_ranks(run), rank = (size_t)run->recipe->rank;
    size_t begin = held->count * rank / ranks, end = held->count * (rank + 1) / ranks;
    bool ok = engine_derive_average(&run->programs.engine, err) &&
              score_examples(&score, &run->programs.engine, &run->programs.score, &run->batch,
                             held->items + begin, end - begin, run->host->stop, NULL, NULL, err);
    if (!run_all_well(run, ok, err) || !run_sum_score(run, &score, err)) return false;
    double seconds = clock_seconds() - start;
    run->progress.seconds += seconds;
    note_evaluation(run, score.loss);
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

/* A run whose last checkpoint cannot be written ends, and can go on from the one before. */
static bool refuse_save(const struct run *run, struct error *err) {
    const char *mend = "Free space there and check that it may be written"; /* the cause is told before it */
    if (err->code != ERROR_DISK) return false;
    if (run->saved_at > 0)
        return error_fix(err, "%s; the same command with --resume goes on from step %lld.", mend,
                         (long long)run->saved_at);
    return error_fix(err, "%s, and start again with --resume.", mend);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

bool run_out_of_patience(const struct run *run) {
    return run->recipe->early_stopping && run->progress.stale >= run->recipe->early_stopping;
}

/* Whether this step is saved when the run is not stopped, too. */
static bool is_due(const struct run *run) {
    const struct progress *p = &run->progress;
    bool best = run->recipe->early_stopping && p->best_step == p->step;
    return best || p->step == run->plan.steps || run_out_of_patience(run) ||
           due(p->step, run->recipe->save_every);
}

static bool save(struct run *run, struct error *err) {
    char path[64] = "";
    if (run->saved_at == run->progress.step) return true;
    double start = clock_seconds();
    events_sync(&run->events); /* no checkpoint is ahead of its log */
    run->progress.micro_batch_tokens = run->plan.micro_batch_tokens;
    run->progress.stopped = !is_due(run);
    if (is_due(run) && !run->progress.first_saved) run->progress.first_saved = run->progress.step;
    bool written = !run_first(run) || checkpoint_save(&run->programs.engine, run->recipe->output,
                                                      &run->progress, run->host->base_model, path, err);
    if (!run_outcome(run, written, err)) return refuse_save(run, err);
    run->saved_at = run->progress.step;
    run->kept = (struct best){run->progress.best_loss, run->progress.best_step};
    run->progress.seconds += clock_seconds() - start;
    run_sample_memory(run);
    run->events.step = run->progress.step;
    return events_emit(&run->events, "checkpoint", json_pack("{s:s}", "path", path), err) &&
           (!run_first(run) || checkpoint_prune(run->recipe->output, run->recipe->keep, &run->progress, err));
}

/* A save on the way: when the disk refuses it, the run goes on without, and tries again at each later one.
 * The best evaluation is then the best of those whose checkpoints stand: by a later save these weights are
 * gone. Patience is counted all the same. */
static bool try_save(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    char text[error_text_size];
    if (save(run, err)) return true;
    if (err->code != ERROR_DISK) return false;
    error_format(err, text, sizeof text);
    run->events.step = p->step;
    json_t *fields = json_pack("{s:o}", "message", json_text(text));
    if (run->recipe->early_stopping) {
        p->best_loss = run->kept.loss;
        p->best_step = run->kept.step;
        json_object_put(&fields, "best_step", json_integer((json_int_t)p->best_step));
    }
    return events_emit(&run->events, "save_failed", fields, err);
}

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

/* What is due after a step; after a resume, what a stop before it left out. */
static bool settle(struct run *run, struct error *err) {
    const struct progress *p = &run->progress;
    bool end = p->step == run->plan.steps;
    if (!p->step) return true;
    if ((end || due(p->step, run->recipe->eval_every)) && !evaluate(run, err)) return false;
    if (end || run_out_of_patience(run)) return save(run, err); /* what a resume ends at once from */
    return !is_due(run) || try_save(run, err);
}

static bool train_loop(struct run *run, struct error *err) {
    struct progress *p = &run->progress;
    for (;;) {
        if (!settle(run, err)) return false;
        if (p->step == run->plan.steps || run_out_of_patience(run)) return true;
        bool stop;
        if (!run_any(run, stopped(run), &stop, err)) return false;
        if (stop)
            return error_set(err, ERROR_INTERRUPTED, "train", "stopped after step %lld of %lld",
                             (long long)p->step, (long long)run->plan.steps);
        if (!next_epoch(run, err) || !run_watch(run, err) || !run_step(run, err)) return false;
    }
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

static bool tell_early_stop(struct run *run, struct error *err) {
    const struct progress *p = &run->progress;
    json_t *fields =
        json_pack("{s:I, s:I}", "evaluations", (json_int_t)p->stale, "best_step", (json_int_t)p->best_step);
    if (!isnan(p->best_loss)) json_object_put(&fields, "best_loss", json_real(p->best_loss));
    run->events.step = p->step;
    return events_emit(&run->events, "early_stop", fields, err);
}

/* The store's state becomes what the result is of: the last step's, or with early stopping the best one's. */
static bool choose_result(struct run *run, struct progress *reached, struct error *err) {
    const struct progress *p = &run->progress;
    *reached = *p;
    if (run_out_of_patience(run) && !tell_early_stop(run, err)) return false;
    return !run->recipe->early_stopping || !p->best_step || p->best_step == p->step ||
           checkpoint_load_step(&run->programs.engine, run->recipe->output, p->best_step, reached, err);
}

static bool finish(struct run *run, json_t **result, struct error *err) {
    struct progress *p = &run->progress, reached;
    if (!choose_result(run, &reached, err)) return false;
    /* No program runs any more: a tokenizer's files, which are made now, take some of the arena's place. */
    if (run->ops->shrink) run->ops->shrink(run->programs.engine.store, 0);
    bool written = !run_first(run) || run_write_result(run, &reached, err);
    if (!run_outcome(run, written, err)) return false;
    json_t *fields =
        json_pack("{s:o, s:f, s:s, s:I, s:I, s:I, s:o, s:I}", "loss", json_number(reached.loss), "seconds",
                  p->seconds, run_result_name(run), run_result_name(run), "steps", (json_int_t)p->step,
                  "tokens", (json_int_t)p->tokens, "result_step", (json_int_t)reached.step, "eval_loss",
                  json_number(reached.eval_loss), "memory_bytes", (json_int_t)run->highest);
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
        ok = train_loop(&run, err) && run_trace_end(&run, err);
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
