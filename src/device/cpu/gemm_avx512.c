#if defined(__x86_64__)
/* Tiles of 14 × 32 f32: 28 sums and 2 parts of w in the 32 registers; x comes as a broadcast operand of the
 * multiply-add. */
#include <immintrin.h>
#include <string.h>

#include "device/cpu/gemm_finish.h"
#include "device/cpu/gemm_transpose_avx512.h"

enum { rows_512 = 14, columns_512 = 32 };

/* Rows are addressed from every third one, which leaves few address registers. */
static inline __attribute__((always_inline)) void tile_rows(const int rows, const int vectors, const char *a,
                                                            int64_t stride, const float *b, int64_t steps,
                                                            float *out) {
    __m512 sums[rows_512][2];
    const char *at[5];
    for (int i = 0; i < 5; i++) at[i] = a + 3 * i * stride;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) sums[i][v] = _mm512_setzero_ps();
    for (int64_t k = 0; k < steps; k++) {
        __m512 w[2];
        for (int v = 0; v < vectors; v++) w[v] = _mm512_load_ps(b + k * columns_512 + 16 * v);
        for (int i = 0; i < rows; i++) {
            float x;
            memcpy(&x, at[i / 3] + i % 3 * stride + 4 * k, sizeof x);
            for (int v = 0; v < vectors; v++)
                sums[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(x), w[v], sums[i][v]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) _mm512_store_ps(out + i * columns_512 + 16 * v, sums[i][v]);
}

#define TILE(rows)                                        \
    case rows:                                            \
        if (columns > 16)                                 \
            tile_rows(rows, 2, a, stride, b, steps, out); \
        else                                              \
            tile_rows(rows, 1, a, stride, b, steps, out); \
        break;

static void tile_512(int rows, int columns, const void *a, int64_t stride, const void *b, int64_t steps,
                     float *out) {
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
    }
}

static void finish_512(const struct gemm_tile *tile) { finish_tile(tile, columns_512); }

const struct gemm_kernel gemm_kernel_avx512 = {
    .rows = rows_512,
    .columns = columns_512,
    .tile = tile_512,
    .transpose = transpose_512,
    .finish = finish_512,
    .narrow = gemm_narrow_avx512,
    .few = gemm_few_avx512,
    .round = gemm_round_avx512,
    .round_quads = gemm_round_quads_avx512,
};
#endif
