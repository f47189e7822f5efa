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

static void weave_512(const uint16_t *even, const uint16_t *odd, uint32_t *to, int64_t count) {
    for (int64_t j = 0; j < count; j += 16) {
        __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(even + j)));
        __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(odd + j)));
        _mm512_storeu_si512(to + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

#endif
