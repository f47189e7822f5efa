/* One row of x against four streams of w (decoding): the same sums in the same order as ints_dots
 * (gemm_few_ints.h, which includes this), in half the instructions. What a block needs beside the
 * multiplications is done for the four streams at once: their factors, and the totals of their lanes. */

/* Where a block of each stream lies: one register moves for the four. */
struct one_streams {
    const uint8_t *at;
    int64_t apart, apart3; /* bytes between streams, and three times that */
};

static inline __attribute__((always_inline)) const uint8_t *one_stream(const struct one_streams *w, int s) {
    return w->at + (s == 3 ? w->apart3 : s * w->apart);
}

/* d and m (or, where there is none, d twice) of a block of each stream. */
static inline __attribute__((always_inline)) __m256 one_heads(const struct one_streams *w,
                                                              const enum ints_offset offset) {
    int bits[4];
    for (int s = 0; s < 4; s++) memcpy(&bits[s], one_stream(w, s), sizeof *bits);
    __m256 heads = _mm256_cvtph_ps(_mm_setr_epi32(bits[0], bits[1], bits[2], bits[3]));
    return offset == OFFSET_MINIMUM ? heads : _mm256_moveldup_ps(heads);
}

/* The four totals of eight lanes each, added as sum_256 adds them. */
static inline __m128 one_totals(const __m256 *part) {
    __m128 sum[4];
    for (int s = 0; s < 4; s++)
        sum[s] = _mm_add_ps(_mm256_castps256_ps128(part[s]), _mm256_extractf128_ps(part[s], 1));
    __m128 a = _mm_add_ps(_mm_unpacklo_ps(sum[0], sum[1]), _mm_unpackhi_ps(sum[0], sum[1])),
           b = _mm_add_ps(_mm_unpacklo_ps(sum[2], sum[3]), _mm_unpackhi_ps(sum[2], sum[3]));
    return _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
}

#if defined(__AVX512BW__)
/* Blocks of two streams: the first one's sixteen elements, then the second one's. */
struct one_pair {
    __m512i low, high;
};

static inline __m256i one_bytes(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)a)),
                                   _mm_loadu_si128((const __m128i *)(const void *)b), 1);
}

static inline __m512i one_fifths(int a, int b) {
    __mmask32 set = ((uint32_t)a & 0xffff) | (uint32_t)b << 16;
    return _mm512_maskz_set1_epi16(set, 16);
}

static inline __attribute__((always_inline)) struct one_pair one_load(const uint8_t *a, const uint8_t *b,
                                                                      enum dtype dtype) {
    struct one_pair pair;
    if (dtype == DTYPE_Q8_0) {
        __m512i first = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(a + 2))),
                second = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(b + 2)));
        pair.low = _mm512_shuffle_i64x2(first, second, 0x44);
        pair.high = _mm512_shuffle_i64x2(first, second, 0xee);
        return pair;
    }
    bool fives = dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1;
    int head = dtype == DTYPE_Q4_1 || dtype == DTYPE_Q5_1 ? 4 : 2, codes = head + (fives ? 4 : 0);
    __m512i bytes = _mm512_cvtepu8_epi16(one_bytes(a + codes, b + codes));
    pair.low = _mm512_and_si512(bytes, _mm512_set1_epi16(15));
    pair.high = _mm512_srli_epi16(bytes, 4);
    if (fives) {
        int bits[2];
        memcpy(&bits[0], a + head, sizeof *bits);
        memcpy(&bits[1], b + head, sizeof *bits);
        pair.low = _mm512_or_si512(pair.low, one_fifths(bits[0], bits[1]));
        pair.high = _mm512_or_si512(pair.high, one_fifths(bits[0] >> 16, bits[1] >> 16));
    }
    return pair;
}

/* part[p] of streams 2p and 2p + 1 */
struct one_lanes {
    __m512 part[2];
};

static inline __attribute__((always_inline)) void one_block(const struct one_streams *w, const int16_t *x,
                                                            __m256 scales, const enum dtype dtype,
                                                            struct one_lanes *sums) {
    const __m256i *ints = (const __m256i *)(const void *)x;
    __m512i low = _mm512_broadcast_i64x4(_mm256_loadu_si256(ints)),
            high = _mm512_broadcast_i64x4(_mm256_loadu_si256(ints + 1)),
            first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
#pragma GCC unroll 2
    for (int p = 0; p < 2; p++) {
        struct one_pair pair = one_load(one_stream(w, 2 * p), one_stream(w, 2 * p + 1), dtype);
        __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(pair.low, low), _mm512_madd_epi16(pair.high, high));
        __m512 scale = _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(4 * p)),
                                             _mm512_castps256_ps512(scales));
        sums->part[p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, sums->part[p]);
    }
}

static inline __m128 one_end(const struct one_lanes *sums) {
    __m256 part[4];
    for (int s = 0; s < 4; s++)
        part[s] =
            s % 2 ? _mm512_extractf32x8_ps(sums->part[s / 2], 1) : _mm512_castps512_ps256(sums->part[s / 2]);
    return one_totals(part);
}
#else
struct one_lanes {
    __m256 part[4];
};

static inline __attribute__((always_inline)) void one_block(const struct one_streams *w, const int16_t *x,
                                                            __m256 scales, const enum dtype dtype,
                                                            struct one_lanes *sums) {
    const __m256i *ints = (const __m256i *)(const void *)x;
    __m256i low = _mm256_loadu_si256(ints), high = _mm256_loadu_si256(ints + 1);
    _Alignas(32) float scale[8]; /* a broadcast from memory costs no shuffle */
    _mm256_store_ps(scale, scales);
    __asm__("" : "+m"(scale));
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++) {
        struct ints_block block = ints_codes(one_stream(w, s), dtype);
        __m256i sum =
            _mm256_add_epi32(_mm256_madd_epi16(block.low, low), _mm256_madd_epi16(block.high, high));
        sums->part[s] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale[2 * s]), sums->part[s]);
    }
}

static inline __m128 one_end(const struct one_lanes *sums) { return one_totals(sums->part); }
#endif

/* As ints_dots, of one row of x and four streams. */
static inline __attribute__((always_inline)) void one_dots(const struct gemm_few *few, int64_t row,
                                                           int64_t apart, const enum dtype dtype,
                                                           const int bytes, const enum ints_offset offset,
                                                           const float zero, float *sums) {
    const int64_t step = apart * (int64_t)few->row_bytes, blocks = few->k / 32;
    struct one_streams w = {few->w + (size_t)row * few->row_bytes, step, 3 * step};
    struct one_lanes part = {0};
    __m256 offsets = _mm256_setzero_ps();
    const int16_t *x = few->ints;
    const float *factors = few->factors, *end = factors + 8 * blocks;
    for (; factors < end; factors += 8, x += 32, w.at += bytes) {
        __m256 pair = _mm256_castpd_ps(_mm256_broadcast_sd((const double *)(const void *)factors));
        __m256 scales = _mm256_mul_ps(one_heads(&w, offset), pair);
        if (offset != OFFSET_NONE) offsets = _mm256_add_ps(offsets, scales);
        one_block(&w, x, scales, dtype, &part);
    }
    _Alignas(16) float total[4];
    float rest[8];
    _mm_store_ps(total, one_end(&part));
    _mm256_storeu_ps(rest, offsets);
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++)
        sums[s * gemm_few_count] = offset == OFFSET_NONE   ? total[s]
                                   : offset == OFFSET_ZERO ? total[s] - zero * rest[2 * s + 1]
                                                           : total[s] + rest[2 * s + 1];
}
