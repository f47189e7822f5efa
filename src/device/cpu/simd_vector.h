/* Vectors of f32 for kernels that are written once and compiled per instruction set: a *_body.h holds the
 * kernel, and elementwise.c, elementwise_avx2.c, elementwise_avx512.c … include it, each compiled with its
 * own flags. Without such flags a vector has 4 lanes, which SSE2 and NEON have too.
 *
 * The types are the compiler's vector types (GCC and clang), so + - * / and comparisons are written as
 * such; functions stand only for what they cannot say. Results depend on `lanes` through the order of
 * sums, never on the thread count. */
#ifndef HONE_DEVICE_CPU_SIMD_VECTOR_H
#define HONE_DEVICE_CPU_SIMD_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

#if defined(__AVX512F__)
#include <immintrin.h>
enum { lanes = 16 };
#elif defined(__AVX2__)
#include <immintrin.h>
enum { lanes = 8 };
#else
enum { lanes = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * lanes)));
typedef int32_t vi __attribute__((vector_size(4 * lanes)));
typedef uint32_t vu __attribute__((vector_size(4 * lanes)));
typedef uint16_t vh __attribute__((vector_size(2 * lanes)));
typedef float vf_half __attribute__((vector_size(2 * lanes)));
typedef double vd __attribute__((vector_size(4 * lanes))); /* lanes / 2 of them */

static inline vf v_splat(float x) { return x - (vf){0}; }
static inline vu vu_splat(uint32_t x) { return x + (vu){0}; }

static inline vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

/* A number of memory in all lanes of a register that several products read: as an operand of each, which the
 * compiler would make of it, the loads would take longer than the products. */
static inline vf v_broadcast(const float *p) {
    vf v = v_splat(*p);
#if defined(__AVX512F__)
    __asm__("" : "+v"(v));
#endif
    return v;
}

/* a · b + c, rounded once where the CPU can. */
static inline vf v_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

/* mask ? a : b; mask lanes are all ones or all zeros. */
static inline vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* The larger and the smaller; b where one is NaN. */
static inline vf v_max(vf a, vf b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return v_select(a > b, a, b);
#endif
}

static inline vf v_min(vf a, vf b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#else
    return v_select(a < b, a, b);
#endif
}

static inline vf v_sqrt(vf x) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#else
    for (int i = 0; i < lanes; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* Lanes folded in halves: the same order for every caller. */
static inline float v_sum(vf x) {
#if defined(__AVX512F__)
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__)
    __m256 y = x;
#endif
#if defined(__AVX2__)
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
#else
    return (x[0] + x[2]) + (x[1] + x[3]);
#endif
}

static inline float v_most(vf x) {
#if defined(__AVX512F__)
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__)
    __m256 y = x;
#endif
#if defined(__AVX2__)
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
#else
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
#endif
}

/* 0, 1, 2 … */
static inline vi v_iota(void) {
    vi v;
    for (int i = 0; i < lanes; i++) v[i] = i;
    return v;
}

/* eˣ to 2 units in the last place; 0 below -87.33 (where the result would be denormal), infinity above 88.73,
 * without AVX-512 above 88.37; NaN for NaN. x = n ln 2 + r with |r| <= 0.3475; eʳ = 1 + r + r² p(r), where p
 * of degree 4 has the least relative error (Lawson's iteration): 4e-9, in f32 coefficients. */
static inline vf v_exp(vf x) {
    const vf magic = v_splat(0x1.8p23f); /* adding it rounds to an integer, which then lies in the low bits */
    const vf floor = v_splat(-87.33f);
    vf clamped = v_min(v_splat(89.0f), x);
#if !defined(__AVX512F__)
    clamped = v_max(floor, clamped);
#endif
    vf shifted = v_fma(clamped, v_splat(0x1.715476p0f), magic);
    vf n = shifted - magic;
    vf r = v_fma(n, v_splat(-0x1.62e400p-1f), clamped); /* ln 2 in two parts: */
    r = v_fma(n, v_splat(-0x1.7f7d1cp-20f), r);         /* the first has 17 bits, so n times it is exact */
    vf sum = v_splat(0x1.6a21acp-10f);
    sum = v_fma(sum, r, v_splat(0x1.123b6ap-7f));
    sum = v_fma(sum, r, v_splat(0x1.5558fap-5f));
    sum = v_fma(sum, r, v_splat(0x1.55549p-3f));
    sum = v_fma(sum, r, v_splat(0x1.fffffcp-2f));
    sum = v_fma(sum, r, v_splat(1.0f));
    sum = v_fma(sum, r, v_splat(1.0f));
#if defined(__AVX512F__)
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, floor, _CMP_NLT_UQ), sum, n);
#else
    vf power = (vf)(((vu)shifted + 127u) << 23); /* the magic number's own low bits are zero and shift out */
    return (vf)(~(vi)(x < floor) & (vi)(sum * power));
