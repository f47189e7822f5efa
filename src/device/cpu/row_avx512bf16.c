#if defined(__x86_64__)
/* Rows as the products of bf16 pairs want them. The instruction that rounds takes subnormals for zeros, as
 * those products do themselves. */
#include "device/cpu/block_avx512.h"
#include "device/cpu/row.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

typedef uint16_t row_number;

static void row_rest(uint16_t *out, const uint8_t *at, enum dtype dtype, int64_t elements) {
    enum { piece = 256 }; /* every type's blocks divide it */
    const struct dtype_row *row = dtype_row(dtype);
    float decoded[piece];
    for (int64_t i = 0; i < elements; i += piece) {
        int64_t some = elements - i < piece ? elements - i : piece;
        rowcodec(dtype)->decode(at + i / row->block * row->bytes, decoded, some);
        row_halves_avx512bf16(out + i, decoded, some);
    }
}

/* A table is rounded once a block instead of each number: the same bits. Only four bits of an index count. */
static inline __attribute__((always_inline)) void row_block(uint16_t *out, const uint8_t *at,
                                                            const enum dtype dtype, const int group) {
    if (block512_has_table(dtype)) {
        struct table512 table = block512_table(at, dtype, group);
        __m256i values = (__m256i)_mm512_cvtneps_pbh(table.values),
                bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)table.nibbles));
        _mm256_storeu_si256((__m256i *)out, _mm256_permutexvar_epi16(bytes, values));
        bytes = _mm256_srli_epi16(bytes, 4);
        _mm256_storeu_si256((__m256i *)(out + 16), _mm256_permutexvar_epi16(bytes, values));
        return;
    }
    struct block512 block = block512_load(at, dtype, group);
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(block.high, block.low));
}

#include "device/cpu/row_load_body.h"

/* As above; the high nibble is the first of two. */
static bool level_halves(uint16_t *out, const struct stored *s, int64_t first, int64_t count) {
    if (first % 16 || count % 16) return false;
    const uint8_t *codes = (const uint8_t *)s->codes + first / 2;
    const __m512 levels = _mm512_loadu_ps(nf4_levels);
    __m256i table = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 16) {
        if (i == 0 || (first + i) % nf4_block == 0) {
            __m512 scale = _mm512_set1_ps(stored_nf4_scale(s, (first + i) / nf4_block));
            table = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(levels, scale));
        }
        __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i / 2));
        __m256i order = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(_mm_srli_epi16(two, 4), two));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_permutexvar_epi16(order, table));
    }
    return true;
}

bool stored_halves_avx512bf16(uint16_t *out, const struct stored *s, int64_t row, int64_t column,
                              int64_t count) {
    if (s->dtype == DTYPE_F32) {
        const void *from = stored_codes(s, row, column);
        row_halves_avx512bf16(out, from, count);
        return true;
    }
    switch (dtype_row(s->dtype)->form) {
    case FORM_BLOCK: load_row(out, stored_codes(s, row, column), s->dtype, count); return true;
    case FORM_LEVELS: return level_halves(out, s, row * s->columns + column, count);
    default: return false;
    }
}

void row_halves_avx512bf16(uint16_t *out, const float *from, int64_t elements) {
    int64_t i = 0;
    for (; i + 32 <= elements; i += 32) {
        __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
        _mm512_storeu_si512(out + i, (__m512i)both);
    }
    for (; i < elements; i += 16) {
        __mmask16 mask = _cvtu32_mask16(elements - i >= 16 ? 0xffffu : (1u << (elements - i)) - 1u);
        __m512 x = _mm512_maskz_loadu_ps(mask, from + i);
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(x));
    }
}
#endif
