/* Sixteen f32 as bf16, for the files that are compiled for AVX-512. */
#ifndef HONE_DEVICE_CPU_ROW_STORE_AVX512_H
#define HONE_DEVICE_CPU_ROW_STORE_AVX512_H

#include <immintrin.h>

/* Round to nearest, ties to even, in integers: the instruction of AVX512_BF16 would flush subnormals. */
static inline __attribute__((always_inline)) __m256i bf16_rounded(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), top = _mm512_srli_epi32(bits, 16);
    __mmask16 nan = _mm512_cmpgt_epu32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)),
                                            _mm512_set1_epi32(0x7f800000));
    __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    rounded = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
}

#endif
