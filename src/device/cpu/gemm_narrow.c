/* y += xᵀ w where one side is narrow (gradients of adapters: 16 columns, k = tokens). Time is the reading of
 * the wide side, so nothing is packed: pieces of its columns run down k, a block of rows at a time. Operands
 * are multiplied in f32 as they are, or as pairs of bf16 where the kernel has them. */
#include <string.h>

#include "device/cpu/gemm_kernel.h"

enum { k_block = gemm_narrow_k, wide_floats = 64, wide_most = gemm_narrow_pairs, narrow_piece = 16 };

struct side {
    const void *data;
    enum dtype dtype;
    int64_t ld, width;
};

struct narrow_run {
    const struct gemm *gemm;
    const struct gemm_kernel *kernel;
    struct side narrow, wide;
    int64_t piece; /* columns of the wide side */
    bool turned;   /* the narrow side is w: y is written transposed */
    unsigned features;
};

/* Rows [k, k + count) of some columns as f32: where they lie, or converted into `buffer`. */
static const float *take_rows(const struct side *side, int64_t k, int64_t count, int64_t column,
                              int64_t columns, float *buffer, int64_t *ld, unsigned features) {
    if (side->dtype == DTYPE_F32) {
        *ld = side->ld;
        return (const float *)side->data + k * side->ld + column;
    }
    const char *at = side->data;
    *ld = columns;
    for (int64_t r = 0; r < count; r++)
        cpu_row_load(buffer + r * columns, at + gemm_row_bytes(side->dtype, (k + r) * side->ld + column),
                     side->dtype, columns, features);
    return buffer;
}

/* The same as bf16. */
static const uint16_t *take_halves(const struct side *side, int64_t k, int64_t count, int64_t column,
                                   int64_t columns, uint16_t *buffer, int64_t *ld, unsigned features) {
    if (side->dtype == DTYPE_BF16) {
        *ld = side->ld;
        return (const uint16_t *)side->data + k * side->ld + column;
    }
    float row[wide_most];
    int64_t unused;
    *ld = columns;
    for (int64_t r = 0; r < count; r++)
        cpu_row_halves(buffer + r * columns,
                       take_rows(side, k + r, 1, column, columns, row, &unused, features), columns, features);
    return buffer;
}

static void store_piece(const struct narrow_run *run, const float *sums, int64_t column, int64_t columns) {
    float turned[gemm_narrow_width];
    struct gemm_tile t = {.gemm = run->gemm, .first = true, .last = true, .features = run->features};
    int64_t lines = run->turned ? columns : run->narrow.width,
            length = run->turned ? run->narrow.width : columns;
    for (int64_t i = 0; i < lines; i++) {
        const float *line = sums + i * run->piece;
        if (run->turned) {
            for (int64_t j = 0; j < length; j++) turned[j] = sums[j * run->piece + i];
            line = turned;
        }
        for (int64_t j = 0; j < length; j += run->kernel->columns) {
            t.tile = line + j;
            t.row = run->turned ? column + i : i;
            t.column = run->turned ? j : column + j;
            t.rows = 1;
            t.columns = (int)gemm_min(run->kernel->columns, length - j);
            run->kernel->finish(&t);
        }
    }
}

/* The part of rows [k, k + count); `wide` and `narrow`: room to convert them. */
static void add_block(const struct narrow_run *run, int64_t k, int64_t count, int64_t column, int64_t columns,
                      float *wide, float *narrow, float *sums) {
    const struct gemm_kernel *kernel = run->kernel;
    const float *floats = NULL;
    const uint16_t *halves = NULL;
    int64_t lda, ldb;
    if (kernel->narrow_pairs)
        halves =
            take_halves(&run->wide, k, count, column, columns, (uint16_t *)(void *)wide, &ldb, run->features);
    else
        floats = take_rows(&run->wide, k, count, column, columns, wide, &ldb, run->features);
    for (int64_t r = 0; r < run->narrow.width; r += narrow_piece, sums += narrow_piece * run->piece) {
        int64_t rows = gemm_min(narrow_piece, run->narrow.width - r);
        const float *a = take_rows(&run->narrow, k, count, r, rows, narrow, &lda, run->features);
        if (halves)
            kernel->narrow_pairs((int)rows, (int)columns, a, lda, halves, ldb, count, sums);
        else
            kernel->narrow((int)rows, (int)columns, a, lda, floats, ldb, count, sums);
    }
}

static void narrow_task(void *user, int task, int worker) {
    const struct narrow_run *run = user;
    (void)worker;
    _Alignas(64) float sums[gemm_narrow_width * wide_most], wide[k_block * wide_floats],
        narrow[k_block * narrow_piece];
    int64_t column = task * run->piece, columns = gemm_min(run->piece, run->wide.width - column);
    memset(sums, 0, sizeof sums);
    for (int64_t k = 0; k < run->gemm->k; k += k_block)
        add_block(run, k, gemm_min(k_block, run->gemm->k - k), column, columns, wide, narrow, sums);
    store_piece(run, sums, column, columns);
    if (run->kernel->leave) run->kernel->leave();
}

void gemm_run_narrow(const struct gemm_kernel *kernel, const struct gemm *gemm, struct pool *pool,
                     unsigned features) {
    struct side x = {gemm->x, gemm->x_type, gemm->ldx, gemm->m},
                w = {gemm->w, gemm->w_type, gemm->ldw, gemm->n};
    bool turned = gemm->n < gemm->m;
    struct narrow_run run = {.gemm = gemm,
                             .kernel = kernel,
                             .narrow = turned ? w : x,
                             .wide = turned ? x : w,
                             .piece = kernel->narrow_pairs ? gemm_narrow_pairs : wide_floats,
                             .turned = turned,
                             .features = features};
    gemm_tasks(gemm->m * gemm->n * gemm->k, pool, (int)gemm_ceil(run.wide.width, run.piece), narrow_task,
               &run);
}
