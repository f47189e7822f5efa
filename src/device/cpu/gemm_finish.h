/* y = α tile + β low + bias + addend for one tile; included by each instruction set's file, so that it is
 * compiled for it. */
#ifndef HONE_DEVICE_CPU_GEMM_FINISH_H
#define HONE_DEVICE_CPU_GEMM_FINISH_H

#include "device/cpu/gemm_kernel.h"
#include "device/cpu/simd_vector.h"

/* Where the products take subnormals of bf16 for zeros, rounding may: that is one instruction. */
static inline __attribute__((always_inline)) void finish_write(const struct gemm_tile *t, int64_t at,
                                                               int count, vf v) {
#if defined(__AVX512BF16__)
    if (t->gemm->y_type == DTYPE_BF16 && count == lanes) {
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(v);
        _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)t->gemm->y + at), rounded);
        return;
    }
#endif
    v_write(t->gemm->y, t->gemm->y_type, at, count, v);
}

/* Columns [j, j + count) of row i. A tile has room for whole vectors. */
static inline __attribute__((always_inline)) void finish_vector(const struct gemm_tile *t, int i, int j,
                                                                int count) {
    const struct gemm *g = t->gemm;
    const int64_t at = (t->row + i) * g->ldy + t->column + j, from = i * t->stride + j;
    float *sums = t->sums ? t->sums + i * t->sums_stride : NULL;
    vf v = v_load(t->tile + from);
    if (sums && !t->first) v += v_read(sums, DTYPE_F32, j, count);
    if (sums && !t->last) {
        v_write(sums, DTYPE_F32, j, count, v);
        return;
    }
    v *= g->alpha;
    if (t->low) v += g->beta * v_load(t->low + from);
    if (!sums && !t->first) {
        v_write(g->y, DTYPE_F32, at, count, v_read(g->y, DTYPE_F32, at, count) + v);
        return;
    }
    if (g->bias) v += v_read(g->bias, DTYPE_F32, t->column + j, count);
    if (g->addend) v += v_read(g->addend, g->addend_type, at, count);
    finish_write(t, at, count, v);
}

static inline __attribute__((always_inline)) void finish_rows(const struct gemm_tile *t, int columns) {
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < columns; j += lanes)
            finish_vector(t, i, j, columns - j < lanes ? columns - j : lanes);
}

/* Widths are constants where they can be, so that loops become a few vectors. */
static inline __attribute__((always_inline)) void finish_tile(const struct gemm_tile *t, int width) {
    if (t->columns == width) {
        finish_rows(t, width);
        return;
    }
    struct gemm_tile part = *t;
    for (int rest = t->columns; rest > 0; rest -= part.columns) {
        part.columns = rest >= 16 ? 16 : rest >= 8 ? 8 : rest;
        switch (part.columns) {
        case 16: finish_rows(&part, 16); break;
        case 8: finish_rows(&part, 8); break;
        default: finish_rows(&part, part.columns);
        }
        part.column += part.columns;
        part.tile += part.columns;
        if (part.low) part.low += part.columns;
        if (part.sums) part.sums += part.columns;
    }
}

#endif
