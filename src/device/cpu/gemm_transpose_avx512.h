/* Sixteen rows of 32-bit units turned into columns, sixteen steps at a time. */
#ifndef HONE_DEVICE_CPU_GEMM_TRANSPOSE_AVX512_H
#define HONE_DEVICE_CPU_GEMM_TRANSPOSE_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* Row r of the four that are returned holds units 0..3 of rows r, r + 4, r + 8, r + 12. */
static inline __m512i gather_quads(const uint32_t *from, int64_t stride) {
    __m512i z = _mm512_castsi128_si512(_mm_loadu_si128((const void *)from));
    z = _mm512_inserti32x4(z, _mm_loadu_si128((const void *)(from + 4 * stride)), 1);
    z = _mm512_inserti32x4(z, _mm_loadu_si128((const void *)(from + 8 * stride)), 2);
    return _mm512_inserti32x4(z, _mm_loadu_si128((const void *)(from + 12 * stride)), 3);
}

static void transpose_512(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride,
                          int64_t count) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        __m512i a = gather_quads(from + i, stride), b = gather_quads(from + i + stride, stride);
        __m512i c = gather_quads(from + i + 2 * stride, stride),
                d = gather_quads(from + i + 3 * stride, stride);
        __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
        _mm512_storeu_si512(to + i * to_stride, _mm512_unpacklo_epi64(ab, cd));
        _mm512_storeu_si512(to + (i + 1) * to_stride, _mm512_unpackhi_epi64(ab, cd));
        ab = _mm512_unpackhi_epi32(a, b);
        cd = _mm512_unpackhi_epi32(c, d);
        _mm512_storeu_si512(to + (i + 2) * to_stride, _mm512_unpacklo_epi64(ab, cd));
        _mm512_storeu_si512(to + (i + 3) * to_stride, _mm512_unpackhi_epi64(ab, cd));
    }
    for (; i < count; i++)
        for (int j = 0; j < 16; j++) memcpy(to + i * to_stride + j, from + j * stride + i, sizeof *to);
}

#endif
