/* How attention is cut into tasks and what scratch a worker has: the same for every instruction set, so
 * that the plan's figure is too. */
#ifndef HONE_DEVICE_CPU_ATTENTION_LAYOUT_H
#define HONE_DEVICE_CPU_ATTENTION_LAYOUT_H

#include "device/cpu/kernel.h"

/* Queries and keys are taken in blocks of attention_block tokens; a causal block is trimmed in bands of
 * attention_band queries. */
enum { attention_block = 64, attention_band = 16, attention_lanes = 16 };

static inline int64_t attention_padded(int64_t d) {
    return (d + attention_lanes - 1) / attention_lanes * attention_lanes;
}
static inline int64_t attention_blocks(int64_t tokens) {
    return (tokens + attention_block - 1) / attention_block;
}

/* The gradient of a segment up to this long is one task per kv head, which computes each score once; its dq
 * of all queries stays in scratch. Longer ones are split further and compute the scores twice. */
static inline int64_t attention_whole(const struct attributes *a) {
    int64_t tokens = 131072 / ((a->heads / a->kv_heads) * attention_padded(a->head_dim)) / attention_block *
                     attention_block;
    return tokens < attention_block ? attention_block : tokens > 512 ? 512 : tokens;
}

/* Bytes of a table of 4-byte numbers, so that what follows is aligned. */
static inline size_t attention_table_bytes(int64_t numbers) { return ((size_t)numbers * 4 + 63) / 64 * 64; }

/* Floats of a worker. */
static inline int64_t attention_scratch(const struct attributes *a) {
    int64_t d = attention_padded(a->head_dim), group = a->heads / a->kv_heads;
    return group * attention_block * (2 * d + 2) /* q, y, most, sum */
           + attention_block * (3 * d)           /* k, k transposed, v */
           + attention_block * attention_block;  /* scores */
}

static inline int64_t attention_grad_scratch(const struct attributes *a) {
    int64_t d = attention_padded(a->head_dim), group = a->heads / a->kv_heads;
    return attention_block * 8 * d                 /* q, dy, k, v, both transposed, dk, dv */
           + 2 * attention_block * attention_block /* p, ds */
           + 2 * attention_block                   /* lse, delta */
           + group * attention_whole(a) * d;       /* dq */
}

#endif
