/* Examples laid side by side into the inputs of one run. */
#ifndef HONE_SCORE_BATCH_H
#define HONE_SCORE_BATCH_H

#include "device/device.h"
#include "text/example.h"

struct batch {
    int64_t capacity, segment_capacity; /* tokens (and targets), segments */
    int32_t *ids, *positions, *segments, *rows, *targets;
    float *weights;
    uint32_t *examples;
    uint32_t random[4];
    struct binding binding; /* points at the arrays above */
};

uint64_t batch_bytes(int64_t tokens); /* about what one takes */
bool batch_open(struct batch *out, int64_t tokens, int64_t segments, struct error *err);
void batch_close(struct batch *batch);
void batch_clear(struct batch *batch);
bool batch_fits(const struct batch *batch, const struct example *example);
/* Appends an example; each of its targets gets `weight`. It must fit. */
void batch_add(struct batch *batch, const struct example *example, float weight);

#endif
