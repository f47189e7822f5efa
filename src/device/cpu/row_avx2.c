#if defined(__x86_64__)
#include "device/cpu/block_avx2.h"
#include "device/cpu/row.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

typedef float row_number;

static inline void row_rest(float *out, const uint8_t *at, enum dtype dtype, int64_t elements) {
    rowcodec(dtype)->decode(at, out, elements);
}

static inline __attribute__((always_inline)) void row_block(float *out, const uint8_t *at,
                                                            const enum dtype dtype, int group) {
    struct block256 block = block256_load(at, dtype, group);
    for (int i = 0; i < 4; i++) _mm256_storeu_ps(out + 8 * i, block.part[i]);
}

#include "device/cpu/row_load_body.h"

void row_load_avx2(float *out, const void *source, enum dtype dtype, int64_t elements) {
    load_row(out, source, dtype, elements);
}

typedef struct {
    __m256 low, high;
} stored_table;

static inline stored_table table_scaled(const float levels[16], float scale) {
    __m256 factor = _mm256_set1_ps(scale);
    return (stored_table){_mm256_mul_ps(_mm256_loadu_ps(levels), factor),
                          _mm256_mul_ps(_mm256_loadu_ps(levels + 8), factor)};
}

/* Three bits of an index choose in each half of the table, the fourth between them. */
static inline void sixteen_levels(float *out, const uint8_t *codes, bool low_first,
                                  const stored_table *table) {
    __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)codes), high_ones = _mm_srli_epi16(two, 4);
    __m128i order = low_first ? _mm_unpacklo_epi8(two, high_ones) : _mm_unpacklo_epi8(high_ones, two);
    for (int i = 0; i < 2; i++, order = _mm_srli_si128(order, 8)) {
        __m256i index = _mm256_cvtepu8_epi32(order);
        __m256 low = _mm256_permutevar8x32_ps(table->low, index),
               high = _mm256_permutevar8x32_ps(table->high, index);
        __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
        _mm256_storeu_ps(out + 8 * i, _mm256_blendv_ps(low, high, fourth));
    }
}

static inline void sixteen_bytes(float *out, const uint8_t *codes, float scale) {
    for (int i = 0; i < 16; i += 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
        __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        q = _mm256_mul_ps(q, _mm256_set1_ps(scale));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(q, _mm256_set1_ps(stored_int8_unit)));
    }
}

/* Each code lies in two neighbouring bytes, which become the low ones of its 32 bits and are shifted down. */
static inline __attribute__((always_inline)) void sixteen_affine(float *out, const uint8_t *codes,
                                                                 const int bits, float scale, float offset) {
    _Alignas(32) uint8_t pick[32];
    for (int i = 0; i < 8; i++) {
        pick[4 * i] = (uint8_t)(i * bits / 8);
        pick[4 * i + 1] = (uint8_t)(i * bits / 8 + 1); /* past the last byte: zeros, or of no weight */
        pick[4 * i + 2] = pick[4 * i + 3] = 0x80;      /* zero */
    }
    const __m256i shift = _mm256_and_si256(
        _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits)),
        _mm256_set1_epi32(7));
    for (int i = 0; i < 16; i += 8, codes += bits) {
        uint8_t eight[16] = {0};
        memcpy(eight, codes, (size_t)bits);
        __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)eight));
        __m256i q = _mm256_shuffle_epi8(both, _mm256_load_si256((const __m256i *)(const void *)pick));
        q = _mm256_and_si256(_mm256_srlv_epi32(q, shift), _mm256_set1_epi32((1 << bits) - 1));
        __m256 product = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(q));
        _mm256_storeu_ps(out + i, _mm256_add_ps(product, _mm256_set1_ps(offset)));
    }
}

#include "device/cpu/row_stored_body.h"

void stored_load_avx2(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count) {
    load_stored(out, stored, row, column, count);
}

/* Round to nearest, ties to even; NaN stays NaN. */
static void store_f16(uint16_t *to, const float *source, int64_t elements) {
    int64_t i = 0;
    for (; i + 8 <= elements; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < elements; i++) to[i] = f32_to_f16(source[i]);
}

static void store_bf16(uint16_t *to, const float *source, int64_t elements) {
    int64_t i = 0;
    for (; i + 8 <= elements; i += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(source + i));
        __m256i top = _mm256_srli_epi32(bits, 16);
        __m256i nan = _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)),
                                         _mm256_set1_epi32(0x7f800000));
        __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
        __m256i rounded =
            _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
        rounded = _mm256_blendv_epi8(rounded, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
        __m128i packed =
            _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
        _mm_storeu_si128((__m128i *)(void *)(to + i), packed);
    }
    for (; i < elements; i++) to[i] = f32_to_bf16(source[i]);
}

void row_store_avx2(void *out, const float *source, enum dtype dtype, int64_t elements) {
    (dtype == DTYPE_F16 ? store_f16 : store_bf16)(out, source, elements);
}
#endif
