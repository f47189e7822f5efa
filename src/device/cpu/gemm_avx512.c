#if defined(__x86_64__)
/* Tiles of 14 × 32 f32: 28 sums, 2 parts of w and a number of x in the 32 registers. A number of x is loaded
 * once for both of its products: as an operand of each the loads would take longer than the products. */
#include <immintrin.h>
#include <string.h>

#include "device/cpu/gemm_finish.h"
#include "device/cpu/gemm_transpose_avx512.h"

enum { rows_512 = 14, columns_512 = 32 };

/* Panels and rows come from the second cache, and are asked for: w these steps ahead, x a line of each row.
 */
enum { ahead = 16, line_steps = 64 / sizeof(float) };

/* In a register of its own, not an operand of what reads it. */
static inline __attribute__((always_inline)) __m512 broadcast(const char *from) {
    float number;
    memcpy(&number, from, sizeof number);
    __m512 x = _mm512_set1_ps(number);
    __asm__("" : "+v"(x));
    return x;
}

/* Rows are addressed from every third one, which leaves few address registers. */
static inline __attribute__((always_inline)) void
tile_rows(const int rows, const int vectors, const struct gemm_rows *x, const float *b, float *out) {
    __m512 sums[rows_512][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) sums[i][v] = _mm512_setzero_ps();
    for (const struct gemm_rows *end = x + 2; x < end; b += x->steps * columns_512, x++) {
        const int64_t stride = x->stride, steps = x->steps;
        const char *at[5];
        for (int i = 0; i < 5; i++) at[i] = (const char *)x->at + 3 * i * stride;
        for (int64_t k = 0; k < steps;) {
            const int64_t line = k + line_steps < steps ? k + line_steps : steps;
            uintptr_t next = (uintptr_t)x->at + 4 * (uintptr_t)(k + line_steps);
            for (; k < line; k++, next += (uintptr_t)stride) {
                __m512 w[2];
                for (int v = 0; v < vectors; v++) {
                    w[v] = _mm512_load_ps(b + k * columns_512 + 16 * v);
                    _mm_prefetch((const char *)(b + (k + ahead) * columns_512 + 16 * v), _MM_HINT_T0);
                }
                /* Two more rows than a tile has: the next one's. */
                _mm_prefetch((const char *)next, _MM_HINT_T0);
                for (int i = 0; i < rows; i++) {
                    __m512 number = broadcast(at[i / 3] + i % 3 * stride + 4 * k);
                    for (int v = 0; v < vectors; v++) sums[i][v] = _mm512_fmadd_ps(number, w[v], sums[i][v]);
                }
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) _mm512_store_ps(out + i * columns_512 + 16 * v, sums[i][v]);
}

#define TILE(rows)                         \
    case rows:                             \
        if (columns > 16)                  \
            tile_rows(rows, 2, x, b, out); \
        else                               \
            tile_rows(rows, 1, x, b, out); \
        break;

static void tile_512(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out) {
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
    .group = 1,
    .tile = tile_512,
    .transpose = transpose_512,
    .finish = finish_512,
    .narrow = gemm_narrow_avx512,
    .few = gemm_few_avx512,
    .round = gemm_round_avx512,
    .round_quads = gemm_round_quads_avx512,
};
#endif
