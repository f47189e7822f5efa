#if defined(__x86_64__)
#include "device/cpu/block_avx512.h"
#include "device/cpu/row.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

typedef float row_number;

static inline void row_rest(float *out, const uint8_t *at, enum dtype dtype, int64_t elements) {
    rowcodec(dtype)->decode(at, out, elements);
}

static inline __attribute__((always_inline)) void row_block(float *out, const uint8_t *at,
                                                            const enum dtype dtype, int group) {
    struct block512 block = block512_load(at, dtype, group);
    _mm512_storeu_ps(out, block.low);
    _mm512_storeu_ps(out + 16, block.high);
}

#include "device/cpu/row_load_body.h"

void row_load_avx512(float *out, const void *source, enum dtype dtype, int64_t elements) {
    load_row(out, source, dtype, elements);
}

typedef __m512 stored_table;

static inline __m512 table_scaled(const float levels[16], float scale) {
    return _mm512_mul_ps(_mm512_loadu_ps(levels), _mm512_set1_ps(scale));
}

/* Only four bits of an index count. */
static inline void sixteen_levels(float *out, const uint8_t *codes, bool low_first, const __m512 *table) {
    __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)codes), high_ones = _mm_srli_epi16(two, 4);
    __m128i order = low_first ? _mm_unpacklo_epi8(two, high_ones) : _mm_unpacklo_epi8(high_ones, two);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(order), *table));
}

static inline void sixteen_bytes(float *out, const uint8_t *codes, float scale) {
    __m512 q = block512_bytes(_mm_loadu_si128((const __m128i *)(const void *)codes));
    q = _mm512_mul_ps(q, _mm512_set1_ps(scale));
    _mm512_storeu_ps(out, _mm512_mul_ps(q, _mm512_set1_ps(stored_int8_unit)));
}

/* Each code lies in two neighbouring bytes, which become its 16 bits and are shifted down. */
static inline __attribute__((always_inline)) void sixteen_affine(float *out, const uint8_t *codes,
                                                                 const int bits, float scale, float offset) {
    _Alignas(32) uint8_t pick[32];
    _Alignas(32) uint16_t shift[16];
    for (int i = 0; i < 16; i++) {
        pick[2 * i] = (uint8_t)(i * bits / 8);
        pick[2 * i + 1] = (uint8_t)(i * bits / 8 + 1); /* past the last byte: zeros, or of no weight */
        shift[i] = (uint16_t)(i * bits % 8);
    }
    __m128i bytes = _mm_maskz_loadu_epi8((__mmask16)((1u << 2 * bits) - 1), codes);
    __m256i both = _mm256_broadcastsi128_si256(bytes);
    __m256i pairs = _mm256_shuffle_epi8(both, _mm256_load_si256((const __m256i *)(const void *)pick));
    pairs = _mm256_srlv_epi16(pairs, _mm256_load_si256((const __m256i *)(const void *)shift));
    pairs = _mm256_and_si256(pairs, _mm256_set1_epi16((short)((1 << bits) - 1)));
    __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(pairs));
    q = _mm512_mul_ps(_mm512_set1_ps(scale), q);
    _mm512_storeu_ps(out, _mm512_add_ps(q, _mm512_set1_ps(offset)));
}

#include "device/cpu/row_stored_body.h"

void stored_load_avx512(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count) {
    load_stored(out, stored, row, column, count);
}

/* Sixteen f32 as bf16: to nearest, ties to even, in integers: the instruction of AVX512_BF16 would flush
 * subnormals. */
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

static void store_bf16(uint16_t *to, const float *source, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 16) {
        __mmask16 mask = _cvtu32_mask16(elements - i >= 16 ? 0xffffu : (1u << (elements - i)) - 1u);
        _mm256_mask_storeu_epi16(to + i, mask, bf16_rounded(_mm512_maskz_loadu_ps(mask, source + i)));
    }
}

static void store_f16(uint16_t *to, const float *source, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 16) {
        __mmask16 mask = _cvtu32_mask16(elements - i >= 16 ? 0xffffu : (1u << (elements - i)) - 1u);
        __m512 x = _mm512_maskz_loadu_ps(mask, source + i);
        _mm256_mask_storeu_epi16(to + i, mask, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

void row_store_avx512(void *out, const float *source, enum dtype dtype, int64_t elements) {
    (dtype == DTYPE_F16 ? store_f16 : store_bf16)(out, source, elements);
}
#endif
