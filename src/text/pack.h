/* Examples to flat micro-batches: which examples make one optimizer step, and how they are laid side by
 * side. Packing never changes which examples make a step. Knows counts only, no model.
 *
 * Words: step (one optimizer update over `batch_size` examples), micro-batch (one flat run of at most
 * `capacity` tokens), segment (one example inside a micro-batch). */
#ifndef HONE_TEXT_PACK_H
#define HONE_TEXT_PACK_H

#include "text/example.h"

/* The order of one epoch: order[count] = example indices; shuffled by Philox Fisher-Yates for
 * (seed, epoch) when `shuffle`, else 0, 1, 2 …. */
void pack_order(uint32_t *order, size_t count, uint64_t seed, uint32_t epoch, bool shuffle);

/* How the examples of one step are laid into micro-batches: the fewest that fit, balanced by cost
 * (longest first onto the lightest that has room). */
struct pack_layout {
    uint32_t *items;  /* [count] example indices, grouped by micro-batch */
    uint32_t *starts; /* [micro_batches + 1] into items */
    size_t micro_batches;
};
/* lengths come from examples[i].count; capacity >= the longest. Memory from `arena`. */
bool pack_step(struct pack_layout *out, const struct example *examples, const uint32_t *chosen, size_t count,
               size_t capacity, struct arena *arena, struct error *err);

/* The examples of a step that fall to one of `ranks` processes: balanced by cost, in the order of the step.
 * *out [*out_count], memory from `arena`. */
bool pack_share(uint32_t **out, size_t *out_count, const struct example *examples, const uint32_t *chosen,
                size_t count, int rank, int ranks, struct arena *arena, struct error *err);

#endif
