/* The product in plain C, for any processor; loops of constant length that compilers turn into vectors. */
#include <string.h>

#include "device/cpu/gemm_finish.h"

enum { rows_c = 4, columns_c = 16 };

static void tile_c(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out) {
    (void)columns;
    for (int i = 0; i < rows; i++) {
        const float *w = b;
        float sums[columns_c] = {0};
        for (int part = 0; part < 2; part++) {
            const void *row = (const char *)x[part].at + i * x[part].stride;
            for (int64_t k = 0; k < x[part].steps; k++, w += columns_c)
                for (int j = 0; j < columns_c; j++) sums[j] += ((const float *)row)[k] * w[j];
        }
        memcpy(out + i * columns_c, sums, sizeof sums);
    }
}

static void transpose_c(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride,
                        int64_t count) {
    for (int64_t i = 0; i < count; i++)
        for (int j = 0; j < 16; j++) to[i * to_stride + j] = from[j * stride + i];
}

static void finish_c(const struct gemm_tile *tile) { finish_tile(tile, columns_c); }

static void narrow_c(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb,
                     int64_t k, float *sums) {
    for (int64_t kk = 0; kk < k; kk++)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) sums[i * 64 + j] += a[kk * lda + i] * b[kk * ldb + j];
}

static void few_row_c(const struct gemm_few *few, int64_t row, float *sums) {
    enum { chunk = 256, side = 16 };
    float parts[gemm_few_rows][side] = {{0}};
    for (int64_t k = 0; k < few->k; k += chunk) {
        float w[chunk] = {0};
        int64_t count = gemm_min(chunk, few->k - k);
        stored_decode(&few->stored, row, k, count, w);
        for (int i = 0; i < few->rows; i++)
            for (int64_t j = 0; j < gemm_up(count, side); j += side)
                for (int l = 0; l < side; l++) parts[i][l] += w[j + l] * few->x[i * few->ldx + k + j + l];
    }
    for (int i = 0; i < few->rows; i++) {
        float sum = 0;
        for (int l = 0; l < side; l++) sum += parts[i][l];
        sums[i * gemm_few_width] = sum;
    }
}

static void few_c(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                  float *sums) {
    for (int j = 0; j < count; j++)
        for (int s = 0; s < streams; s++)
            few_row_c(few, first + s * apart + j, sums + s * gemm_few_count + j);
}

const struct gemm_kernel gemm_kernel_c = {
    .rows = rows_c,
    .columns = columns_c,
    .group = 1,
    .tile = tile_c,
    .transpose = transpose_c,
    .finish = finish_c,
    .narrow = narrow_c,
    .few = few_c,
};
