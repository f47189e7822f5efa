#include "train/run_choice.h"

#include <math.h>

#include "base/mem.h"
#include "text/pack.h"

enum {
    least_micro_batch = 256,
    largest_micro_batch = 4096,
    largest_on_device = 32768, /* where a GPU is to be filled */
    most_sizes = 8,
    /* Rows of a piece where not all tokens fit at once: products of so many are as fast as of more. */
    piece = 2048,
    piece_on_device = 16384,
    /* What a micro-batch costs beside its tokens, in rows, where the device does not say. */
    fixed_rows = 30,
    fixed_rows_on_device = 500, /* what fills a GPU */
};

static const double slack = 1.03; /* an estimate is no closer */
static const double modesty = 1.1;
/* What copying beside the computing adds to a step: measured 0 to 3 %; so much that it is not taken where the
 * same without it fits. */
static const double copying = 1.04;
/* What pieces add: weights are decoded for each. So much that they are not taken where all rows fit. */
static const double cutting = 1.05;

/* Micro-batches of at least the longest example; of more than two steps there is none. */
static int list_sizes(int64_t sizes[most_sizes + 1], const struct recipe *recipe, const struct inputs *inputs,
                      int64_t longest, bool own_memory) {
    const struct examples *train = &inputs->train;
    int64_t fixed = recipe->micro_batch_tokens;
    int count = 0;
    if (fixed) {
        sizes[0] = fixed > longest ? fixed : longest;
        return 1;
    }
    int64_t step =
        (int64_t)(train->counts.tokens / (train->count ? train->count : 1) + 1) * recipe_own_batch(recipe);
    for (int64_t n = own_memory ? largest_on_device : largest_micro_batch;
         n >= least_micro_batch && count < most_sizes; n /= 2)
        if (n > longest && n < 2 * step) sizes[count++] = n;
    sizes[count++] = longest;
    return count;
}

static void add_choice(struct run_choices *out, const struct run_choice *choice) {
    static const int most = sizeof out->items / sizeof *out->items;
    if (out->count < most) out->items[out->count++] = *choice;
}

/* All rows at once, and pieces of them where these make a plan smaller and no smaller micro-batch does. */
static void add_pieces(struct run_choices *out, struct run_choice choice, struct recipe *recipe,
                       bool own_memory, bool smallest) {
    bool open = recipe_origin(recipe, "piece-rows") == ORIGIN_AUTO;
    int64_t rows = own_memory ? piece_on_device : piece;
    choice.piece_rows = open ? 0 : recipe->piece_rows;
    add_choice(out, &choice);
    choice.piece_rows = rows;
    if (open && smallest && choice.tokens > rows && choice.keep >= GRAPH_KEEP_EDGES) add_choice(out, &choice);
}

int run_choice_most_span(const struct inputs *inputs) {
    int span = 4;
    while (span > 1 && span > inputs->model->config.layers) span /= 2;
    return span;
}

/* One layer a block where the recipe says nothing, and more where the host's memory may be what fills up. */
static void add_spans(struct run_choices *out, struct run_choice choice, struct recipe *recipe,
                      const struct inputs *inputs, const struct device_ops *ops, bool smallest) {
    bool open = !recipe->recompute_span, host = ops->offload == OFFLOAD_TO_HOST;
    bool several = open && smallest && host && choice.keep == GRAPH_KEEP_OFFLOADED;
    int last = several ? run_choice_most_span(inputs) : 1;
    choice.span = open ? 1 : (int)recipe->recompute_span;
    for (int span = 1; span <= last; span *= 2, choice.span = span)
        add_pieces(out, choice, recipe, ops->memory != NULL, smallest);
}

