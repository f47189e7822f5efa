/* Few rows against a stored weight (decoding): each row of w is read once, unpacked in registers, and
 * multiplied with all rows of x: in f32, or as integers where w is made of small ones (gemm_few_ints.h).
 * Operands are not rounded to bf16 here: the time is the reading, not the products. */
#include <string.h>

#include "device/cpu/gemm_pack.h"

enum {
    task_bytes = 32 << 10, /* the least that a task is worth */
    cold_bytes = 1024,     /* of each stream that are asked for before it begins */
};

struct few_run {
    struct gemm_few few, low; /* low.rows == 0: there is no product of low rank */
    const struct gemm *gemm;
    const struct gemm_kernel *kernel;
    int64_t task_rows;
    unsigned features;
};

/* Bytes of x as f32, as integers and their factors. */
static size_t rows_bytes(int64_t k) {
    int64_t blocks = gemm_ceil(k, 32), one = 32 * (int64_t)(sizeof(float) + sizeof(int16_t));
    return (size_t)(blocks * gemm_few_rows * (one + 2 * (int64_t)sizeof(float)));
}

size_t gemm_few_workspace(int64_t k) { return rows_bytes(k) + rows_bytes(gemm_most_rank); }

/* Rows [first + s * apart, + count) of each stream. */
static void few_piece(const struct few_run *run, int64_t first, int64_t apart, int streams, int count) {
    _Alignas(64) float sums[gemm_few_rows * gemm_few_width], low[gemm_few_rows * gemm_few_width];
    struct gemm_tile t = {.gemm = run->gemm,
                          .stride = gemm_few_width,
                          .rows = (int)run->gemm->m,
                          .columns = count,
                          .first = true,
                          .last = true,
                          .features = run->features};
    run->kernel->few(&run->few, first, apart, streams, count, sums);
    if (run->low.rows) run->kernel->few(&run->low, first, apart, streams, count, low);
    for (int s = 0; s < streams; s++) {
        t.tile = sums + s * gemm_few_count;
        t.low = run->low.rows ? low + s * gemm_few_count : NULL;
        t.column = first + s * apart;
        run->kernel->finish(&t);
    }
}

static void few_task(void *user, int task, int worker) {
    const struct few_run *run = user;
    (void)worker;
    int64_t first = task * run->task_rows, end = gemm_min(run->gemm->n, first + run->task_rows),
            apart = (end - first) / gemm_few_streams, rest = first + apart * gemm_few_streams;
    for (int s = 0; s < gemm_few_streams; s++) {
        const char *begin = (const char *)run->few.w + (size_t)(first + s * apart) * run->few.row_bytes;
        for (int at = 0; at < cold_bytes; at += 64) __builtin_prefetch(begin + at);
    }
    for (int64_t j = 0; j < apart; j += gemm_few_count)
        few_piece(run, first + j, apart, gemm_few_streams, (int)gemm_min(gemm_few_count, apart - j));
    if (rest < end) few_piece(run, rest, 0, 1, (int)(end - rest));
}

/* The operands of one product, x as f32 with its tail filled up, and as integers, in `to`. */
static struct gemm_few take_few(const struct gemm_kernel *kernel, const struct gemm_weight *w,
                                const struct gemm_activation *x, int64_t m, int64_t k, float *to,
                                unsigned features) {
    int64_t wide = gemm_up(k, 32), size = dtype_row(x->dtype)->bytes;
    int rows = m == 1 ? 1 : m == 2 ? 2 : m <= 4 ? 4 : 8;
    memset(to, 0, (size_t)(rows * wide) * sizeof *to);
    for (int64_t r = 0; r < m; r++)
        cpu_row_load(to + r * wide, (const char *)x->data + r * x->ld * size, x->dtype, k, features);
    struct gemm_few few = {.w = w->data,
                           .row_bytes = (size_t)w->row_bytes,
                           .w_type = w->dtype,
                           .x = to,
                           .ldx = wide,
                           .k = k,
                           .rows = rows};
    if (kernel->round && gemm_few_integers(w->dtype)) {
        float *factors = to + rows * wide;
        int16_t *ints = (int16_t *)(void *)(factors + gemm_up(rows, 4) * wide / 16);
        kernel->round(&few, ints, factors);
        few.ints = ints;
        few.factors = factors;
    }
    return few;
}

void gemm_run_few(const struct gemm_kernel *kernel, const struct gemm *gemm, struct pool *pool,
                  void *workspace, unsigned features) {
    struct gemm_operands operands = gemm_operands(gemm);
    float *x = workspace, *low = x + rows_bytes(gemm->k) / sizeof *low;
    struct few_run run = {
        .few = take_few(kernel, &operands.w, &operands.x, gemm->m, gemm->k, x, features),
        .gemm = gemm,
        .kernel = kernel,
        .features = features,
    };
    if (gemm->rank)
        run.low = take_few(kernel, &operands.up, &operands.low, gemm->m, gemm->rank, low, features);
    int64_t least = task_bytes / gemm_max(1, operands.w.row_bytes),
            share = gemm_ceil(gemm->n, (int64_t)pool_threads(pool) * (gemm->m > 2 ? 2 : 1));
    run.task_rows = gemm_up(gemm_max(gemm_max(least, share), 8), 8);
    gemm_tasks(gemm, pool, (int)gemm_ceil(gemm->n, run.task_rows), few_task, &run);
}
