#if defined(__x86_64__)
#include "device/cpu/block_avx512.h"
#include "device/cpu/block_types.h"
#include "device/cpu/row.h"
#include "tensor/rowcodec.h"

static inline __attribute__((always_inline)) void
load_blocks(float *out, const uint8_t *at, const enum dtype dtype, int64_t elements, int64_t bytes) {
    const int groups = block_groups(dtype), block_elements = 32 * groups;
    for (; elements >= block_elements; elements -= block_elements, out += block_elements, at += bytes)
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) {
            struct block512 block = block512_load(at, dtype, g);
            _mm512_storeu_ps(out + 32 * g, block.low);
            _mm512_storeu_ps(out + 32 * g + 16, block.high);
        }
    if (elements) rowcodec(dtype)->decode(at, out, elements);
}

#define LOAD_CASE(name, dtype, bytes) \
    case dtype: load_blocks(out, source, dtype, elements, bytes); break;

void row_load_avx512(float *out, const void *source, enum dtype dtype, int64_t elements) {
    switch (dtype) {
        BLOCK_TYPES(LOAD_CASE)
    default: rowcodec(dtype)->decode(source, out, elements);
    }
}

/* Round to nearest, ties to even, in integers: the instruction of AVX512_BF16 would flush subnormals. */
void row_store_avx512(void *out, const float *source, int64_t elements) {
    uint16_t *to = out;
    int64_t i = 0;
    for (; i < elements; i += 16) {
        __mmask16 mask = _cvtu32_mask16(elements - i >= 16 ? 0xffffu : (1u << (elements - i)) - 1u);
        __m512i bits = _mm512_maskz_loadu_epi32(mask, source + i);
        __m512i top = _mm512_srli_epi32(bits, 16);
        __mmask16 nan = _mm512_cmpgt_epu32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)),
                                                _mm512_set1_epi32(0x7f800000));
        __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
        __m512i rounded =
            _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
        rounded = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
        _mm256_mask_storeu_epi16(to + i, mask, _mm512_cvtepi32_epi16(rounded));
    }
}
#endif
