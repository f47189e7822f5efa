#if defined(__x86_64__)
#include "device/cpu/block_avx512.h"
#include "device/cpu/row.h"

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
