#if defined(__x86_64__)
/* Tiles of 6 × 16 f32: 12 sums, 2 parts of w and one broadcast in the 16 registers. */
#include <immintrin.h>
#include <string.h>

#include "device/cpu/block_avx2.h"
#include "device/cpu/gemm_finish.h"
#include "device/cpu/sum_avx2.h"

enum { rows_256 = 6, columns_256 = 16 };
enum { ahead = 32 }; /* steps that w is asked for ahead: it comes from the second cache */

static inline __attribute__((always_inline)) void tile_rows(const int rows, const struct gemm_rows *x,
                                                            const float *b, float *out) {
    __m256 sums[rows_256][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
    for (const struct gemm_rows *end = x + 2; x < end; b += x->steps * columns_256, x++) {
        const int64_t stride = x->stride, steps = x->steps;
        const char *a = x->at, *next = a + 3 * stride;
#pragma GCC unroll 4
        for (int64_t k = 0; k < steps; k++) {
            __m256 low = _mm256_load_ps(b + k * columns_256), high = _mm256_load_ps(b + k * columns_256 + 8);
            _mm_prefetch((const char *)(b + (k + ahead) * columns_256), _MM_HINT_T0);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
                __m256 number = _mm256_broadcast_ss(
                    (const float *)(const void *)((i < 3 ? a : next) + i % 3 * stride + 4 * k));
                sums[i][0] = _mm256_fmadd_ps(number, low, sums[i][0]);
                sums[i][1] = _mm256_fmadd_ps(number, high, sums[i][1]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        _mm256_store_ps(out + i * columns_256, sums[i][0]);
        _mm256_store_ps(out + i * columns_256 + 8, sums[i][1]);
    }
}

static void tile_256(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out) {
    (void)columns;
    switch (rows) {
    case 1: tile_rows(1, x, b, out); break;
    case 2: tile_rows(2, x, b, out); break;
    case 3: tile_rows(3, x, b, out); break;
    case 4: tile_rows(4, x, b, out); break;
    case 5: tile_rows(5, x, b, out); break;
    default: tile_rows(6, x, b, out); break;
    }
}

/* Units 0..3 of a row and of the row four below. */
static inline __m256 pair_quads(const uint32_t *from, int64_t stride) {
    __m128 low = _mm_loadu_ps((const float *)(const void *)from);
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low),
                                _mm_loadu_ps((const float *)(const void *)(from + 4 * stride)), 1);
}

static void transpose_256(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride,
                          int64_t count) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int half = 0; half < 2; half++) {
            const uint32_t *at = from + i + 8 * half * stride;
            __m256 a = pair_quads(at, stride), b = pair_quads(at + stride, stride);
            __m256 c = pair_quads(at + 2 * stride, stride), d = pair_quads(at + 3 * stride, stride);
            __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)),
                    cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            double *out = (double *)(void *)(to + i * to_stride + 8 * half);
            _mm256_storeu_pd(out, _mm256_unpacklo_pd(ab, cd));
            _mm256_storeu_pd(out + to_stride / 2, _mm256_unpackhi_pd(ab, cd));
            ab = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            cd = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            _mm256_storeu_pd(out + to_stride, _mm256_unpacklo_pd(ab, cd));
            _mm256_storeu_pd(out + to_stride / 2 * 3, _mm256_unpackhi_pd(ab, cd));
        }
    for (; i < count; i++)
        for (int j = 0; j < 16; j++) memcpy(to + i * to_stride + j, from + j * stride + i, sizeof *to);
}

static void finish_256(const struct gemm_tile *tile) { finish_tile(tile, columns_256); }

static inline float few_total(__m256 v) { return sum_256(v); }

static inline __attribute__((always_inline)) __m256 few_multiply(const struct block256 *block, const float *x,
                                                                 __m256 sum) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) sum = _mm256_fmadd_ps(block->part[p], _mm256_loadu_ps(x + 8 * p), sum);
    return sum;
}

typedef __m256 few_sum;
typedef struct block256 few_block;
static inline __attribute__((always_inline)) few_block few_load(const uint8_t *at, enum dtype dtype,
                                                                const int group) {
    return block256_load(at, dtype, group);
}

#include "device/cpu/gemm_few_body.h"

static inline __attribute__((always_inline)) void narrow_rows(const int rows, const float *a, int64_t lda,
                                                              const float *b, int64_t ldb, int64_t k,
                                                              float *sums) {
    __m256 part[4][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) part[i][v] = _mm256_loadu_ps(sums + i * 64 + 8 * v);
    for (int64_t kk = 0; kk < k; kk++) {
        __m256 low = _mm256_loadu_ps(b + kk * ldb), high = _mm256_loadu_ps(b + kk * ldb + 8);
        for (int i = 0; i < rows; i++) {
            __m256 x = _mm256_set1_ps(a[kk * lda + i]);
            part[i][0] = _mm256_fmadd_ps(x, low, part[i][0]);
            part[i][1] = _mm256_fmadd_ps(x, high, part[i][1]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) _mm256_storeu_ps(sums + i * 64 + 8 * v, part[i][v]);
}

static void narrow_256(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb,
                       int64_t k, float *sums) {
    int j = 0;
    for (; j + 16 <= columns; j += 16) {
        int i = 0;
        for (; i + 4 <= rows; i += 4) narrow_rows(4, a + i, lda, b + j, ldb, k, sums + i * 64 + j);
        for (; i < rows; i++) narrow_rows(1, a + i, lda, b + j, ldb, k, sums + i * 64 + j);
    }
    for (int64_t kk = 0; j < columns && kk < k; kk++)
        for (int i = 0; i < rows; i++)
            for (int c = j; c < columns; c++) {
                __m128 sum = _mm_set_ss(sums[i * 64 + c]);
                sum = _mm_fmadd_ss(_mm_set_ss(a[kk * lda + i]), _mm_set_ss(b[kk * ldb + c]), sum);
                sums[i * 64 + c] = _mm_cvtss_f32(sum);
            }
}

const struct gemm_kernel gemm_kernel_avx2 = {
    .rows = rows_256,
    .columns = columns_256,
    .group = 1,
    .tile = tile_256,
    .transpose = transpose_256,
    .finish = finish_256,
    .narrow = narrow_256,
    .few = few_run_rows,
    .round = few_round,
};
#endif
