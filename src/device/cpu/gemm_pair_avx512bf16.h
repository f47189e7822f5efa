/* Pairs of bf16 for panels, shared by the implementations that multiply them. */
#ifndef HONE_DEVICE_CPU_GEMM_PAIR_AVX512BF16_H
#define HONE_DEVICE_CPU_GEMM_PAIR_AVX512BF16_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* 32 numbers of each as 32 pairs. */
static inline void weave_vectors(__m512i even, __m512i odd, uint32_t *to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, high, odd));
}

/* a [k][rows] as units [k / 2][16]; zeros behind the last row and the last k. */
static inline void narrow_units(int rows, const float *a, int64_t lda, int64_t k, uint32_t *to) {
    const __mmask16 mask = (__mmask16)((1u << rows) - 1u);
    for (int64_t i = 0; i < k; i += 2, a += 2 * lda, to += 16) {
        __m512 first = _mm512_maskz_loadu_ps(mask, a),
               second = i + 1 < k ? _mm512_maskz_loadu_ps(mask, a + lda) : _mm512_setzero_ps();
        __m512i even = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first)),
                odd = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
        _mm512_store_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

/* `count` is a multiple of 16. */
static inline void pair_512(const float *even, const float *odd, uint32_t *to, int64_t count) {
    for (int64_t j = 0; j < count; j += 16) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(even + j)));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(odd + j)));
        _mm512_storeu_si512(to + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

static inline void weave_512(const uint16_t *even, const uint16_t *odd, uint32_t *to, int64_t count,
                             int64_t apart) {
    enum { width = 32 }; /* of a panel */
    int64_t j = 0;
    for (; j + width <= count; j += width, to += apart)
        weave_vectors(_mm512_loadu_si512(even + j), _mm512_loadu_si512(odd + j), to);
    if (j == count) return;
    uint32_t rest[width];
    weave_vectors(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)(even + j))),
                  _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(odd + j))), rest);
    memcpy(to, rest, sizeof rest / 2);
}

#endif
