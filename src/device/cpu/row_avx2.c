#if defined(__x86_64__)
#include "device/cpu/block_avx2.h"
#include "device/cpu/row.h"

static inline __attribute__((always_inline)) void row_block(float *out, const uint8_t *at,
                                                            const enum dtype dtype, int group) {
    struct block256 block = block256_load(at, dtype, group);
    for (int i = 0; i < 4; i++) _mm256_storeu_ps(out + 8 * i, block.part[i]);
}

#include "device/cpu/row_load_body.h"

void row_load_avx2(float *out, const void *source, enum dtype dtype, int64_t elements) {
    load_row(out, source, dtype, elements);
}

/* Round to nearest, ties to even; NaN stays NaN. */
void row_store_avx2(void *out, const float *source, int64_t elements) {
    uint16_t *to = out;
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
#endif
