/* One block of 32 stored numbers as four vectors of 8 f32, exactly as tensor/rowcodec.h decodes them: product
 * and sum are rounded separately. Blocks may lie at any address. */
#ifndef HONE_DEVICE_CPU_BLOCK_AVX2_H
#define HONE_DEVICE_CPU_BLOCK_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

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

/* `dtype` is a constant where this is called, so that one case remains. */
static inline __attribute__((always_inline)) struct block256 block256_load(const uint8_t *at,
                                                                           enum dtype dtype) {
    struct block256 out;
    __m256 m;
    switch (dtype) {
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
