/* Watching: a run touches all of its memory at the start, so what is left of the machine's, or of its control
 * group's, shrinks when other programs take more. Between two steps the run looks at it; where less than the
 * reserve is left, the micro-batch is halved, as often as that takes, and the arena's pages are given back.
 * Which examples make a step does not change, so neither does the result, but for the rounding of sums that
 * are split elsewhere. It stays so to the end, and recipe.yaml is written anew: a resume goes on with it. */
#include <stdio.h>

#include "base/process.h"
#include "base/text.h"
#include "train/run_internal.h"

static const uint64_t most_reserve = UINT64_C(256) << 20;

/* What the machine has, or its control group gives. */
static uint64_t memory_in_all(void) {
    uint64_t total = process_memory_total(), limit = process_memory_limit();
    return limit < total ? limit : total;
}

/* A run that leaves little free by its own plan is not to be made smaller for that: half of what it leaves.
 */
static uint64_t usual_reserve(void) {
    uint64_t share = memory_in_all() / 20, half = process_memory_available() / 2;
    uint64_t reserve = share < most_reserve ? share : most_reserve;
    return half < reserve ? half : reserve;
}

void run_watch_begin(struct run *run) {
    bool open = recipe_origin(run->recipe, "memory-reserve") == ORIGIN_AUTO;
    if (!run->ops || !run->ops->shrink) return;
    run->watch.reserve = open ? usual_reserve() : run->recipe->memory_reserve;
}

static bool resize(struct run *run, int64_t tokens, struct error *err) {
    struct engine *engine = &run->programs.engine;
    if (!run_plan_resize(&run->plan, &run->programs, run->recipe, tokens, err)) return false;
    run->ops->shrink(engine->store, program_bytes(run_programs_largest(&run->programs)));
    batch_close(&run->batch);
    return batch_open(&run->batch, run->plan.micro_batch_tokens, run->plan.segments, err);
}

static bool tell(struct run *run, int64_t before, uint64_t left, struct error *err) {
    char text[200], have[32], want[32];
    struct error cause;
    const struct run_plan *plan = &run->plan;
    snprintf(text, sizeof text,
             "%s of the memory were left, the reserve is %s: micro-batches of %lld tokens from here on, %lld "
             "before",
             text_bytes(left, have), text_bytes(run->watch.reserve, want),
             (long long)plan->micro_batch_tokens, (long long)before);
    run->events.step = run->progress.step;
    /* A disk that is full must not end what memory did not. */
    if (!recipe_resolve_int(run->recipe, "micro-batch-tokens", plan->micro_batch_tokens,
                            "memory became short", err))
        return false;
    if (run_first(run) && !run_write_recipe(run, &cause) && !events_warn(&run->events, cause.what, err))
        return false;
    return events_emit(
        &run->events, "micro_batch",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:s}", "tokens", (json_int_t)plan->micro_batch_tokens, "before",
                  (json_int_t)before, "available_bytes", (json_int_t)left, "reserve_bytes",
                  (json_int_t)run->watch.reserve, "peak_bytes", (json_int_t)plan->peak, "message", text),
        err);
}

static bool tell_helpless(struct run *run, uint64_t left, struct error *err) {
    char text[160], have[32], want[32];
    if (run->watch.told) return true;
    run->watch.told = true;
    snprintf(
        text, sizeof text,
        "%s of the memory are left, the reserve is %s, and micro-batches are as small as the longest example",
        text_bytes(left, have), text_bytes(run->watch.reserve, want));
    run->events.step = run->progress.step;
    return events_warn(&run->events, text, err);
}

bool run_watch(struct run *run, struct error *err) {
    if (!run->watch.reserve) return true;
    const uint64_t left = process_memory_available();
    const int64_t before = run->plan.micro_batch_tokens, least = run_plan_longest(&run->inputs);
    for (uint64_t now = left; now < run->watch.reserve; now = process_memory_available()) {
        int64_t tokens = run->plan.micro_batch_tokens / 2;
        if (run->plan.micro_batch_tokens == least) break;
        if (!resize(run, tokens > least ? tokens : least, err)) return false;
    }
    if (run->plan.micro_batch_tokens < before) return tell(run, before, left, err);
    return left >= run->watch.reserve || tell_helpless(run, left, err);
}
