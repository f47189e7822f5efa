#include "train/run_counts.h"

#include "base/mem.h"
#include "text/pack.h"

void run_counts_release(struct run_counts *counts) {
    mem_free(counts->items);
    *counts = (struct run_counts){0};
}

static bool reserve(struct run_counts *counts, struct error *err) {
    *counts = (struct run_counts){.items = mem_array(run_counts_most, sizeof *counts->items)};
    return counts->items || error_no_memory(err, "plan", run_counts_most * sizeof *counts->items);
}

static void add_example(struct counts *to, const struct example *example) {
    to->tokens += example->count;
    to->targets += example->supervised;
    to->segments++;
}

/* One step, as run_step lays it out. */
static bool add_step(struct run_counts *out, const struct recipe *recipe, const struct examples *examples,
                     const uint32_t *chosen, size_t count, int64_t tokens, struct error *err) {
    struct arena arena;
    struct pack_layout layout;
    uint32_t *mine = NULL;
    int ranks = recipe_ranks(recipe);
    arena_init(&arena, 0);
    bool ok = ranks == 1 || pack_share(&mine, &count, examples->items, chosen, count, (int)recipe->rank,
                                       ranks, &arena, err);
    ok = ok && pack_step(&layout, examples->items, mine ? mine : chosen, count, (size_t)tokens, &arena, err);
    for (size_t b = 0; ok && b < layout.micro_batches && out->count < run_counts_most; b++) {
        struct counts *to = &out->items[out->count++];
        *to = (struct counts){0};
        for (uint32_t i = layout.starts[b]; i < layout.starts[b + 1]; i++)
            add_example(to, &examples->items[layout.items[i]]);
    }
    arena_release(&arena);
    return ok;
}

bool run_counts_train(struct run_counts *out, const struct recipe *recipe, const struct examples *examples,
                      int64_t tokens, int64_t steps, struct error *err) {
    const size_t batch = (size_t)recipe->batch_size;
    uint32_t *order = mem_array(examples->count + 1, sizeof *order), epoch = 0;
    size_t at = examples->count;
    bool ok = reserve(out, err) && (order || error_no_memory(err, "plan", examples->count * sizeof *order));
    for (int64_t step = 0; ok && step < steps && examples->count && out->count < run_counts_most; step++) {
        if (at == examples->count) {
            pack_order(order, examples->count, (uint64_t)recipe->seed, epoch++, recipe->shuffle);
            at = 0;
        }
        size_t count = examples->count - at < batch ? examples->count - at : batch;
        ok = add_step(out, recipe, examples, order + at, count, tokens, err);
        at += count;
    }
    mem_free(order);
    if (!ok) run_counts_release(out);
    return ok;
}

bool run_counts_score(struct run_counts *out, const struct recipe *recipe, const struct examples *examples,
                      int64_t tokens, int64_t segments, struct error *err) {
    size_t ranks = (size_t)recipe_ranks(recipe), rank = (size_t)recipe->rank;
    size_t at = examples->count * rank / ranks, end = examples->count * (rank + 1) / ranks;
    if (!reserve(out, err)) return false;
    while (at < end && out->count < run_counts_most) {
        struct counts *to = &out->items[out->count++];
        *to = (struct counts){0};
        do add_example(to, &examples->items[at++]);
        while (at < end && to->tokens + examples->items[at].count <= tokens && to->segments < segments);
    }
    return true;
}

static uint64_t recorded(const struct engine_program *program, struct run_counts *counts, double times,
                         const struct engine *engine) {
    /* An evaluation's counts are those of the one before it. */
    size_t again = times > 1 && 2 * counts->count <= run_counts_most ? counts->count : 0;
    for (size_t i = 0; i < again; i++) counts->items[counts->count + i] = counts->items[i];
    uint64_t bytes = engine->ops->recorded_bytes(&program->plan, counts->items, counts->count + again);
    run_counts_release(counts);
    return bytes;
}

bool run_counts_recorded(uint64_t *out, const struct run_plan *plan, const struct run_programs *programs,
                         const struct recipe *recipe, const struct inputs *inputs, struct error *err) {
    struct run_counts counts;
    const struct engine *engine = &programs->engine;
    *out = 0;
    if (!engine->ops->recorded_bytes) return true;
    if (!run_counts_train(&counts, recipe, &inputs->train, plan->micro_batch_tokens, plan->steps, err))
        return false;
    *out = recorded(&programs->train, &counts, 1, engine);
    if (!run_counts_score(&counts, recipe, &inputs->held_out, plan->micro_batch_tokens, plan->segments, err))
        return false;
    *out += recorded(&programs->score, &counts, plan->evaluations, engine);
    return true;
}
