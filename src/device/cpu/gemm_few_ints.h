/* Few rows of x against rows of a type that is 32 small integers and a factor (w = d q + m or d (q - zero)).
 * x is rounded to 16-bit integers, one factor for each block of 32 (an error of at most 2^-16 of the block's
 * largest element), so that the sum of a block is two multiplications of sixteen pairs and exact:
 *
 *   Σ w x = Σ over blocks of  d s Σ q x + m s Σ x,    x ≈ s · integer
 *
 * Decoding each weight to f32 first takes twice the instructions, which is what bounded decoding.
 * Written in AVX2; included by each instruction set's file, so that it is compiled for it. */
#ifndef HONE_DEVICE_CPU_GEMM_FEW_INTS_H
#define HONE_DEVICE_CPU_GEMM_FEW_INTS_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "device/cpu/gemm_kernel.h"
#include "device/cpu/sum_avx2.h"

/* A stored block: elements 0..15 and 16..31 as they count before d, and its head: d, then m where there is
 * one. */
struct ints_block {
    __m256i low, high;
    __m128 head;
};

/* Streams that share each load of x: as many as registers have room for sums. */
#if defined(__AVX512VL__)
enum { ints_beside_2 = 4, ints_beside_4 = 4, ints_beside_8 = 2 };
#else
enum { ints_beside_2 = 2, ints_beside_4 = 2, ints_beside_8 = 1 };
#endif

enum ints_offset { OFFSET_NONE, OFFSET_ZERO, OFFSET_MINIMUM };

static inline __m128 ints_head(const uint8_t *at) {
    int bits;
    memcpy(&bits, at, sizeof bits);
    return _mm_cvtph_ps(_mm_cvtsi32_si128(bits));
}

static inline __m256i ints_widen(const uint8_t *at) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* 16 in each of sixteen elements whose bit is set. */
static inline __m256i ints_fifths(int bits) {
    const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192,
                                          16384, (short)0x8000);
    __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi16(16));
}

/* A block without its head. `dtype` is a constant where this is called, so that one case remains. */
static inline __attribute__((always_inline)) struct ints_block ints_codes(const uint8_t *at,
                                                                          enum dtype dtype) {
    struct ints_block block = {.head = _mm_setzero_ps()};
    if (dtype == DTYPE_Q8_0) {
        block.low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(at + 2)));
        block.high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(at + 18)));
        return block;
    }
    bool fives = dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1;
    int head = dtype == DTYPE_Q4_1 || dtype == DTYPE_Q5_1 ? 4 : 2, bits;
    __m256i bytes = ints_widen(at + head + (fives ? 4 : 0));
    block.low = _mm256_and_si256(bytes, _mm256_set1_epi16(15));
    block.high = _mm256_srli_epi16(bytes, 4);
    if (fives) {
        memcpy(&bits, at + head, sizeof bits);
        block.low = _mm256_or_si256(block.low, ints_fifths(bits));
        block.high = _mm256_or_si256(block.high, ints_fifths(bits >> 16));
    }
    return block;
}

/* What each row's factors are multiplied by: d for the first, m or d for the second. */
static inline __attribute__((always_inline)) __m256 ints_pairs(__m128 head, const int x_rows,
                                                               const enum ints_offset offset) {
    if (offset != OFFSET_MINIMUM) return _mm256_broadcastss_ps(head);
    if (x_rows == 1) return _mm256_castps128_ps256(head); /* one pair is wanted, and there it is */
    return _mm256_castpd_ps(_mm256_broadcastsd_pd(_mm_castps_pd(head)));
}

#include "device/cpu/gemm_few_one.h"

/* As `dots` of gemm_few_body.h. */
static inline __attribute__((always_inline)) void ints_dots(const struct gemm_few *few, int64_t row,
                                                            int64_t apart, const int x_rows, const int beside,
                                                            const enum dtype dtype, const int bytes,
                                                            const enum ints_offset offset, const float zero,
                                                            float *sums) {
    const int parts = (x_rows + 3) / 4;
    __m256 part[4][8], offsets[4][2];
    const uint8_t *w[4];
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++) {
        w[s] = few->w + (size_t)(row + s * apart) * few->row_bytes;
        for (int p = 0; p < parts; p++) offsets[s][p] = _mm256_setzero_ps();
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) part[s][i] = _mm256_setzero_ps();
    }
    const int16_t *x = few->ints;
    const float *factors = few->factors;
    for (int64_t b = 0; b < few->k / 32; b++, x += 32 * x_rows, factors += 8 * parts) {
        struct ints_block block[4];
        _Alignas(32) float scale[4][16];
#pragma GCC unroll 8
        for (int s = 0; s < beside; s++) {
            block[s] = ints_codes(w[s] + b * bytes, dtype);
            block[s].head = ints_head(w[s] + b * bytes);
            __m256 head = ints_pairs(block[s].head, x_rows, offset);
#pragma GCC unroll 8
            for (int p = 0; p < parts; p++) {
                __m256 product = _mm256_mul_ps(head, _mm256_loadu_ps(factors + 8 * p));
                _mm256_store_ps(scale[s] + 8 * p, product);
                if (offset != OFFSET_NONE) offsets[s][p] = _mm256_add_ps(offsets[s][p], product);
            }
            /* Kept in memory, a factor's broadcast is a part of its load; compilers would shuffle registers.
             */
            if (x_rows > 1) __asm__("" : "+m"(scale[s]));
        }
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) {
            const __m256i *at = (const __m256i *)(const void *)(x + 32 * i);
            __m256i low = _mm256_loadu_si256(at), high = _mm256_loadu_si256(at + 1);
            if (beside > 1) __asm__("" : "+v"(low), "+v"(high)); /* not loaded again for each stream */
#pragma GCC unroll 8
            for (int s = 0; s < beside; s++) {
                __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(block[s].low, low),
                                               _mm256_madd_epi16(block[s].high, high));
                part[s][i] =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale[s][2 * i]), part[s][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int s = 0; s < beside; s++) {
        float more[16];
        for (int p = 0; p < parts; p++) _mm256_storeu_ps(more + 8 * p, offsets[s][p]);
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) {
            float total = sum_256(part[s][i]), rest = more[2 * i + 1];
            sums[i * gemm_few_width + s * gemm_few_count] = offset == OFFSET_NONE   ? total
                                                            : offset == OFFSET_ZERO ? total - zero * rest
                                                                                    : total + rest;
        }
    }
}