void run_choices_list(struct run_choices *out, struct recipe *recipe, const struct inputs *inputs,
                      int64_t longest, const struct device_ops *ops) {
    int64_t sizes[most_sizes + 1];
    int size_count = list_sizes(sizes, recipe, inputs, longest, ops->memory != NULL);
    /* A disk is not taken unasked. */
    int last = ops->offload == OFFLOAD_TO_HOST ? GRAPH_KEEP_OFFLOADED : GRAPH_KEEP_EDGES;
    out->count = 0;
    for (int decoded = 1; decoded >= 0; decoded--)
        for (int keep = GRAPH_KEEP_ALL; keep <= GRAPH_KEEP_OFFLOADED; keep++)
            for (int s = 0; s < size_count; s++) {
                if (recipe->frozen_weights != FROZEN_AUTO &&
                    decoded != (recipe->frozen_weights == FROZEN_DECODED))
                    continue;
                if (recipe->recompute == RECOMPUTE_AUTO ? keep > last
                                                        : keep != recipe->recompute - RECOMPUTE_NONE)
                    continue;
                struct run_choice choice = {.decoded = decoded,
                                            .keep = (enum graph_keep)keep,
                                            .layers = (int)recipe->recompute_layers,
                                            .tokens = sizes[s]};
                add_spans(out, choice, recipe, inputs, ops, s == size_count - 1);
            }
}

/* Counts of the mean micro-batch of a step, whose examples are taken from all over the data, and how many of
 * them there are. */
static bool mean_micro_batch(int64_t counts[COUNT_KINDS], double *micro_batches, int64_t tokens,
                             const struct examples *train, int64_t batch_size, struct error *err) {
    size_t count = (size_t)batch_size < train->count ? (size_t)batch_size : train->count, step = 1;
    int64_t sums[COUNT_KINDS] = {[COUNT_SEGMENTS] = (int64_t)count};
    struct arena arena;
    struct pack_layout layout;
    arena_init(&arena, 0);
    uint32_t *chosen = arena_array(&arena, count, sizeof *chosen);
    for (size_t i = 0; chosen && i < count; i++) {
        chosen[i] = (uint32_t)(i * train->count / count);
        sums[COUNT_TOKENS] += train->items[chosen[i]].count;
        sums[COUNT_TARGETS] += train->items[chosen[i]].supervised;
    }
    bool ok = chosen ? pack_step(&layout, train->items, chosen, count, (size_t)tokens, &arena, err)
                     : error_no_memory(err, "plan", count * sizeof *chosen);
    if (ok && layout.micro_batches) step = layout.micro_batches;
    arena_release(&arena);
    for (int c = 0; c < COUNT_KINDS; c++) counts[c] = (sums[c] + (int64_t)step - 1) / (int64_t)step;
    counts[COUNT_SEGMENTS_AND_ONE] = counts[COUNT_SEGMENTS] + 1;
    *micro_batches = (double)step;
    return ok;
}

bool run_choice_cost(struct run_choice *choice, const struct engine *engine,
                     const struct engine_program *train, enum dtype compute, const struct examples *examples,
                     int64_t batch_size, struct error *err) {
    const struct device_ops *ops = engine->ops;
    int64_t counts[COUNT_KINDS];
    double micro_batches;
    if (!mean_micro_batch(counts, &micro_batches, choice->tokens, examples, batch_size, err)) return false;
    double flops = program_flops(train, counts), rows = ops->memory ? fixed_rows_on_device : fixed_rows;
    double fixed = ops->fixed_flops ? ops->fixed_flops(engine->device, &train->built.graph, counts, compute)
                                    : rows * flops / (double)counts[COUNT_TOKENS];
    choice->cost = micro_batches * (flops + fixed) * (choice->keep == GRAPH_KEEP_OFFLOADED ? copying : 1) *
                   (choice->piece_rows && choice->piece_rows < choice->tokens ? cutting : 1);
    return true;
}

static double least_cost(const struct run_choices *choices, bool modest) {
    double least = INFINITY;
    for (int i = 0; i < choices->count; i++) {
        const struct run_choice *choice = &choices->items[i];
        if (choice->fits && (choice->modest || !modest) && choice->cost < least) least = choice->cost;
    }
    return least;
}

static const struct run_choice *best_of(const struct run_choices *choices, bool modest) {
    const struct run_choice *best = NULL;
    double least = least_cost(choices, modest);
    for (int i = 0; i < choices->count; i++) {
        const struct run_choice *choice = &choices->items[i];
        if (!choice->fits || (modest && !choice->modest) || choice->cost > least * slack) continue;
        if (!best || choice->bytes < best->bytes ||
            (choice->bytes == best->bytes && choice->cost < best->cost))
            best = choice;
    }
    return best;
}

const struct run_choice *run_choices_best(const struct run_choices *choices) {
    const struct run_choice *best = best_of(choices, false), *modest = best_of(choices, true);
    return modest && modest->cost <= least_cost(choices, false) * modesty ? modest : best;
}
