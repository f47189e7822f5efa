/* Few rows of x against rows of Q4_0 and Q4_1 with AVX-512: the integers of gemm_few_ints.h, of four
 * neighbouring blocks at once. x is cut into bytes, x ≈ s · (256 high + low), so that it is multiplied with
 * the weights' bytes as they lie and none has to be widened:
 *
 *   Σ q x = Σ q low + 256 Σ q high     per block, exact in 32 bits
 *
 * A vector has four lanes for each of the four blocks; what a block's head is multiplied by stands in the
 * same lanes. Rows of w are read by plain loads from end to end, which a processor's prefetching follows (it
 * did not follow masked ones). */
#ifndef HONE_DEVICE_CPU_GEMM_FEW_QUADS_H
#define HONE_DEVICE_CPU_GEMM_FEW_QUADS_H

#include "device/cpu/gemm_few_ints.h"

/* Four blocks of w: their first 64 bytes, and what is beyond. */
struct quad_bytes {
    __m512i first, rest;
};

static inline __attribute__((always_inline)) struct quad_bytes quad_whole(const uint8_t *at,
                                                                          const enum dtype dtype) {
    const __m128i *beyond = (const __m128i *)(const void *)(at + 64);
    __m128i rest = dtype == DTYPE_Q4_1 ? _mm_loadu_si128(beyond) : _mm_loadl_epi64(beyond);
    return (struct quad_bytes){_mm512_loadu_si512(at), _mm512_castsi128_si512(rest)};
}

/* Fewer than four blocks, the others of zeros. */
static inline struct quad_bytes quad_part(const uint8_t *at, int bytes) {
    __mmask32 mask = ((__mmask32)1 << bytes / 2) - 1;
    return (struct quad_bytes){_mm512_maskz_loadu_epi16(mask, at), _mm512_setzero_si512()};
}

/* The 16 bytes of each block that hold its 32 weights. */
static inline __attribute__((always_inline)) __m512i quad_codes(struct quad_bytes w, const enum dtype dtype) {
    if (dtype == DTYPE_Q4_1) {
        const __m512i at = _mm512_setr_epi32(1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19);
        return _mm512_permutex2var_epi32(w.first, at, w.rest);
    }
    const __m512i at = _mm512_set_epi16(35, 34, 33, 32, 31, 30, 29, 28, 26, 25, 24, 23, 22, 21, 20, 19, 17,
                                        16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4, 3, 2, 1);
    return _mm512_permutex2var_epi16(w.first, at, w.rest);
}

/* Four lanes for each block: d, m, d, m, or d four times where there is no m. */
static inline __attribute__((always_inline)) __m512 quad_heads(struct quad_bytes w, const enum dtype dtype) {
    __m512i heads;
    if (dtype == DTYPE_Q4_1)
        heads = _mm512_permutexvar_epi32(
            _mm512_setr_epi32(0, 0, 5, 5, 10, 10, 15, 15, 0, 0, 0, 0, 0, 0, 0, 0), w.first);
    else
        heads = _mm512_permutexvar_epi16(_mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 27,
                                                          27, 27, 27, 18, 18, 18, 18, 9, 9, 9, 9, 0, 0, 0, 0),
                                         w.first);
    return _mm512_cvtph_ps(_mm512_castsi512_si256(heads));
}

/* The products of four blocks with one row's, added to its lanes. */
static inline __attribute__((always_inline)) __m512 quad_add(__m512i low, __m512i high, __m512 heads,
                                                             const struct gemm_quad *x,
                                                             const enum dtype dtype, __m512 lanes) {
    const __m512i one = _mm512_set1_epi16(1), upper = _mm512_set1_epi16(256);
    __m512i x0 = _mm512_loadu_si512(x->low[0]), x1 = _mm512_loadu_si512(x->low[1]),
            x2 = _mm512_loadu_si512(x->high[0]), x3 = _mm512_loadu_si512(x->high[1]);
    __m512i less = _mm512_add_epi16(_mm512_maddubs_epi16(x0, low), _mm512_maddubs_epi16(x1, high)),
            more = _mm512_add_epi16(_mm512_maddubs_epi16(low, x2), _mm512_maddubs_epi16(high, x3)),
            sum = _mm512_add_epi32(_mm512_madd_epi16(less, one), _mm512_madd_epi16(more, upper));
    __m512 scale = _mm512_mul_ps(heads, _mm512_loadu_ps(x->factors));
    lanes = dtype == DTYPE_Q4_1
                ? _mm512_mask_add_ps(lanes, 0xaaaa, lanes, scale)
                : _mm512_mask3_fnmadd_ps(scale, _mm512_set1_ps(8), lanes, 0xaaaa); /* the zero of Q4_0 */
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_moveldup_ps(scale), lanes);
}

