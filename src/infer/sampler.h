/* From logits to a token: penalties, temperature, top-k, top-p, min-p, in this order, as transformers has
 * them; then one draw. */
#ifndef HONE_INFER_SAMPLER_H
#define HONE_INFER_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

struct sampling {
    double temperature;        /* 0: the likeliest token */
    int64_t top_k;             /* 0: all */
    double top_p;              /* 1: all */
    double min_p;              /* least share of the likeliest token's probability; 0: all */
    double repetition_penalty; /* 1: none; as CTRL: positive logits divided, negative multiplied */
    uint64_t seed;
};

struct candidate {
    int32_t id;
    float logit;
};

/* `logits` [vocabulary] is changed. `seen` are the sequence's tokens so far. `candidates` [vocabulary] is
 * scratch. The draw is Philox(seed; counter = (position, 0, 0, 0xfffffffc)), so it repeats. -1 where no logit
 * is a number above -inf. */
int32_t sampler_next(const struct sampling *sampling, float *logits, int64_t vocabulary, const int32_t *seen,
                     size_t seen_count, uint32_t position, struct candidate *candidates);

#endif
