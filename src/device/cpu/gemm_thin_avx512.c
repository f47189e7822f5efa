#if defined(__x86_64__)
/* The ways of few rows (decoding) and of a narrow side (gradients of adapters) with AVX-512. */
#include "device/cpu/block_avx512.h"
#include "device/cpu/gemm_kernel.h"

typedef __m512 few_sum;
typedef struct block512 few_block;
static inline __attribute__((always_inline)) few_block few_load(const uint8_t *at, enum dtype dtype,
                                                                const int group) {
    return block512_load(at, dtype, group);
}
static inline float few_total(__m512 v) { return _mm512_reduce_add_ps(v); }
static inline __attribute__((always_inline)) __m512 few_multiply(const struct block512 *block, const float *x,
                                                                 __m512 sum) {
    sum = _mm512_fmadd_ps(block->low, _mm512_loadu_ps(x), sum);
    return _mm512_fmadd_ps(block->high, _mm512_loadu_ps(x + 16), sum);
}

#include "device/cpu/gemm_few_body.h"

void gemm_few_avx512(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                     float *sums) {
    few_run_rows(few, first, apart, streams, count, sums);
}

void gemm_round_avx512(const struct gemm_few *few, int16_t *ints, float *factors) {
    few_round(few, ints, factors);
}

void gemm_round_quads_avx512(const struct gemm_few *few, struct gemm_quad *quads) {
    few_round_quads(few, quads);
}

static inline __attribute__((always_inline)) void narrow_rows(const int rows, __mmask16 mask, const float *a,
                                                              int64_t lda, const float *b, int64_t ldb,
                                                              int64_t k, float *sums) {
    __m512 part[16];
    for (int i = 0; i < rows; i++) part[i] = _mm512_loadu_ps(sums + i * 64);
    for (int64_t kk = 0; kk < k; kk++) {
        __m512 w = _mm512_maskz_loadu_ps(mask, b + kk * ldb);
        _mm_prefetch((const char *)(b + kk * ldb + 16), _MM_HINT_T0);
        for (int i = 0; i < rows; i++) part[i] = _mm512_fmadd_ps(_mm512_set1_ps(a[kk * lda + i]), w, part[i]);
    }
    for (int i = 0; i < rows; i++) _mm512_storeu_ps(sums + i * 64, part[i]);
}

void gemm_narrow_avx512(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb,
                        int64_t k, float *sums) {
    for (int j = 0; j < columns; j += 16) {
        __mmask16 mask = _cvtu32_mask16(columns - j >= 16 ? 0xffffu : (1u << (columns - j)) - 1u);
        if (rows == 16) {
            narrow_rows(16, mask, a, lda, b + j, ldb, k, sums + j);
            continue;
        }
        int i = 0;
        for (; i + 8 <= rows; i += 8) narrow_rows(8, mask, a + i, lda, b + j, ldb, k, sums + i * 64 + j);
        for (; i + 4 <= rows; i += 4) narrow_rows(4, mask, a + i, lda, b + j, ldb, k, sums + i * 64 + j);
        for (; i < rows; i++) narrow_rows(1, mask, a + i, lda, b + j, ldb, k, sums + i * 64 + j);
    }
}
#endif
