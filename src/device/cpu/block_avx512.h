/* One block of 32 stored numbers as two vectors of 16 f32, exactly as tensor/rowcodec.h decodes them: product
 * and sum are rounded separately. Blocks may lie at any address. */
#ifndef HONE_DEVICE_CPU_BLOCK_AVX512_H
#define HONE_DEVICE_CPU_BLOCK_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

struct block512 {
    __m512 low, high; /* elements 0..15 and 16..31 */
};

static inline __m512 block512_half(const uint8_t *at) {
    int16_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(bits));
}

/* `values` holds the f32 of each nibble: a table look-up replaces conversion, product and sum of each
 * element. */
static inline struct block512 block512_nibbles(const uint8_t *at, __m512 values) {
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
    return (struct block512){_mm512_permutexvar_ps(bytes, values),
                             _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values)};
}

/* Two tables of 16: the fifth bit chooses. */
static inline struct block512 block512_fives(const uint8_t *at, const uint8_t *high, __m512 values,
                                             __m512 upper) {
    uint32_t fifth;
    memcpy(&fifth, high, sizeof fifth);
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
    __m512i top = _mm512_srli_epi32(bytes, 4);
    return (struct block512){
        _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(bytes, values), (__mmask16)fifth, bytes, upper),
        _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(top, values), (__mmask16)(fifth >> 16), top, upper)};
}

static inline __m512 block512_count(float first) {
    return _mm512_add_ps(_mm512_set1_ps(first),
                         _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* `dtype` is a constant where this is called, so that one case remains. */
static inline __attribute__((always_inline)) struct block512 block512_load(const uint8_t *at,
                                                                           enum dtype dtype) {
    switch (dtype) {
    case DTYPE_Q4_0: return block512_nibbles(at + 2, _mm512_mul_ps(block512_count(-8), block512_half(at)));
    case DTYPE_Q4_1:
        return block512_nibbles(at + 4, _mm512_add_ps(_mm512_mul_ps(block512_count(0), block512_half(at)),
                                                      block512_half(at + 2)));
    case DTYPE_Q5_0: {
        __m512 d = block512_half(at);
        return block512_fives(at + 6, at + 2, _mm512_mul_ps(block512_count(-16), d),
                              _mm512_mul_ps(block512_count(0), d));
    }
    case DTYPE_Q5_1: {
        __m512 d = block512_half(at), m = block512_half(at + 2);
        return block512_fives(at + 8, at + 4, _mm512_add_ps(_mm512_mul_ps(block512_count(0), d), m),
                              _mm512_add_ps(_mm512_mul_ps(block512_count(16), d), m));
    }
    case DTYPE_Q8_0: {
        __m512 d = block512_half(at);
        __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at + 2)));
        __m512i high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at + 18)));
        return (struct block512){_mm512_mul_ps(d, _mm512_cvtepi32_ps(low)),
                                 _mm512_mul_ps(d, _mm512_cvtepi32_ps(high))};
    }
    case DTYPE_F16:
        return (struct block512){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at)),
                                 _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(at + 32)))};
    case DTYPE_BF16: {
        __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
        __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(at + 32)));
        return (struct block512){_mm512_castsi512_ps(_mm512_slli_epi32(low, 16)),
                                 _mm512_castsi512_ps(_mm512_slli_epi32(high, 16))};
    }
    default: return (struct block512){_mm512_loadu_ps(at), _mm512_loadu_ps(at + 64)};
    }
}

#endif
