#if defined(__x86_64__)
#include "device/cpu/block_avx2.h"
#include "device/cpu/block_types.h"
#include "device/cpu/row.h"
#include "tensor/rowcodec.h"

static inline __attribute__((always_inline)) void
load_blocks(float *out, const uint8_t *at, const enum dtype dtype, int64_t elements, int64_t bytes) {
    const int groups = block_groups(dtype), block_elements = 32 * groups;
    for (; elements >= block_elements; elements -= block_elements, out += block_elements, at += bytes)
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) {
            struct block256 block = block256_load(at, dtype, g);
            for (int i = 0; i < 4; i++) _mm256_storeu_ps(out + 32 * g + 8 * i, block.part[i]);
        }
    if (elements) rowcodec(dtype)->decode(at, out, elements);
}

#define LOAD_CASE(name, dtype, bytes) \
    case dtype: load_blocks(out, source, dtype, elements, bytes); break;

void row_load_avx2(float *out, const void *source, enum dtype dtype, int64_t elements) {
    switch (dtype) {
        BLOCK_TYPES(LOAD_CASE)
    default: rowcodec(dtype)->decode(source, out, elements);
    }
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
