#if defined(__x86_64__)
/* Tiles of 14 × 32 with the dot product of bf16 pairs: twice the products of an f32 multiply-add. */
#include <immintrin.h>
#include <string.h>

#include "device/cpu/gemm_finish.h"
#include "device/cpu/gemm_pair_avx512bf16.h"
#include "device/cpu/gemm_transpose_avx512.h"

enum { rows_pair = 14, columns_pair = 32 };

/* `parts` of x, one or two. */
static inline __attribute__((always_inline)) void tile_rows(const int parts, const bool add, const int rows,
                                                            const int vectors, const struct gemm_rows *x,
                                                            const uint32_t *b, float *out,
                                                            int64_t out_stride) {
    __m512 sums[rows_pair][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sums[i][v] = add ? _mm512_loadu_ps(out + i * out_stride + 16 * v) : _mm512_setzero_ps();
    for (const struct gemm_rows *end = x + parts; x < end; b += x->steps * columns_pair, x++) {
        const int64_t stride = x->stride, steps = x->steps;
        const char *at[5];
        for (int i = 0; i < 5; i++) at[i] = (const char *)x->at + 3 * i * stride;
        for (int64_t k = 0; k < steps; k++) {
            __m512i w[2];
            for (int v = 0; v < vectors; v++) w[v] = _mm512_load_si512(b + k * columns_pair + 16 * v);
            for (int i = 0; i < rows; i++) {
                int pair;
                memcpy(&pair, at[i / 3] + i % 3 * stride + 4 * k, sizeof pair);
                for (int v = 0; v < vectors; v++)
                    sums[i][v] =
                        _mm512_dpbf16_ps(sums[i][v], (__m512bh)w[v], (__m512bh)_mm512_set1_epi32(pair));
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(out + i * out_stride + 16 * v, sums[i][v]);
}

#define TILE(rows)                                                 \
    case rows:                                                     \
        if (columns > 16)                                          \
            tile_rows(parts, add, rows, 2, x, b, out, out_stride); \
        else                                                       \
            tile_rows(parts, add, rows, 1, x, b, out, out_stride); \
        break;

static inline __attribute__((always_inline)) void tile_any(const int parts, const bool add, int rows,
                                                           int columns, const struct gemm_rows *x,
                                                           const void *b, float *out, int64_t out_stride) {
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
    }
}

static void tile_pairs(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out) {
    tile_any(2, false, rows, columns, x, b, out, columns_pair);
}

static void tile_add_pairs(int rows, int columns, const void *a, int64_t stride, const void *b, int64_t steps,
                           float *out, int64_t out_stride) {
    const struct gemm_rows x = {a, stride, steps};
    tile_any(1, true, rows, columns, &x, b, out, out_stride);
}

static void finish_pairs(const struct gemm_tile *tile) { finish_tile(tile, columns_pair); }

const struct gemm_kernel gemm_kernel_avx512bf16 = {
    .rows = rows_pair,
    .columns = columns_pair,
    .group = 1,
    .pairs = true,
    .tile = tile_pairs,
    .tile_add = tile_add_pairs,
    .transpose = transpose_512,
    .finish = finish_pairs,
    .pair = pair_512,
    .weave = weave_512,
    .narrow = gemm_narrow_avx512,
    .narrow_pairs = gemm_narrow_avx512bf16,
    .few = gemm_few_avx512,
    .round = gemm_round_avx512,
    .round_quads = gemm_round_quads_avx512,
};
#endif
