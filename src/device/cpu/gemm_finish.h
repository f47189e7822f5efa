/* y = α tile + β low + bias + addend for one tile; included by each instruction set's file, so that it is
 * compiled for it. */
#ifndef HONE_DEVICE_CPU_GEMM_FINISH_H
#define HONE_DEVICE_CPU_GEMM_FINISH_H

#include "device/cpu/gemm_kernel.h"
#include "device/cpu/simd_vector.h"

/* Where the products take subnormals of bf16 for zeros, rounding may: that is one instruction. */
static inline __attribute__((always_inline)) void finish_write(const struct gemm_tile *t, int64_t at,
                                                               int count, vf v, enum dtype type) {
#if defined(__AVX512BF16__)
    if (type == DTYPE_BF16 && count == lanes) {
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(v);
        _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)t->gemm->y + at), rounded);
        return;
    }
#endif
    v_write(t->gemm->y, type, at, count, v);
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
    finish_write(t, at, count, v, g->y_type);
}

static inline __attribute__((always_inline)) void finish_rows(const struct gemm_tile *t, int columns) {
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < columns; j += lanes)
            finish_vector(t, i, j, columns - j < lanes ? columns - j : lanes);
}

/* Whole tiles that are neither partial sums nor have a bias: what there is beside them is constant, so that a
 * vector takes a few instructions. */
static inline __attribute__((always_inline)) void finish_plain(const struct gemm_tile *t, const int columns,
                                                               const enum dtype type, const bool low,
                                                               const bool addend) {
    const struct gemm *g = t->gemm;
    const float alpha = g->alpha, beta = g->beta;
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < columns; j += lanes) {
            const int64_t at = (t->row + i) * g->ldy + t->column + j, from = i * t->stride + j;
            vf v = v_load(t->tile + from) * alpha;
            if (low) v += beta * v_load(t->low + from);
            if (addend) v += v_load((const float *)g->addend + at);
            finish_write(t, at, lanes, v, type);
        }
}

static inline __attribute__((always_inline)) void finish_typed(const struct gemm_tile *t, const int columns,
                                                               const enum dtype type) {
    if (t->low && t->gemm->addend)
        finish_plain(t, columns, type, true, true);
    else if (t->low)
        finish_plain(t, columns, type, true, false);
    else if (t->gemm->addend)
        finish_plain(t, columns, type, false, true);
    else
        finish_plain(t, columns, type, false, false);
}

static inline bool finish_is_plain(const struct gemm_tile *t) {
    const struct gemm *g = t->gemm;
    return !t->sums && t->first && !g->bias && (!g->addend || g->addend_type == DTYPE_F32);
}

/* Widths are constants where they can be, so that loops become a few vectors. */
static inline __attribute__((always_inline)) void finish_tile(const struct gemm_tile *t, int width) {
    if (t->columns == width) {
        if (finish_is_plain(t) && t->gemm->y_type == DTYPE_F32)
            finish_typed(t, width, DTYPE_F32);
        else if (finish_is_plain(t) && t->gemm->y_type == DTYPE_BF16)
            finish_typed(t, width, DTYPE_BF16);
        else
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
