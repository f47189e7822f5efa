/* Pairs of bf16 for panels, shared by the implementations that multiply them. */
#ifndef HONE_DEVICE_CPU_GEMM_PAIR_AVX512BF16_H
#define HONE_DEVICE_CPU_GEMM_PAIR_AVX512BF16_H

#include <immintrin.h>
#include <stdint.h>

/* `count` is a multiple of 16. */
static void pair_512(const float *even, const float *odd, uint32_t *to, int64_t count) {
    for (int64_t j = 0; j < count; j += 16) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(even + j)));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(odd + j)));
        _mm512_storeu_si512(to + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

static void weave_512(const uint16_t *even, const uint16_t *odd, uint32_t *to, int64_t count, int64_t apart) {
    enum { width = 32 }; /* of a panel */
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    int64_t j = 0;
    for (; j + width <= count; j += width, to += apart) {
        __m512i a = _mm512_loadu_si512(even + j), b = _mm512_loadu_si512(odd + j);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
        _mm512_storeu_si512(to + width / 2, _mm512_permutex2var_epi16(a, high, b));
    }
    if (j == count) return;
    __m512i a = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(even + j))),
            b = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(odd + j)));
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
}

#endif
