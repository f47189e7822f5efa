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

/* The gradient of a segment up to this long is one task per kv head, which computes each score once; all its
 * keys stay in scratch. Longer ones are split further and compute the scores twice. */
static inline int64_t attention_whole(const struct attributes *a) {
    int64_t tokens = 65536 / attention_padded(a->head_dim) / attention_block * attention_block;
    return tokens < attention_block ? attention_block : tokens > 512 ? 512 : tokens;
}

/* Bytes of a table of 4-byte numbers, so that what follows is aligned. */
static inline size_t attention_table_bytes(int64_t numbers) { return ((size_t)numbers * 4 + 63) / 64 * 64; }

/* The keys that one query sees are shared out in pieces of so many (decoding). */
enum { attention_piece = 256 };

static inline int64_t attention_pieces(int64_t keys) {
    return (keys + attention_piece - 1) / attention_piece;
}

/* Floats of what a piece leaves: y, most and sum of a group's heads. */
static inline int64_t attention_piece_floats(const struct attributes *a) {
    return a->heads / a->kv_heads * (attention_padded(a->head_dim) + 2);
}

/* Products from pairs of bf16 (attention_pair_body.h) serve heads of up to twice this many elements. */
enum { attention_most_pairs = 256 };

/* 32-bit units of a block of keys or queries as panels. */
static inline int64_t attention_panel_units(int64_t padded) {
    return attention_block / 2 * ((padded + 31) / 32 * 32);
}

static inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Floats of a worker: the larger of the two forms', beside what both have. */
static inline int64_t attention_scratch(const struct attributes *a) {
    int64_t d = attention_padded(a->head_dim), group = a->heads / a->kv_heads,
            square = attention_block * attention_block;
    int64_t floats = group * attention_block * d /* q */
                     + attention_block * 3 * d   /* k, k transposed, v */
                     + square;                   /* scores */
    int64_t pairs = 2 * attention_panel_units(d) + 3 * square / 2;
    return group * attention_block * (d + 2) /* y, most, sum */ + larger_of(floats, pairs);
}

/* What the gradient keeps of a block of keys, of a block of queries of one head, and beside them while one
 * meets the other. */
static inline int64_t attention_key_floats(const struct attributes *a) {
    int64_t d = attention_padded(a->head_dim);
    return 2 * attention_block * d /* dk, dv */ + larger_of(3 * attention_block * d, /* k, both transposed */
                                                            3 * attention_panel_units(d));
}

static inline int64_t attention_query_floats(const struct attributes *a) {
    int64_t d = attention_padded(a->head_dim);
    return attention_block * (d + 2) /* dq, lse, delta */ +
           larger_of(2 * attention_block * d,                               /* q, dy */
                     2 * attention_panel_units(d) + attention_block * d / 2 /* dy rounded */
                         + attention_lanes);                                /* where the queries lie */
}

static inline int64_t attention_pair_floats(const struct attributes *a) {
    int64_t square = attention_block * attention_block;
    return 2 * square /* scores, products */ +
           larger_of(attention_block * attention_padded(a->head_dim) /* v */,
                     5 * square / 2 /* p, ds, turned, and between */);
}

static inline int64_t attention_grad_scratch(const struct attributes *a) {
    return attention_whole(a) / attention_block * attention_key_floats(a) +
           a->heads / a->kv_heads * attention_query_floats(a) + attention_pair_floats(a);
}

#endif
