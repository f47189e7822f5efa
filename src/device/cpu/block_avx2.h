/* 32 stored numbers as four vectors of 8 f32, exactly as tensor/rowcodec.h decodes them: product
 * and sum are rounded separately. Blocks may lie at any address. */
#ifndef HONE_DEVICE_CPU_BLOCK_AVX2_H
#define HONE_DEVICE_CPU_BLOCK_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "tensor/block_scales.h"
#include "tensor/dtype.h"

struct block256 {
    __m256 part[4];
};

static inline __m256 block256_half(const uint8_t *at) {
    int16_t bits;
    memcpy(&bits, at, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
}

/* w = d (q - zero) + m for 32 bytes q. */
static inline __attribute__((always_inline)) struct block256 block256_bytes(__m256i q, __m256 d,
                                                                            const __m256 *m) {
    __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
    __m128i parts[4] = {low, _mm_srli_si128(low, 8), high, _mm_srli_si128(high, 8)};
    struct block256 out;
    for (int i = 0; i < 4; i++) {
        out.part[i] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(parts[i])));
        if (m) out.part[i] = _mm256_add_ps(out.part[i], *m);
    }
    return out;
}

static inline __m256i block256_nibbles(const uint8_t *at) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)at), mask = _mm_set1_epi8(15);
    return _mm256_set_m128i(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask), _mm_and_si128(bytes, mask));
}

/* 16 in each byte whose bit is set. */
static inline __m256i block256_fifths(const uint8_t *at) {
    int bits;
    memcpy(&bits, at, sizeof bits);
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16));
}

static inline __m256 block256_scaled(const uint8_t *half, int scale) {
    return _mm256_mul_ps(block256_half(half), _mm256_set1_ps((float)scale));
}

/* 32 bytes, shifted down by a constant. */
static inline __attribute__((always_inline)) __m256i block256_codes(const uint8_t *at, const int shift,
                                                                    int mask) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)at);
    return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8((char)mask));
}

/* `value` in each of 32 bytes whose bit `bit` is set. */
static inline __attribute__((always_inline)) __m256i block256_bit(const uint8_t *at, const int bit,
                                                                  char value) {
    __m256i one = _mm256_set1_epi8((char)(1 << bit)), bytes = _mm256_loadu_si256((const __m256i *)at);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, one), one), _mm256_set1_epi8(value));
}

/* w = d q - m; each half of the 32 has its own d and m (NULL: none). */
static inline __attribute__((always_inline)) struct block256 block256_halves(__m256i q, const __m256 d[2],
                                                                             const __m256 *m) {
    __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
    __m128i parts[4] = {low, _mm_srli_si128(low, 8), high, _mm_srli_si128(high, 8)};
    struct block256 out;
    for (int i = 0; i < 4; i++) {
        out.part[i] = _mm256_mul_ps(d[i / 2], _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(parts[i])));
        if (m) out.part[i] = _mm256_sub_ps(out.part[i], m[i / 2]);
    }
    return out;
}

static inline struct block256 block256_levels(const uint8_t *at, const int8_t levels[16], __m256 d) {
    __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)levels));
    return block256_bytes(_mm256_shuffle_epi8(table, block256_nibbles(at)), d, NULL);
}

/* Group `g` of 32 of a block of 256 (layouts: tensor/rowcodec_k.c). */
static inline __attribute__((always_inline)) struct block256 block256_q2_k(const uint8_t *at, const int g) {
    __m256 d[2], m[2];
    for (int i = 0; i < 2; i++) {
        d[i] = block256_scaled(at + 80, at[2 * g + i] & 15);
        m[i] = block256_scaled(at + 82, at[2 * g + i] >> 4);
    }
    return block256_halves(block256_codes(at + 16 + 32 * (g / 4), 2 * (g % 4), 3), d, m);
}

static inline __attribute__((always_inline)) struct block256 block256_q3_k(const uint8_t *at, const int g) {
    __m256 d[2];
    for (int i = 0; i < 2; i++) d[i] = block256_scaled(at + 108, block_q3_k_scale(at + 96, 2 * g + i));
    __m256i q =
        _mm256_or_si256(block256_codes(at + 32 + 32 * (g / 4), 2 * (g % 4), 3), block256_bit(at, g, 4));
    return block256_halves(_mm256_sub_epi8(q, _mm256_set1_epi8(4)), d, NULL);
}

