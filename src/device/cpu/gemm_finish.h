/* y = α tile + β low + bias + addend for one tile; included by each instruction set's file, so that it is
 * compiled for it. */
#ifndef HONE_DEVICE_CPU_GEMM_FINISH_H
#define HONE_DEVICE_CPU_GEMM_FINISH_H

#include "device/cpu/gemm_kernel.h"
#if defined(__AVX512BW__)
#include "device/cpu/row_store_avx512.h"
#endif

/* Whole vectors of bf16 are stored here: a call for each row would take a part of the product's time. */
static inline __attribute__((always_inline)) void finish_store(const struct gemm_tile *t, int64_t at,
                                                               const float *v, int columns) {
    const enum dtype dtype = t->gemm->y_type;
#if defined(__AVX512BW__)
    if (dtype == DTYPE_BF16 && columns % 16 == 0) {
        uint16_t *to = (uint16_t *)t->gemm->y + at;
        for (int j = 0; j < columns; j += 16)
            _mm256_storeu_si256((__m256i *)(void *)(to + j), bf16_rounded(_mm512_loadu_ps(v + j)));
        return;
    }
#endif
    cpu_row_store((char *)t->gemm->y + gemm_row_bytes(dtype, at), v, dtype, columns, t->features);
}

static inline __attribute__((always_inline)) void finish_row(const struct gemm_tile *t, int i, int columns) {
    const struct gemm *g = t->gemm;
    const float *tile = t->tile + i * t->stride;
    int64_t at = (t->row + i) * g->ldy + t->column;
    float v[gemm_most_columns];
    float *sums = t->sums ? t->sums + i * t->sums_stride : NULL;
    for (int j = 0; j < columns; j++) v[j] = tile[j];
    if (sums && !t->first)
        for (int j = 0; j < columns; j++) v[j] += sums[j];
    if (sums && !t->last) {
        for (int j = 0; j < columns; j++) sums[j] = v[j];
        return;
    }
    for (int j = 0; j < columns; j++) v[j] *= g->alpha;
    if (t->low)
        for (int j = 0; j < columns; j++) v[j] += g->beta * t->low[i * t->stride + j];
    if (!sums && !t->first) {
        float *y = (float *)g->y + at;
        for (int j = 0; j < columns; j++) y[j] += v[j];
        return;
    }
    if (g->bias)
        for (int j = 0; j < columns; j++) v[j] += g->bias[t->column + j];
    if (g->addend && g->addend_type == DTYPE_F32) {
        const float *addend = (const float *)g->addend + at;
        for (int j = 0; j < columns; j++) v[j] += addend[j];
    } else if (g->addend) {
        float more[gemm_most_columns];
        cpu_row_load(more, (const char *)g->addend + gemm_row_bytes(g->addend_type, at), g->addend_type,
                     columns, t->features);
        for (int j = 0; j < columns; j++) v[j] += more[j];
    }
    if (g->y_type == DTYPE_F32) {
        float *y = (float *)g->y + at;
        for (int j = 0; j < columns; j++) y[j] = v[j];
    } else {
        finish_store(t, at, v, columns);
    }
}

static inline __attribute__((always_inline)) void finish_rows(const struct gemm_tile *t, int columns) {
    for (int i = 0; i < t->rows; i++) finish_row(t, i, columns);
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
