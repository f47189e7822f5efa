#include "train/run_refuse.h"

#include <stdio.h>

#include "base/text.h"

/* Another way to run, which nobody asked for or chose, and its peak; 0: there is none. */
struct way {
    const char *flags;
    uint64_t peak;
};

enum {
    way_count = 4,
    process_differs = 64 << 10 /* what the process takes is measured, some pages more or less each time */
};

/* `last`: the choice that takes the least. What `auto` has tried is no other way; a file is not taken
 * unasked. */
static void list_ways(struct way ways[way_count], const struct run_choice *last, const struct recipe *recipe,
                      const struct inputs *inputs, enum dtype compute, const struct device_ops *ops,
                      struct device *device) {
    struct run_choice block = *last, offload = *last;
    struct inputs rounded = *inputs;
    struct recipe masters = *recipe;
    bool given = recipe->recompute != RECOMPUTE_AUTO;
    block.keep = GRAPH_KEEP_EDGES;
    offload.keep = GRAPH_KEEP_OFFLOADED;
    block.span = offload.span = 1;
    block.layers = offload.layers = 0;
    rounded.base = DTYPE_NF4;
    masters.offload_optimizer = true;
    ways[0] = (struct way){.flags = "--recompute block"};
    ways[1] = (struct way){.flags = "--offload-optimizer"};
    ways[2] = (struct way){.flags = "--recompute offload"};
    ways[3] = (struct way){.flags = "--base-type nf4"};
    if (given && last->keep < GRAPH_KEEP_EDGES)
        ways[0].peak = run_plan_peak(&block, recipe, inputs, compute, ops, device);
    /* Of an adapter they are too few to count. */
    if (recipe->method == TUNING_FULL && !recipe->offload_optimizer && ops->offload == OFFLOAD_TO_FILE)
        ways[1].peak = run_plan_peak(last, &masters, inputs, compute, ops, device);
    if (given ? last->keep < GRAPH_KEEP_OFFLOADED : ops->offload == OFFLOAD_TO_FILE)
        ways[2].peak = run_plan_peak(&offload, recipe, inputs, compute, ops, device);
    /* Weights that are read where their file is mapped take nothing. */
    if (ops->memory && inputs->base == DTYPE_F32 && recipe->method != TUNING_FULL &&
        recipe->compute != COMPUTE_FP8)
        ways[3].peak = run_plan_peak(last, recipe, &rounded, compute, ops, device);
}

/* What would be enough, of --memory where that is the bound, else beside what is free. */
static const char *enough(uint64_t peak, uint64_t budget, bool given, char out[48]) {
    char more[32];
    if (given)
        snprintf(out, 48, "--memory %lluMiB", (unsigned long long)((peak + process_differs) >> 20) + 1);
    else
        snprintf(out, 48, "%s more", text_bytes(peak > budget ? peak - budget : 0, more));
    return out;
}

/* The other way that fits, or else the one that takes the least; NULL: none takes less. */
static const struct way *best_way(const struct way ways[way_count], uint64_t peak, uint64_t budget) {
    const struct way *least = NULL;
    for (int i = 0; i < way_count; i++) {
        if (!ways[i].peak || ways[i].peak >> 20 >= peak >> 20) continue;
        if (ways[i].peak + process_differs <= budget) return &ways[i];
        if (!least || ways[i].peak < least->peak) least = &ways[i];
    }
    return least;
}

/* Tokens of a micro-batch with which the smallest plan would fit, about; 0: none would. */
static int64_t fitting_tokens(const struct run_plan *smallest, int64_t tokens, uint64_t budget) {
    double per_token = (double)(smallest->activation + 1) / (double)tokens,
           left = (double)budget - (double)(smallest->peak - smallest->activation);
    return left > 0 ? (int64_t)(left / per_token * 0.95) : 0;
}

bool run_refuse(const struct run_plan *smallest, const struct run_choice *last, uint64_t budget,
                const char *source, const struct recipe *recipe, const struct inputs *inputs,
                enum dtype compute, const struct device_ops *ops, struct device *device, struct error *err) {
    const uint64_t peak = smallest->peak, fixed = peak - smallest->activation - smallest->workspace;
    const int64_t longest = run_plan_longest(inputs);
    const bool asked = last->tokens > longest; /* --micro-batch-tokens; else as few as there may be */
    const int64_t fits = fitting_tokens(smallest, last->tokens, budget);
    struct way ways[way_count];
    char need[32], have[32], rest[32], all[48], less[48];
    const bool given = recipe->memory > 0;
    const char *other = given ? "or" : "or end other programs, to have",
               *begin = given ? "Give at least" : "End other programs, to have";
    list_ways(ways, last, recipe, inputs, compute, ops, device);
    const struct way *way = best_way(ways, peak, budget);
    error_set(err, ERROR_MEMORY, "train", "the run needs %s, %s is %s", text_bytes(peak, need), source,
              text_bytes(budget, have));
    error_why(err, "%s of it are weights, adapter, optimizer and %s; %s has %lld tokens",
              text_bytes(fixed, rest), smallest->context ? "the driver's context" : "the process",
              asked ? "a micro-batch" : "the longest example", (long long)last->tokens);
    enough(peak, budget, given, all);
    if (way && way->peak + process_differs <= budget)
        return error_fix(err, "Try %s (%s), %s %s.", way->flags, text_bytes(way->peak, rest), other, all);
    if (fits >= (asked ? longest : 16))
        return error_fix(err, "Try --%s %lld, %s %s.", asked ? "micro-batch-tokens" : "max-length",
                         (long long)fits, other, all);
    if (way)
        return error_fix(err, "%s %s, or %s with %s.", begin, all, enough(way->peak, budget, given, less),
                         way->flags);
    return error_fix(err, "%s %s%s.", begin, all,
                     fixed >= budget && recipe->method != TUNING_FULL ? ", or a smaller --lora-rank" : "");
}

bool run_check_layers(const struct recipe *recipe, int64_t layers, struct error *err) {
    const struct {
        const char *name;
        int64_t value;
        const char *fix;
    } rows[] = {
        {"recompute-layers", recipe->recompute_layers, "Leave it out to compute every layer again."},
        {"recompute-span", recipe->recompute_span, "Leave it out to compute each layer again by itself."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].value <= layers) continue;
        error_set(err, ERROR_USAGE, "train", "--%s %lld is more than the model's %lld %s", rows[i].name,
                  (long long)rows[i].value, (long long)layers,
                  text_plural((uint64_t)layers, "layer", "layers"));
        return error_fix(err, "%s", rows[i].fix);
    }
    return true;
}
