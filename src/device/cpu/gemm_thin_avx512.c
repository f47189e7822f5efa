#if defined(__x86_64__)
/* The ways of few rows (decoding) and of a narrow side (gradients of adapters) with AVX-512. */
#include "device/cpu/block_avx512.h"
#include "device/cpu/gemm_kernel.h"

/* x rows × w rows dot products; each w block is decoded once. One sum for each, over k in order in 16 lanes,
 * so that a row's bits do not depend on how many rows go together. */
static inline __attribute__((always_inline)) void dots(const struct gemm_few *few, int64_t row,
                                                       const int x_rows, const int w_rows,
                                                       const enum dtype dtype, const int bytes, float *sums,
                                                       int64_t stride) {
    __m512 lanes[4][8];
    const uint8_t *w[4];
    for (int r = 0; r < w_rows; r++) {
        w[r] = few->w + (size_t)(row + r) * few->row_bytes;
        for (int i = 0; i < x_rows; i++) lanes[r][i] = _mm512_setzero_ps();
    }
    int64_t blocks = few->k / 32, ahead = gemm_few_ahead(few->row_bytes * (size_t)w_rows);
    for (int64_t b = 0; b < blocks; b++) {
        const float *x = few->x + 32 * b;
        for (int r = 0; r < w_rows; r++) {
            _mm_prefetch((const char *)(w[r] + b * bytes + ahead), _MM_HINT_T0);
            struct block512 block = block512_load(w[r] + b * bytes, dtype);
            for (int i = 0; i < x_rows; i++) {
                lanes[r][i] = _mm512_fmadd_ps(block.low, _mm512_loadu_ps(x + i * few->ldx), lanes[r][i]);
                lanes[r][i] =
                    _mm512_fmadd_ps(block.high, _mm512_loadu_ps(x + i * few->ldx + 16), lanes[r][i]);
            }
        }
    }
    if (few->k % 32) /* plain types only */
        for (int r = 0; r < w_rows; r++) {
            uint8_t rest[128] = {0};
            memcpy(rest, w[r] + blocks * bytes, (size_t)(few->k % 32 * bytes / 32));
            struct block512 block = block512_load(rest, dtype);
            const float *x = few->x + 32 * blocks;
            for (int i = 0; i < x_rows; i++) {
                lanes[r][i] = _mm512_fmadd_ps(block.low, _mm512_loadu_ps(x + i * few->ldx), lanes[r][i]);
                lanes[r][i] =
                    _mm512_fmadd_ps(block.high, _mm512_loadu_ps(x + i * few->ldx + 16), lanes[r][i]);
            }
        }
    for (int r = 0; r < w_rows; r++)
        for (int i = 0; i < x_rows; i++) sums[i * stride + r] = _mm512_reduce_add_ps(lanes[r][i]);
}

static inline __attribute__((always_inline)) void all_rows(const struct gemm_few *few, int64_t first,
                                                           int64_t last, const int x_rows, const int w_rows,
                                                           const enum dtype dtype, const int bytes,
                                                           float *sums, int64_t stride) {
    int64_t row = first;
    for (; row + w_rows <= last; row += w_rows)
        dots(few, row, x_rows, w_rows, dtype, bytes, sums + (row - first), stride);
    for (; row < last; row++) dots(few, row, x_rows, 1, dtype, bytes, sums + (row - first), stride);
}

#define FEW(name, dtype, bytes)                                                                  \
    static void few_##name(const struct gemm_few *few, int64_t first, int64_t last, float *sums, \
                           int64_t stride) {                                                     \
        switch (few->rows) {                                                                     \
        case 1: all_rows(few, first, last, 1, 4, dtype, bytes, sums, stride); break;             \
        case 2: all_rows(few, first, last, 2, 4, dtype, bytes, sums, stride); break;             \
        case 4: all_rows(few, first, last, 4, 4, dtype, bytes, sums, stride); break;             \
        default: all_rows(few, first, last, 8, 2, dtype, bytes, sums, stride); break;            \
        }                                                                                        \
    }
FEW(f32, DTYPE_F32, 128)
FEW(f16, DTYPE_F16, 64)
FEW(bf16, DTYPE_BF16, 64)
FEW(q4_0, DTYPE_Q4_0, 18)
FEW(q4_1, DTYPE_Q4_1, 20)
FEW(q5_0, DTYPE_Q5_0, 22)
FEW(q5_1, DTYPE_Q5_1, 24)
FEW(q8_0, DTYPE_Q8_0, 34)

void gemm_few_avx512(const struct gemm_few *few, int64_t first, int64_t last, float *sums, int64_t stride) {
    switch (few->w_type) {
    case DTYPE_F16: few_f16(few, first, last, sums, stride); break;
    case DTYPE_BF16: few_bf16(few, first, last, sums, stride); break;
    case DTYPE_Q4_0: few_q4_0(few, first, last, sums, stride); break;
    case DTYPE_Q4_1: few_q4_1(few, first, last, sums, stride); break;
    case DTYPE_Q5_0: few_q5_0(few, first, last, sums, stride); break;
    case DTYPE_Q5_1: few_q5_1(few, first, last, sums, stride); break;
    case DTYPE_Q8_0: few_q8_0(few, first, last, sums, stride); break;
    default: few_f32(few, first, last, sums, stride);
    }
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
