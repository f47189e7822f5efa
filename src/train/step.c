/* One step of a run: its micro-batches, the update, its events; and how long a stop waits for it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "train/run_internal.h"
#include "train/schedule.h"
#include "train/update.h"

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

static void fill_batch(struct run *run, const struct pack_layout *layout, size_t b, float weight) {
    struct batch *batch = &run->batch;
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
}

static bool run_micro_batches(struct run *run, const struct step *step, struct error *err) {
    const struct engine *engine = &run->programs.engine;
    for (size_t b = 0; b < step->layout.micro_batches; b++) {
        char name[48];
        fill_batch(run, &step->layout, b, step->weight);
        run->batch.binding.timeline = run_trace_timeline(run);
        snprintf(name, sizeof name, "micro-batch of %lld tokens", (long long)run->batch.binding.tokens);
        if (!engine->ops->run(run->programs.train.program, &run->batch.binding, err) ||
            !run_trace_pass(run, name, err))
            return false;
        run->batch.binding.timeline = NULL; /* others use the batch too */
    }
    return true;
}

static bool drop_gradients(struct engine *engine, struct error *err) {
    return engine_clear(engine, engine->state.gradient, err) && engine_clear(engine, engine->state.loss, err);
}

bool step_replay(struct run *run, const struct step *step, struct nonfinite *found, struct error *err) {
    struct engine *engine = &run->programs.engine;
    *found = (struct nonfinite){.layer = -1, .row = -1};
    for (size_t b = 0; b < step->layout.micro_batches && !found->operation; b++) {
        fill_batch(run, &step->layout, b, step->weight);
        if (!finite_watch(found, engine, &run->programs.train, &run->batch.binding, err)) return false;
    }
    if (!found->operation && isinf(step->norm)) *found = nonfinite_norm("norm", (double)step->norm);
    return drop_gradients(engine, err);
}

/* The norms of what is trained and of the optimizer's state, added up: finite when each of their numbers is.
 */
static bool read_state_norms(struct run *run, struct step *step, struct error *err) {
    const struct engine *engine = &run->programs.engine;
    const struct engine_program *update = &run->programs.update;
    step->state = 0;
    for (int i = 0; i < built_state_norms; i++) {
        float norm = 0;
        if (update->built.state_norms[i] >= 0 &&
            !engine->ops->read(update->program, update->built.state_norms[i], &norm, sizeof norm, err))
            return false;
        step->state += norm;
    }
    return true;
}

/* The update runs to its end once begun: a stop between clip and step would lose what cannot be repeated. It
 * is queued before anything is waited for; a norm or a loss that is not finite changes nothing. */
static bool run_update(struct run *run, struct step *step, struct error *err) {
    struct engine *engine = &run->programs.engine;
    struct engine_program *update = &run->programs.update;
    const struct model_state *state = &engine->state;
    update_hyper(run->recipe, step->rate, state->groups, state->parts.groups, run->hyper);
    struct binding binding = {.inputs = {[INPUT_HYPER] = run->hyper}, .timeline = run_trace_timeline(run)};
    step->norm = NAN;
    step->scale = 1;
    return engine_loss_scale(engine, &step->scale, err) && engine->ops->run(update->program, &binding, err) &&
           run_trace_pass(run, "update", err) &&
           engine->ops->read(update->program, update->built.norm, &step->norm, sizeof step->norm, err) &&
           read_state_norms(run, step, err) &&
           engine->ops->download(engine->store, engine->state.loss, &step->loss, sizeof step->loss, err) &&
           engine_clear(engine, engine->state.loss, err);
}

static bool emit_step(struct run *run, const struct step *step, double seconds, struct error *err) {
    run_sample_memory(run);
    run->events.step = run->progress.step;
    double rate = (double)step->tokens / seconds;
    json_t *fields =
        json_pack("{s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:I, s:I, s:f}", "loss", step->loss, "learning_rate",
                  step->rate, "gradient_norm", (double)step->norm, "tokens", (json_int_t)step->tokens,
                  "supervised_tokens", (json_int_t)step->supervised, "micro_batches",
                  (json_int_t)step->layout.micro_batches, "tokens_per_second", rate, "memory_bytes",
                  (json_int_t)run->highest, "mapped_bytes", (json_int_t)run->mapped, "seconds", seconds);
    const struct tfevents_scalar scalars[] = {{"train/loss", step->loss},
                                              {"train/learning_rate", step->rate},
                                              {"train/gradient_norm", (double)step->norm},
                                              {"train/tokens_per_second", rate}};
    if (run->programs.engine.state.scaling >= 0)
        json_object_put(&fields, "loss_scale", json_real((double)step->scale));
    events_scalar(&run->events, scalars, sizeof scalars / sizeof *scalars);
    return events_emit(&run->events, "step", fields, err);
}

void step_count(struct run *run, const struct step *step) {
    struct progress *p = &run->progress;
    p->step++;
    p->cursor += (int64_t)step->count;
    p->tokens += (int64_t)step->tokens;
}

/* f16 overflowed in the backward pass alone: the device has halved the scale and changed nothing else. */
static bool skip_overflow(struct run *run, const struct step *step, struct error *err) {
    step_count(run, step);
    run->progress.skipped++;
    run->events.step = run->progress.step;
    return events_emit(&run->events, "overflow",
                       json_pack("{s:f, s:f}", "loss", step->loss, "loss_scale", (double)step->scale / 2),
                       err);
}

/* What came of it: the step counts, or it is dealt with by --nan-policy. */
static bool end_step(struct run *run, const struct step *step, struct error *err) {
    struct progress *p = &run->progress;
    double seconds = clock_seconds() - run->patience.begun;
    run->patience.per_token = seconds / (double)step->tokens;
    p->seconds += seconds;
    if (isfinite(step->loss) && !isfinite(step->norm) && step->scale > SCALING_LEAST)
        return skip_overflow(run, step, err);
    if (!isfinite(step->loss) || !isfinite(step->norm) || !isfinite(step->state))
        return run_nonfinite(run, step, err);
    step_count(run, step);
    p->skipped_in_row = 0;
    p->loss = step->loss;
    return emit_step(run, step, seconds, err);
}

bool run_step(struct run *run, struct error *err) {
    const struct progress *p = &run->progress;
    const struct examples *train = &run->inputs.train;
    struct step step = {
        .rate = ldexp(schedule_rate(run->recipe, p->step + 1, run->plan.steps), -(int)p->rollbacks),
        .count = (size_t)run->recipe->batch_size};
    size_t left = train->count - (size_t)p->cursor;
    if (step.count > left) step.count = left;
    const uint32_t *chosen = run->order + p->cursor;
    for (size_t i = 0; i < step.count; i++) {
        step.tokens += train->items[chosen[i]].count;
        step.supervised += train->items[chosen[i]].supervised;
    }
    step.weight = step.supervised ? -1.0f / (float)step.supervised : 0;
    begin_step(run, step.tokens);
    struct arena arena;
    arena_init(&arena, 0);
    size_t count = step.count;
    bool ok = run_share(run, &chosen, &count, &arena, err) &&
              pack_step(&step.layout, train->items, chosen, count, (size_t)run->plan.micro_batch_tokens,
                        &arena, err) &&
              run_micro_batches(run, &step, err);
    ok = run_all_well(run, ok, err) && run_sum(run, err) && run_update(run, &step, err) &&
         run_trace_step(run, &step, err) && end_step(run, &step, err);
    arena_release(&arena);
    return ok;
}