#define FEW_INTS(name, dtype, bytes, offset, zero)                                                           \
    static void few_##name(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count, \
                           float *sums) {                                                                    \
        switch (few->rows) {                                                                                 \
        case 1:                                                                                              \
            if (streams == gemm_few_streams) {                                                               \
                for (int j = 0; j < count; j++) {                                                            \
                    few_fetch(few, first + j, apart, streams);                                               \
                    one_dots(few, first + j, apart, dtype, bytes, offset, zero, sums + j);                   \
                }                                                                                            \
                break;                                                                                       \
            }                                                                                                \
            FEW_STREAMS(ints_dots, 1, 1, dtype, bytes, offset, zero);                                        \
        case 2: FEW_STREAMS(ints_dots, 2, ints_beside_2, dtype, bytes, offset, zero);                        \
        case 4: FEW_STREAMS(ints_dots, 4, ints_beside_4, dtype, bytes, offset, zero);                        \
        default: FEW_STREAMS(ints_dots, 8, ints_beside_8, dtype, bytes, offset, zero);                       \
        }                                                                                                    \
    }
FEW_INTS(q5_0, DTYPE_Q5_0, 22, OFFSET_ZERO, 16)
FEW_INTS(q5_1, DTYPE_Q5_1, 24, OFFSET_MINIMUM, 0)
FEW_INTS(q8_0, DTYPE_Q8_0, 34, OFFSET_NONE, 0)

/* One block of x: its integers, its factor, and the factor times their sum. A block that holds NaN or
 * infinity gets the factor NaN; one of numbers below 1e-30 counts as zero. */
static inline void ints_round_block(const float *x, int16_t *ints, float *factor, float *sum) {
    __m256 v[4], most = _mm256_setzero_ps(), check = most;
    const __m256 size = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_loadu_ps(x + 8 * j);
        most = _mm256_max_ps(most, _mm256_and_ps(v[j], size));
        check = _mm256_add_ps(check, _mm256_mul_ps(v[j], _mm256_setzero_ps()));
    }
    most = _mm256_max_ps(most, _mm256_permute2f128_ps(most, most, 1));
    most = _mm256_max_ps(most, _mm256_permute_ps(most, 0x4e));
    most = _mm256_max_ps(most, _mm256_permute_ps(most, 0xb1));
    float largest = _mm256_cvtss_f32(most), up = largest > 1e-30f ? 32767 / largest : 0;
    for (int j = 0; j < 4; j++) v[j] = _mm256_mul_ps(v[j], _mm256_set1_ps(up));
    __m256i total = _mm256_setzero_si256();
    for (int j = 0; j < 4; j += 2) {
        __m256i pair = _mm256_packs_epi32(_mm256_cvtps_epi32(v[j]), _mm256_cvtps_epi32(v[j + 1]));
        pair = _mm256_permute4x64_epi64(pair, 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(ints + 8 * j), pair);
        total = _mm256_add_epi32(total, _mm256_madd_epi16(pair, _mm256_set1_epi16(1)));
    }
    bool finite = _mm256_movemask_ps(_mm256_cmp_ps(check, check, _CMP_UNORD_Q)) == 0;
    *factor = !finite ? NAN : up > 0 ? largest / 32767 : 0;
    *sum = *factor * sum_256(_mm256_cvtepi32_ps(total));
}

/* See gemm_kernel.h: `round`. */
static void few_round(const struct gemm_few *few, int16_t *ints, float *factors) {
    const int wide = (few->rows + 3) / 4 * 8;
    for (int64_t b = 0; b < few->k / 32; b++, factors += wide) {
        memset(factors, 0, (size_t)wide * sizeof *factors);
        for (int i = 0; i < few->rows; i++)
            ints_round_block(few->x + i * few->ldx + 32 * b, ints + (b * few->rows + i) * 32, factors + 2 * i,
                             factors + 2 * i + 1);
    }
}

#endif
