/* How long a run will take, from running a little of it: micro-batches of real examples whose targets weigh
 * nothing, so that gradients and loss stay zero and no bit of the run changes.
 *
 * A micro-batch of n flops takes a + b n seconds (a: weights are decoded once, whatever n; flops, since how
 * many tokens of an example are trained differs); a small and a large one give both, or, where examples are
 * too long for a small one, the large one and what its device says of a. Evaluation takes its own time for
 * each. */
#include "base/mem.h"
#include "base/thread.h"
#include "device/operand.h"
#include "train/run_internal.h"

/* Seconds that the larger of the two may take, by the first estimate; as many tokens are taken. */
static const double large_seconds = 0.25;
/* A batch is run again until so much time is gone: a run begins within two seconds. */
static const double enough_seconds = 0.4;
enum { least_tokens = 16, small_share = 6, repeats = 3, least_apart = 3, save_bytes_per_second = 300 << 20 };
/* An example that alone takes so many times as long is not rehearsed. */
static const double too_long = 2.5;

struct rehearsal {
    struct run *run;
    size_t next; /* example */
};

/* The shortest example, where all are long. */
static const struct example *shortest(const struct examples *train) {
    const struct example *out = &train->items[0];
    for (size_t i = 1; i < train->count; i++)
        if (train->items[i].count < out->count) out = &train->items[i];
    return out;
}

/* Fills the batch with at least `tokens` tokens of examples from all over the data, as far as they fit and
 * make no more than twice as many. */
static int64_t fill(struct rehearsal *r, int64_t tokens) {
    const struct examples *train = &r->run->inputs.train;
    struct batch *batch = &r->run->batch;
    size_t step = train->count / 7 + 1; /* far apart: data often lie sorted */
    batch_clear(batch);
    for (size_t tried = 0; tried < train->count && batch->binding.tokens < tokens; tried++) {
        const struct example *example = &train->items[r->next % train->count];
        r->next += step;
        if (batch->binding.tokens + (int64_t)example->count <= 2 * tokens && batch_fits(batch, example))
            batch_add(batch, example, 0);
    }
    if (!batch->binding.tokens && train->count) batch_add(batch, shortest(train), 0);
    batch->binding.inputs[INPUT_RANDOM] = batch->random;
    batch->binding.stop = r->run->host->stop;
    return batch->binding.tokens;
}

/* Seconds of the fastest of a few runs of what the batch holds. */
static bool time_batch(struct run *run, const struct engine_program *program, int times, double *out,
                       struct error *err) {
    const struct device_ops *ops = run->programs.engine.ops;
    double begin = clock_seconds();
    *out = 1e30;
    for (int i = 0; i < times && (!i || clock_seconds() - begin < enough_seconds); i++) {
        double start = clock_seconds();
        if (!ops->run(program->program, &run->batch.binding, err) ||
            (ops->finish && !ops->finish(program->program, err)))
            return false;
        double seconds = clock_seconds() - start;
        if (seconds < *out) *out = seconds;
    }
    return true;
}

/* Micro-batches of one epoch. */
static bool count_micro_batches(const struct run *run, size_t *out, struct error *err) {
    const struct examples *train = &run->inputs.train;
    size_t batch = (size_t)run->recipe->batch_size;
    struct arena arena;
    struct pack_layout layout;
    uint32_t *order = mem_array(train->count, sizeof *order);
    bool ok = order || error_no_memory(err, "plan", train->count * sizeof *order);
    if (ok) pack_order(order, train->count, (uint64_t)run->recipe->seed, 0, run->recipe->shuffle);
    *out = 0;
    for (size_t at = 0; ok && at < train->count; at += batch) {
        size_t count = train->count - at < batch ? train->count - at : batch;
        arena_init(&arena, 0);
        ok = pack_step(&layout, train->items, order + at, count, (size_t)run->plan.micro_batch_tokens, &arena,
                       err);
        if (ok) *out += layout.micro_batches;
        arena_release(&arena);
    }
    mem_free(order);
    return ok;
}

/* Puts the times together: steps, evaluations, updates (which move their blocks about twice), saves. */
static bool set_seconds(struct run *run, double fixed, double per_flop, double score_per_flop,
                        struct error *err) {
    struct run_plan *plan = &run->plan;
    const struct run_programs *programs = &run->programs;
    int64_t train[COUNT_KINDS], held[COUNT_KINDS];
    size_t micro_batches;
    run_plan_counts(&run->inputs.train, train);
    run_plan_counts(&run->inputs.held_out, held);
    if (!count_micro_batches(run, &micro_batches, err)) return false;
    int64_t save_every = run->recipe->save_every;
    double ranks = run_ranks(run);
    double saves = (double)((plan->steps + save_every - 1) / save_every);
    plan->seconds = plan->passes *
                        ((double)micro_batches * fixed + program_flops(&programs->train, train) * per_flop) /
                        ranks +
                    plan->evaluations * program_flops(&programs->score, held) * score_per_flop / ranks +
                    plan->update_seconds + plan->start_seconds +
                    saves * (double)checkpoint_bytes(&programs->engine) / save_bytes_per_second;
    return true;
}

static double batch_flops(const struct run *run, const struct engine_program *program) {
    int64_t counts[COUNT_KINDS];
    binding_counts(&run->batch.binding, counts);
    return program_flops(program, counts);
}

/* Of the seconds that the batch of so many flops took, those that any other would have taken too. */
static double fixed_part(const struct run *run, double seconds, double flops) {
    const struct engine *engine = &run->programs.engine;
    int64_t counts[COUNT_KINDS];
    if (!engine->ops->fixed_flops) return 0;
    binding_counts(&run->batch.binding, counts);
    double fixed =
        engine->ops->fixed_flops(engine->device, &run->programs.train.built.graph, counts, run->plan.compute);
    return seconds * fixed / (fixed + flops);
}

static bool rehearse(struct run *run, struct error *err) {
    struct rehearsal r = {.run = run};
    double small, large, scored, rate = (double)run->plan.tokens / (run->plan.seconds + 1e-9);
    double budget = rate * large_seconds;
    if (budget < 2 * least_tokens)
        return true; /* a slow device or a large model: the first estimate stands */
    int64_t most = run->plan.micro_batch_tokens, wanted = budget < (double)most ? (int64_t)budget : most;
    struct engine_program *train = &run->programs.train;
    int64_t few = fill(&r, wanted / small_share);
    if (!few || (double)few > too_long * budget)
        return true; /* micro-batches of a few tokens, or very many */
    double few_flops = batch_flops(run, train);
    if (!time_batch(run, train, 2, &small, err)) return false;
    int64_t many = fill(&r, wanted);
    double many_flops = batch_flops(run, train);
    if (!time_batch(run, train, repeats, &large, err) ||
        !time_batch(run, &run->programs.score, 2, &scored, err))
        return false;
    double fixed = fixed_part(run, large, many_flops);
    if (many > least_apart * few) fixed = large - (large - small) / (many_flops - few_flops) * many_flops;
    if (fixed < 0 || fixed >= large) fixed = 0; /* too close to tell apart */
    return set_seconds(run, fixed, (large - fixed) / many_flops,
                       scored / batch_flops(run, &run->programs.score), err);
}

/* A weight of nothing is no number where it meets an infinity: what gathered is thrown away. */
bool run_rehearse(struct run *run, struct error *err) {
    struct engine *engine = &run->programs.engine;
    return rehearse(run, err) && engine_clear(engine, engine->state.gradient, err) &&
           engine_clear(engine, engine->state.loss, err);
}
