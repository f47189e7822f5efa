/* Few rows of x against rows of w in their stored type; included by each instruction set's file, which
 * brings
 *
 *   few_sum, few_block    a vector of partial sums, 32 decoded numbers of a row of w
 *   few_load, few_multiply, few_total    decode a block; add its products with x to a sum; the sum's total
 *   few_beside_1, _2, _4, _8    rows of w that go together beside so many rows of x
 *
 * The compiler specialises `dots` for each type and count, which keeps the sums in registers. */
#ifndef HONE_DEVICE_CPU_GEMM_FEW_BODY_H
#define HONE_DEVICE_CPU_GEMM_FEW_BODY_H

#include <string.h>

#include "device/cpu/gemm_kernel.h"

/* x rows × w rows dot products; each w block is decoded once. One sum for each, over k in order in lanes,
 * so that a row's bits do not depend on how many rows go together. */
static inline __attribute__((always_inline)) void dots(const struct gemm_few *few, int64_t row,
                                                       const int x_rows, const int w_rows,
                                                       const enum dtype dtype, const int bytes, float *sums,
                                                       int64_t stride) {
    few_sum lanes[8][8];
    const uint8_t *w[8];
    int64_t blocks = few->k / 32, ahead = gemm_few_ahead(few->row_bytes * (size_t)w_rows);
#pragma GCC unroll 8
    for (int r = 0; r < w_rows; r++) {
        w[r] = few->w + (size_t)(row + r) * few->row_bytes;
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) lanes[r][i] = (few_sum){0};
    }
    for (int64_t b = 0; b < blocks; b++) {
        const float *x = few->x + 32 * b;
#pragma GCC unroll 8
        for (int r = 0; r < w_rows; r++) {
            __builtin_prefetch(w[r] + b * bytes + ahead);
            few_block block = few_load(w[r] + b * bytes, dtype);
#pragma GCC unroll 8
            for (int i = 0; i < x_rows; i++)
                lanes[r][i] = few_multiply(&block, x + i * few->ldx, lanes[r][i]);
        }
    }
    if (few->k % 32) /* plain types only */
#pragma GCC unroll 8
        for (int r = 0; r < w_rows; r++) {
            uint8_t rest[128] = {0};
            memcpy(rest, w[r] + blocks * bytes, (size_t)(few->k % 32 * bytes / 32));
            few_block block = few_load(rest, dtype);
#pragma GCC unroll 8
            for (int i = 0; i < x_rows; i++)
                lanes[r][i] = few_multiply(&block, few->x + 32 * blocks + i * few->ldx, lanes[r][i]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < w_rows; r++)
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) sums[i * stride + r] = few_total(lanes[r][i]);
}

static inline __attribute__((always_inline)) void all_rows(const struct gemm_few *few, int64_t first,
                                                           int64_t last, const int x_rows, const int w_rows,
                                                           const enum dtype dtype, const int bytes,
                                                           float *sums, int64_t stride) {
    int64_t row = first;
    for (; row + w_rows <= last; row += w_rows)
        dots(few, row, x_rows, w_rows, dtype, bytes, sums + (row - first), stride);
    for (; row < last; row++) dots(few, row, x_rows, 1, dtype, bytes, sums + (row - first), stride);
}

#define FEW(name, dtype, bytes)                                                                  \
    static void few_##name(const struct gemm_few *few, int64_t first, int64_t last, float *sums, \
                           int64_t stride) {                                                     \
        switch (few->rows) {                                                                     \
        case 1: all_rows(few, first, last, 1, few_beside_1, dtype, bytes, sums, stride); break;  \
        case 2: all_rows(few, first, last, 2, few_beside_2, dtype, bytes, sums, stride); break;  \
        case 4: all_rows(few, first, last, 4, few_beside_4, dtype, bytes, sums, stride); break;  \
        default: all_rows(few, first, last, 8, few_beside_8, dtype, bytes, sums, stride); break; \
        }                                                                                        \
    }
FEW(f32, DTYPE_F32, 128)
FEW(f16, DTYPE_F16, 64)
FEW(bf16, DTYPE_BF16, 64)
FEW(q4_0, DTYPE_Q4_0, 18)
FEW(q4_1, DTYPE_Q4_1, 20)
FEW(q5_0, DTYPE_Q5_0, 22)
FEW(q5_1, DTYPE_Q5_1, 24)
FEW(q8_0, DTYPE_Q8_0, 34)

static void few_run_rows(const struct gemm_few *few, int64_t first, int64_t last, float *sums,
                         int64_t stride) {
    switch (few->w_type) {
    case DTYPE_F16: few_f16(few, first, last, sums, stride); break;
    case DTYPE_BF16: few_bf16(few, first, last, sums, stride); break;
    case DTYPE_Q4_0: few_q4_0(few, first, last, sums, stride); break;
    case DTYPE_Q4_1: few_q4_1(few, first, last, sums, stride); break;
    case DTYPE_Q5_0: few_q5_0(few, first, last, sums, stride); break;
    case DTYPE_Q5_1: few_q5_1(few, first, last, sums, stride); break;
    case DTYPE_Q8_0: few_q8_0(few, first, last, sums, stride); break;
    default: few_f32(few, first, last, sums, stride);
    }
}

#endif