static inline __attribute__((always_inline)) void quad_step(const struct quad_bytes *w,
                                                            const struct gemm_quad *x, const int x_rows,
                                                            const int beside, const enum dtype dtype,
                                                            __m512 (*lanes)[8]) {
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int s = 0; s < beside; s++) {
        __m512i codes = quad_codes(w[s], dtype), low = _mm512_and_si512(codes, nibble),
                high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
        __m512 heads = quad_heads(w[s], dtype);
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) lanes[s][i] = quad_add(low, high, heads, x + i, dtype, lanes[s][i]);
    }
}

/* As `dots` of gemm_few_body.h. */
static inline __attribute__((always_inline)) void quads_dots(const struct gemm_few *few, int64_t row,
                                                             int64_t apart, const int x_rows,
                                                             const int beside, const enum dtype dtype,
                                                             const int bytes, float *sums) {
    const int64_t step = apart * (int64_t)few->row_bytes;
    const uint8_t *at = few->w + (size_t)row * few->row_bytes;
    const struct gemm_quad *x = few->quads;
    struct quad_bytes w[4];
    __m512 lanes[4][8];
    int64_t blocks = few->k / 32;
#pragma GCC unroll 4
    for (int s = 0; s < beside; s++)
#pragma GCC unroll 8
        for (int i = 0; i < x_rows; i++) lanes[s][i] = _mm512_setzero_ps();
    for (; blocks >= 4; blocks -= 4, at += 4 * bytes, x += x_rows) {
#pragma GCC unroll 4
        for (int s = 0; s < beside; s++) w[s] = quad_whole(at + s * step, dtype);
        quad_step(w, x, x_rows, beside, dtype, lanes);
    }
    if (blocks) {
#pragma GCC unroll 4
        for (int s = 0; s < beside; s++) w[s] = quad_part(at + s * step, (int)blocks * bytes);
        quad_step(w, x, x_rows, beside, dtype, lanes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < x_rows; i++) {
        __m256 half[4];
        _Alignas(16) float totals[4];
#pragma GCC unroll 4
        for (int s = 0; s < beside; s++)
            half[s] =
                _mm256_add_ps(_mm512_castps512_ps256(lanes[s][i]), _mm512_extractf32x8_ps(lanes[s][i], 1));
        if (beside == 4) /* as sum_256 adds, for all at once */
            _mm_store_ps(totals, one_totals(half));
        else
            for (int s = 0; s < beside; s++) totals[s] = sum_256(half[s]);
#pragma GCC unroll 4
        for (int s = 0; s < beside; s++) sums[i * gemm_few_width + s * gemm_few_count] = totals[s];
    }
}

#define FEW_QUADS(name, dtype, bytes)                                                                        \
    static void few_##name(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count, \
                           float *sums) {                                                                    \
        switch (few->rows) {                                                                                 \
        case 1: FEW_STREAMS(quads_dots, 1, 4, dtype, bytes);                                                 \
        case 2: FEW_STREAMS(quads_dots, 2, 4, dtype, bytes);                                                 \
        case 4: FEW_STREAMS(quads_dots, 4, 4, dtype, bytes);                                                 \
        default: FEW_STREAMS(quads_dots, 8, 2, dtype, bytes);                                                \
        }                                                                                                    \
    }

/* See gemm_kernel.h: `round_quads`. */
static void few_round_quads(const struct gemm_few *few, struct gemm_quad *quads) {
    const int64_t blocks = few->k / 32;
    memset(quads, 0, (size_t)(gemm_ceil(blocks, 4) * few->rows) * sizeof *quads);
    for (int64_t b = 0; b < blocks; b++)
        for (int i = 0; i < few->rows; i++) {
            struct gemm_quad *quad = &quads[b / 4 * few->rows + i];
            const int64_t part = b % 4;
            int16_t ints[32];
            float *factors = quad->factors + 4 * part;
            ints_round_block(few->x + i * few->ldx + 32 * b, ints, factors, factors + 1);
            factors[2] = factors[0];
            for (int half = 0; half < 2; half++) {
                __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(ints + 16 * half));
                _mm_storeu_si128((__m128i *)(void *)(quad->low[half] + 16 * part), _mm256_cvtepi16_epi8(v));
                _mm_storeu_si128((__m128i *)(void *)(quad->high[half] + 16 * part),
                                 _mm256_cvtepi16_epi8(_mm256_srai_epi16(v, 8)));
            }
        }
}

#endif