#endif
}

/* 1 / (1 + e⁻ˣ) */
static inline vf v_sigmoid(vf x) { return v_splat(1.0f) / (v_splat(1.0f) + v_exp(-x)); }

static inline vf v_from_bf16(vh bits) {
#if defined(__AVX512F__)
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#elif defined(__AVX2__)
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
#else
    return (vf)(__builtin_convertvector(bits, vu) << 16);
#endif
}

/* Round to nearest, ties to even; NaN stays NaN: the bits of f32_to_bf16. */
static inline vh v_to_bf16(vf x) {
    vu u = (vu)x;
    vu rounded = u + 0x7fffu + (u >> 16 & 1u);
#if defined(__AVX512F__)
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512i r = _mm512_mask_or_epi32((__m512i)rounded, nan, (__m512i)u, _mm512_set1_epi32(0x400000));
    return (vh)_mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
#elif defined(__AVX2__)
    __m256 r = _mm256_blendv_ps((__m256)rounded, (__m256)(u | 0x400000u), _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i high = _mm256_srli_epi32((__m256i)r, 16);
    return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08));
#else
    vu nan = (vu)(x != x);
    return __builtin_convertvector((nan & (u >> 16 | 0x40u)) | (~nan & rounded >> 16), vh);
#endif
}

static inline vf v_from_f16(vh bits) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps((__m256i)bits);
#elif defined(__AVX2__)
    return _mm256_cvtph_ps((__m128i)bits);
#else
    vf x;
    for (int i = 0; i < lanes; i++) x[i] = f16_to_f32(bits[i]);
    return x;
#endif
}

/* The bits of f32_to_f16. */
static inline vh v_to_f16(vf x) {
#if defined(__AVX512F__)
    return (vh)_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return (vh)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vh bits;
    for (int i = 0; i < lanes; i++) bits[i] = f32_to_f16(x[i]);
    return bits;
#endif
}

/* Bytes of one activation. */
static inline int64_t v_bytes(enum dtype dtype) { return dtype == DTYPE_F32 ? 4 : 2; }

/* Up to `lanes` activations at element `at` of a row of f32, bf16 or f16; lanes from `count` on are 0 and
 * nothing there is read. */
static inline vf v_read(const void *row, enum dtype dtype, int64_t at, int64_t count) {
    if (dtype != DTYPE_F32) {
        vh bits = {0};
        const uint16_t *p = (const uint16_t *)row + at;
        if (count >= lanes)
            memcpy(&bits, p, sizeof bits);
        else
            memcpy(&bits, p, (size_t)count * 2);
        return dtype == DTYPE_F16 ? v_from_f16(bits) : v_from_bf16(bits);
    }
    const float *p = (const float *)row + at;
    if (count >= lanes) return v_load(p);
    vf v = {0};
    memcpy(&v, p, (size_t)count * 4);
    return v;
}

static inline void v_write(void *row, enum dtype dtype, int64_t at, int64_t count, vf x) {
    if (dtype != DTYPE_F32) {
        vh bits = dtype == DTYPE_F16 ? v_to_f16(x) : v_to_bf16(x);
        uint16_t *p = (uint16_t *)row + at;
        if (count >= lanes)
            memcpy(p, &bits, sizeof bits);
        else
            memcpy(p, &bits, (size_t)count * 2);
        return;
    }
    float *p = (float *)row + at;
    if (count >= lanes)
        v_store(p, x);
    else
        memcpy(p, &x, (size_t)count * 4);
}

/* High and low words of 32 × 32 bit products. */
static inline void v_multiply_wide(vu a, uint32_t factor, vu *high, vu *low) {
#if defined(__AVX512F__)
    __m512i f = _mm512_set1_epi32((int)factor), even = _mm512_mul_epu32((__m512i)a, f);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), f);
    *high = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *low = (vu)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(__AVX2__)
    __m256i f = _mm256_set1_epi32((int)factor), even = _mm256_mul_epu32((__m256i)a, f);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), f);
    *high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    for (int i = 0; i < lanes; i++) {
        uint64_t product = (uint64_t)a[i] * factor;
        (*high)[i] = (uint32_t)(product >> 32);
        (*low)[i] = (uint32_t)product;
    }
#endif
}

#endif
