/* Few rows of x against rows of w in their stored type: types that are decoded here, types whose
 * integers are multiplied in gemm_few_ints.h. Included by each instruction set's file, which brings
 *
 *   few_sum, few_block    a vector of partial sums, 32 decoded numbers of a row of w
 *   few_load, few_multiply, few_total    decode a group of 32; add its products with x to a sum; its total
 *
 * The compiler specialises `dots` for each type and count, which keeps the sums in registers. */
#ifndef HONE_DEVICE_CPU_GEMM_FEW_BODY_H
#define HONE_DEVICE_CPU_GEMM_FEW_BODY_H

#include <string.h>

#include "device/cpu/block_types.h"
#include "device/cpu/gemm_kernel.h"

/* Rows of x against `beside` streams; each w block is decoded once. One sum for each, over k in order in
 * lanes, so that a row's bits do not depend on how many rows go together. */
static inline __attribute__((always_inline)) void dots(const struct gemm_few *few, int64_t row, int64_t apart,
                                                       const int x_rows, const int beside,
                                                       const enum dtype dtype, const int bytes, float *sums) {
    few_sum part[8][8];
    const uint8_t *w[8];
    const int groups = block_groups(dtype);
    int64_t blocks = few->k / 32 / groups;
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++) {
        w[s] = few->w + (size_t)(row + s * apart) * few->row_bytes;
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) part[s][i] = (few_sum){0};
    }
    for (int64_t b = 0; b < blocks; b++)
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) {
            const float *x = few->x + 32 * (b * groups + g);
#pragma GCC unroll 8
            for (int s = 0; s < beside; s++) {
                few_block block = few_load(w[s] + b * bytes, dtype, g);
#pragma GCC unroll 8
                for (int i = 0; i < x_rows; i++)
                    part[s][i] = few_multiply(&block, x + i * few->ldx, part[s][i]);
            }
        }
    if (groups == 1 && few->k % 32) /* plain types only */
#pragma GCC unroll 8
        for (int s = 0; s < beside; s++) {
            uint8_t rest[128] = {0};
            memcpy(rest, w[s] + blocks * bytes, (size_t)(few->k % 32 * bytes / 32));
            few_block block = few_load(rest, dtype, 0);
#pragma GCC unroll 8
            for (int i = 0; i < x_rows; i++)
                part[s][i] = few_multiply(&block, few->x + 32 * blocks + i * few->ldx, part[s][i]);
        }
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++)
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++)
            sums[i * gemm_few_width + s * gemm_few_count] = few_total(part[s][i]);
}

/* The same where scales lie apart: some numbers of each row are decoded at a time, and then as f32 are. */
static inline __attribute__((always_inline)) void apart_dots(const struct gemm_few *few, int64_t row,
                                                             int64_t apart, const int x_rows,
                                                             const int beside, unsigned features,
                                                             float *sums) {
    enum { chunk = 256 };
    _Alignas(64) float w[4][chunk];
    few_sum part[4][8];
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++)
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) part[s][i] = (few_sum){0};
    for (int64_t k = 0; k < few->k; k += chunk) {
        int64_t count = gemm_min(chunk, few->k - k), wide = gemm_up(count, 32);
        for (int s = 0; s < beside; s++) {
            cpu_stored_load(w[s], &few->stored, row + s * apart, k, count, features);
            memset(w[s] + count, 0, (size_t)(wide - count) * sizeof **w);
        }
        for (int64_t b = 0; b < wide; b += 32)
#pragma GCC unroll 8
            for (int s = 0; s < beside; s++) {
                few_block block = few_load((const uint8_t *)(w[s] + b), DTYPE_F32, 0);
#pragma GCC unroll 8
                for (int i = 0; i < x_rows; i++)
                    part[s][i] = few_multiply(&block, few->x + k + b + i * few->ldx, part[s][i]);
            }
    }
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++)
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++)
            sums[i * gemm_few_width + s * gemm_few_count] = few_total(part[s][i]);
}

/* Asks for what lies a while behind a row of each stream: a processor's own prefetching stops where a page
 * ends. */
static inline void few_fetch(const struct gemm_few *few, int64_t row, int64_t apart, int streams) {
    for (int s = 0; s < streams; s++) {
        const uint8_t *at = few->w + (size_t)(row + s * apart) * few->row_bytes + gemm_few_ahead;
        for (size_t byte = 0; byte < few->row_bytes; byte += 64) __builtin_prefetch(at + byte);
    }
}

/* All streams' rows, `beside` streams at a time. */
#define FEW_STREAMS(dots, x_rows, beside, ...)                                                              \
    for (int j = 0; j < count; j++) {                                                                       \
        few_fetch(few, first + j, apart, streams);                                                          \
        int s = 0;                                                                                          \
        for (; s + (beside) <= streams; s += (beside))                                                      \
            dots(few, first + s * apart + j, apart, x_rows, beside, __VA_ARGS__,                            \
                 sums + s * gemm_few_count + j);                                                            \
        for (; s < streams; s++)                                                                            \
            dots(few, first + s * apart + j, apart, x_rows, 1, __VA_ARGS__, sums + s * gemm_few_count + j); \
    }                                                                                                       \
    break

#define FEW(name, dtype, bytes)                                                                              \
    static void few_##name(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count, \
                           float *sums) {                                                                    \
        switch (few->rows) {                                                                                 \
        case 1: FEW_STREAMS(dots, 1, 4, dtype, bytes);                                                       \
        case 2: FEW_STREAMS(dots, 2, 4, dtype, bytes);                                                       \
        case 4: FEW_STREAMS(dots, 4, 2, dtype, bytes);                                                       \
        default: FEW_STREAMS(dots, 8, 1, dtype, bytes);                                                      \
        }                                                                                                    \
    }
BLOCK_TYPES_DECODED(FEW)

static void few_apart(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                      float *sums) {
    switch (few->rows) {
    case 1: FEW_STREAMS(apart_dots, 1, 4, few->features);
    case 2: FEW_STREAMS(apart_dots, 2, 4, few->features);
    case 4: FEW_STREAMS(apart_dots, 4, 2, few->features);
    default: FEW_STREAMS(apart_dots, 8, 1, few->features);
    }
}

#include "device/cpu/gemm_few_ints.h"
#if defined(__AVX512BW__)
#include "device/cpu/gemm_few_quads.h"
FEW_QUADS(q4_0, DTYPE_Q4_0, 18)
FEW_QUADS(q4_1, DTYPE_Q4_1, 20)
#else
FEW_INTS(q4_0, DTYPE_Q4_0, 18, OFFSET_ZERO, 8)
FEW_INTS(q4_1, DTYPE_Q4_1, 20, OFFSET_MINIMUM, 0)
#endif

#define FEW_CASE(name, dtype, bytes) \
    case dtype: few_##name(few, first, apart, streams, count, sums); break;

static void few_run_rows(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                         float *sums) {
    if (gemm_few_integers(few->w_type) && !few->ints && !few->quads) { /* x is not rounded */
        few_apart(few, first, apart, streams, count, sums);
        return;
    }
    switch (few->w_type) {
        BLOCK_TYPES(FEW_CASE)
    default: few_apart(few, first, apart, streams, count, sums);
    }
}

#endif
