/* Few rows against a stored weight (decoding): each row of w is read once, decoded in registers, and
 * multiplied in f32 with all rows of x. Operands are not rounded to bf16 here: the time is the reading, not
 * the products. */
#include <string.h>

#include "device/cpu/gemm_pack.h"

enum {
    task_bytes = 32 << 10, /* the least that a task is worth */
    tasks_per_thread = 2,  /* few, since each begins with lines that nobody has prefetched */
    chunk_rows = 64,
};

struct few_run {
    struct gemm_few few, low; /* low.rows == 0: there is no product of low rank */
    const struct gemm *gemm;
    const struct gemm_kernel *kernel;
    int64_t task_rows;
    unsigned features;
};

size_t gemm_few_workspace(int64_t k) {
    return (size_t)gemm_few_rows * (size_t)(gemm_up(k, 32) + gemm_most_rank) * sizeof(float);
}

static void few_task(void *user, int task, int worker) {
    const struct few_run *run = user;
    const struct gemm_few *few = &run->few;
    (void)worker;
    _Alignas(64) float sums[gemm_few_rows * chunk_rows], low[gemm_few_rows * chunk_rows];
    int64_t first = task * run->task_rows, end = gemm_min(run->gemm->n, first + run->task_rows);
    const char *begin = (const char *)few->w + (size_t)first * few->row_bytes;
    int64_t cold = gemm_min((end - first) * (int64_t)few->row_bytes, gemm_few_ahead(few->row_bytes));
    for (int64_t at = 0; at < cold; at += 64) __builtin_prefetch(begin + at);
    struct gemm_tile t = {.gemm = run->gemm,
                          .stride = chunk_rows,
                          .rows = (int)run->gemm->m,
                          .first = true,
                          .last = true,
                          .features = run->features};
    for (; first < end; first += chunk_rows) {
        int64_t last = gemm_min(end, first + chunk_rows);
        run->kernel->few(few, first, last, sums, chunk_rows);
        if (run->low.rows) run->kernel->few(&run->low, first, last, low, chunk_rows);
        for (int64_t j = first; j < last; j += run->kernel->columns) {
            t.tile = sums + (j - first);
            t.low = run->low.rows ? low + (j - first) : NULL;
            t.column = j;
            t.columns = (int)gemm_min(run->kernel->columns, last - j);
            run->kernel->finish(&t);
        }
    }
}

/* The operands of one product, x as f32 with its tail filled up in `to`. */
static struct gemm_few take_few(const struct gemm_weight *w, const struct gemm_activation *x, int64_t m,
                                int64_t k, float *to, unsigned features) {
    int64_t wide = gemm_up(k, 32), size = dtype_row(x->dtype)->bytes;
    int rows = m == 1 ? 1 : m == 2 ? 2 : m <= 4 ? 4 : 8;
    memset(to, 0, (size_t)(rows * wide) * sizeof *to);
    for (int64_t r = 0; r < m; r++)
        cpu_row_load(to + r * wide, (const char *)x->data + r * x->ld * size, x->dtype, k, features);
    return (struct gemm_few){.w = w->data,
                             .row_bytes = (size_t)w->row_bytes,
                             .w_type = w->dtype,
                             .x = to,
                             .ldx = wide,
                             .k = k,
                             .rows = rows};
}

void gemm_run_few(const struct gemm_kernel *kernel, const struct gemm *gemm, struct pool *pool,
                  void *workspace, unsigned features) {
    struct gemm_operands operands = gemm_operands(gemm);
    float *x = workspace, *low = x + gemm_few_rows * gemm_up(gemm->k, 32);
    struct few_run run = {
        .few = take_few(&operands.w, &operands.x, gemm->m, gemm->k, x, features),
        .gemm = gemm,
        .kernel = kernel,
        .features = features,
    };
    if (gemm->rank) run.low = take_few(&operands.up, &operands.low, gemm->m, gemm->rank, low, features);
    int64_t least = task_bytes / gemm_max(1, operands.w.row_bytes),
            share = gemm_ceil(gemm->n, (int64_t)pool_threads(pool) * tasks_per_thread);
    run.task_rows = gemm_up(gemm_max(gemm_max(least, share), 8), 8);
    gemm_tasks(gemm, pool, (int)gemm_ceil(gemm->n, run.task_rows), few_task, &run);
}
