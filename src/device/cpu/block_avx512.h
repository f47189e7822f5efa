/* 32 stored numbers as two vectors of 16 f32, exactly as tensor/rowcodec.h decodes them: product and sum are
 * rounded separately. Blocks may lie at any address. */
#ifndef HONE_DEVICE_CPU_BLOCK_AVX512_H
#define HONE_DEVICE_CPU_BLOCK_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "tensor/block_scales.h"
#include "tensor/dtype.h"

struct block512 {
    __m512 low, high; /* elements 0..15 and 16..31 */
};

static inline __m512 block512_half(const uint8_t *at) {
    int16_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(bits));
}

/* 32 nibbles in 16 bytes, the low ones first, and the number that each value of a nibble stands for: a table
 * look-up replaces conversion, product and sum of each element. */
struct table512 {
    const uint8_t *nibbles;
    __m512 values;
};

static inline struct block512 block512_nibbles(struct table512 table) {
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)table.nibbles));
    return (struct block512){_mm512_permutexvar_ps(bytes, table.values),
                             _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table.values)};
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

static inline __m512 block512_scaled(const uint8_t *half, int scale) {
    return _mm512_mul_ps(block512_half(half), _mm512_set1_ps((float)scale));
}

/* 16 bytes, shifted down by a constant. */
static inline __attribute__((always_inline)) __m512i block512_codes(const uint8_t *at, const int shift,
                                                                    int mask) {
    __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
    return _mm512_and_si512(_mm512_srli_epi32(codes, (unsigned)shift), _mm512_set1_epi32(mask));
}

/* Bit `bit` of 32 bytes. */
static inline __attribute__((always_inline)) __mmask32 block512_bits(const uint8_t *at, const int bit) {
    return _mm256_test_epi8_mask(_mm256_loadu_si256((const __m256i *)at), _mm256_set1_epi8((char)(1 << bit)));
}

static inline __m512 block512_bytes(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

static inline struct table512 block512_levels(const uint8_t *nibbles, const int8_t levels[16], __m512 d) {
    __m512 values = block512_bytes(_mm_loadu_si128((const __m128i *)(const void *)levels));
    return (struct table512){nibbles, _mm512_mul_ps(d, values)};
}

static inline bool block512_has_table(enum dtype dtype) {
    return dtype == DTYPE_Q4_0 || dtype == DTYPE_Q4_1 || dtype == DTYPE_IQ4_NL || dtype == DTYPE_IQ4_XS ||
           dtype == DTYPE_MXFP4;
}

/* Group `group` of 32 numbers of a block of a type that has one. */
static inline __attribute__((always_inline)) struct table512
block512_table(const uint8_t *at, enum dtype dtype, const int group) {
    switch (dtype) {
    case DTYPE_IQ4_NL: return block512_levels(at + 2, block_nonlinear, block512_half(at));
    case DTYPE_IQ4_XS:
        return block512_levels(at + 8 + 16 * group, block_nonlinear,
                               block512_scaled(at, block_iq4_xs_scale(at, group)));
    case DTYPE_MXFP4:
        return block512_levels(at + 1, block_e2m1_doubled, _mm512_set1_ps(block_mxfp4_scale(*at)));
    case DTYPE_Q4_0: return (struct table512){at + 2, _mm512_mul_ps(block512_count(-8), block512_half(at))};
    default: /* Q4_1 */
        return (struct table512){at + 4, _mm512_add_ps(_mm512_mul_ps(block512_count(0), block512_half(at)),
                                                       block512_half(at + 2))};
    }
}

/* Group `g` of 32 of a block of 256 (layouts: tensor/rowcodec_k.c). */
static inline __attribute__((always_inline)) struct block512 block512_q2_k(const uint8_t *at, const int g) {
    const uint8_t *twos = at + 16 + 32 * (g / 4);
    __m512 w[2];
    for (int i = 0; i < 2; i++) {
        __m512 q = _mm512_cvtepi32_ps(block512_codes(twos + 16 * i, 2 * (g % 4), 3));
        w[i] = _mm512_sub_ps(_mm512_mul_ps(block512_scaled(at + 80, at[2 * g + i] & 15), q),
                             block512_scaled(at + 82, at[2 * g + i] >> 4));
    }
    return (struct block512){w[0], w[1]};
}

static inline __attribute__((always_inline)) struct block512 block512_q3_k(const uint8_t *at, const int g) {
    const uint8_t *twos = at + 32 + 32 * (g / 4);
    __mmask32 third = block512_bits(at, g);
    __m512 w[2];
    for (int i = 0; i < 2; i++) {
        __m512i q = block512_codes(twos + 16 * i, 2 * (g % 4), 3);
        q = _mm512_mask_sub_epi32(q, (__mmask16)(~third >> 16 * i), q, _mm512_set1_epi32(4));
        w[i] = _mm512_mul_ps(block512_scaled(at + 108, block_q3_k_scale(at + 96, 2 * g + i)),
                             _mm512_cvtepi32_ps(q));
    }
    return (struct block512){w[0], w[1]};
}

/* Q4_K and Q5_K. */
static inline __attribute__((always_inline)) struct block512 block512_affine_k(const uint8_t *at, const int g,
                                                                               const bool fifth) {
    struct block_six six = block_six(at + 4, g);
    const uint8_t *nibbles = at + (fifth ? 48 : 16) + 32 * (g / 2);
    __m512 d = block512_scaled(at, six.scale), m = block512_scaled(at + 2, six.minimum), w[2];
    __mmask32 bits = fifth ? block512_bits(at + 16, g) : 0;
    for (int i = 0; i < 2; i++) {
        __m512i q = block512_codes(nibbles + 16 * i, 4 * (g % 2), 15);
        if (fifth) q = _mm512_mask_add_epi32(q, (__mmask16)(bits >> 16 * i), q, _mm512_set1_epi32(16));
        w[i] = _mm512_sub_ps(_mm512_mul_ps(d, _mm512_cvtepi32_ps(q)), m);
    }
    return (struct block512){w[0], w[1]};
}

static inline __attribute__((always_inline)) struct block512 block512_q6_k(const uint8_t *at, const int g) {
    const uint8_t *nibbles = at + 64 * (g / 4) + 32 * (g % 2), *twos = at + 128 + 32 * (g / 4);
    __m512 w[2];
    for (int i = 0; i < 2; i++) {
        __m512i low = block512_codes(nibbles + 16 * i, g % 4 / 2 * 4, 15);
        __m512i q = _mm512_or_si512(low, _mm512_slli_epi32(block512_codes(twos + 16 * i, 2 * (g % 4), 3), 4));
        w[i] = _mm512_mul_ps(block512_scaled(at + 208, (int8_t)at[192 + 2 * g + i]),
                             _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(32))));
    }
    return (struct block512){w[0], w[1]};
}

/* Group `group` of 32 numbers of a block of any type. It and `dtype` are constants where this is called, so
 * that one case remains. */
static inline __attribute__((always_inline)) struct block512
block512_load(const uint8_t *at, enum dtype dtype, const int group) {
    if (block512_has_table(dtype)) return block512_nibbles(block512_table(at, dtype, group));
    switch (dtype) {
    case DTYPE_Q2_K: return block512_q2_k(at, group);
    case DTYPE_Q3_K: return block512_q3_k(at, group);
    case DTYPE_Q4_K: return block512_affine_k(at, group, false);
    case DTYPE_Q5_K: return block512_affine_k(at, group, true);
    case DTYPE_Q6_K: return block512_q6_k(at, group);
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