/* Q4_K and Q5_K. */
static inline __attribute__((always_inline)) struct block256 block256_affine_k(const uint8_t *at, const int g,
                                                                               const bool fifth) {
    struct block_six six = block_six(at + 4, g);
    __m256 d = block256_scaled(at, six.scale), m = block256_scaled(at + 2, six.minimum);
    __m256i q = block256_codes(at + (fifth ? 48 : 16) + 32 * (g / 2), 4 * (g % 2), 15);
    if (fifth) q = _mm256_or_si256(q, block256_bit(at + 16, g, 16));
    return block256_halves(q, (const __m256[2]){d, d}, (const __m256[2]){m, m});
}

static inline __attribute__((always_inline)) struct block256 block256_q6_k(const uint8_t *at, const int g) {
    __m256 d[2];
    for (int i = 0; i < 2; i++) d[i] = block256_scaled(at + 208, (int8_t)at[192 + 2 * g + i]);
    __m256i q = block256_codes(at + 64 * (g / 4) + 32 * (g % 2), g % 4 / 2 * 4, 15);
    __m256i twos = block256_codes(at + 128 + 32 * (g / 4), 2 * (g % 4), 3);
    q = _mm256_or_si256(q, _mm256_slli_epi16(twos, 4));
    return block256_halves(_mm256_sub_epi8(q, _mm256_set1_epi8(32)), d, NULL);
}

/* Group `group` of 32 numbers of a block. It and `dtype` are constants where this is called, so that one case
 * remains. */
static inline __attribute__((always_inline)) struct block256
block256_load(const uint8_t *at, enum dtype dtype, const int group) {
    struct block256 out;
    __m256 m;
    switch (dtype) {
    case DTYPE_Q2_K: return block256_q2_k(at, group);
    case DTYPE_Q3_K: return block256_q3_k(at, group);
    case DTYPE_Q4_K: return block256_affine_k(at, group, false);
    case DTYPE_Q5_K: return block256_affine_k(at, group, true);
    case DTYPE_Q6_K: return block256_q6_k(at, group);
    case DTYPE_IQ4_NL: return block256_levels(at + 2, block_nonlinear, block256_half(at));
    case DTYPE_IQ4_XS:
        return block256_levels(at + 8 + 16 * group, block_nonlinear,
                               block256_scaled(at, block_iq4_xs_scale(at, group)));
    case DTYPE_MXFP4:
        return block256_levels(at + 1, block_e2m1_doubled, _mm256_set1_ps(block_mxfp4_scale(*at)));
    case DTYPE_Q4_0:
        return block256_bytes(_mm256_sub_epi8(block256_nibbles(at + 2), _mm256_set1_epi8(8)),
                              block256_half(at), NULL);
    case DTYPE_Q4_1:
        m = block256_half(at + 2);
        return block256_bytes(block256_nibbles(at + 4), block256_half(at), &m);
    case DTYPE_Q5_0: {
        __m256i q = _mm256_or_si256(block256_nibbles(at + 6), block256_fifths(at + 2));
        return block256_bytes(_mm256_sub_epi8(q, _mm256_set1_epi8(16)), block256_half(at), NULL);
    }
    case DTYPE_Q5_1:
        m = block256_half(at + 2);
        return block256_bytes(_mm256_or_si256(block256_nibbles(at + 8), block256_fifths(at + 4)),
                              block256_half(at), &m);
    case DTYPE_Q8_0:
        return block256_bytes(_mm256_loadu_si256((const __m256i *)(at + 2)), block256_half(at), NULL);
    case DTYPE_F16:
        for (int i = 0; i < 4; i++)
            out.part[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 16 * i)));
        return out;
    case DTYPE_BF16:
        for (int i = 0; i < 4; i++)
            out.part[i] = _mm256_castsi256_ps(_mm256_slli_epi32(
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(at + 16 * i))), 16));
        return out;
    default:
        for (int i = 0; i < 4; i++) out.part[i] = _mm256_loadu_ps((const float *)(const void *)(at + 32 * i));
        return out;
    }
}

#endif
