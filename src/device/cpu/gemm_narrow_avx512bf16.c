#if defined(__x86_64__)
/* The way of a narrow side (gradients of adapters) with products of bf16 pairs: neighbours along k become
 * pairs of both sides on the way into registers. */
#include <immintrin.h>

#include "device/cpu/gemm_kernel.h"
#include "device/cpu/gemm_pair_avx512bf16.h"

enum { rows_at_once = 8, vector = 32, units = 16, ahead = 16 /* rows of b asked for */ };

static void narrow_rows(__mmask32 mask, const uint32_t *a, const uint16_t *b, int64_t ldb, int64_t k,
                        float *sums) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __m512 part[rows_at_once][2];
    for (int i = 0; i < rows_at_once; i++)
        for (int v = 0; v < 2; v++) part[i][v] = _mm512_loadu_ps(sums + i * gemm_narrow_pairs + v * units);
    for (int64_t kk = 0; kk < k; kk += 2, a += units, b += 2 * ldb) {
        __m512i even = _mm512_maskz_loadu_epi16(mask, b),
                odd = kk + 1 < k ? _mm512_maskz_loadu_epi16(mask, b + ldb) : _mm512_setzero_si512();
        __m512bh w[2] = {(__m512bh)_mm512_permutex2var_epi16(even, low, odd),
                         (__m512bh)_mm512_permutex2var_epi16(even, high, odd)};
        for (int i = 0; i < 2; i++) __builtin_prefetch(b + (ahead + i) * ldb);
        for (int i = 0; i < rows_at_once; i++)
            for (int v = 0; v < 2; v++)
                part[i][v] = _mm512_dpbf16_ps(part[i][v], w[v], (__m512bh)_mm512_set1_epi32((int)a[i]));
    }
    for (int i = 0; i < rows_at_once; i++)
        for (int v = 0; v < 2; v++) _mm512_storeu_ps(sums + i * gemm_narrow_pairs + v * units, part[i][v]);
}

void gemm_narrow_avx512bf16(int rows, int columns, const float *a, int64_t lda, const uint16_t *b,
                            int64_t ldb, int64_t k, float *sums) {
    _Alignas(64) uint32_t turned[gemm_narrow_k / 2 * units];
    narrow_units(rows, a, lda, k, turned);
    for (int j = 0; j < columns; j += vector) {
        __mmask32 mask = _cvtu32_mask32(columns - j >= vector ? 0xffffffffu : (1u << (columns - j)) - 1u);
        for (int i = 0; i < rows; i += rows_at_once)
            narrow_rows(mask, turned + i, b + j, ldb, k, sums + i * gemm_narrow_pairs + j);
    }
}
#endif
