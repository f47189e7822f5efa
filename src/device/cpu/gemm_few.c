/* Few rows against a stored weight (decoding): each row of w is read once, decoded in registers, and
 * multiplied in f32 with all rows of x. Operands are not rounded to bf16 here: the time is the reading, not
 * the products. */
#include <string.h>

#include "device/cpu/gemm_kernel.h"

enum { task_bytes = 48 << 10, most_task_rows = 64 };

struct few_run {
    struct gemm_few few;
    const struct gemm *gemm;
    const struct gemm_kernel *kernel;
    int64_t task_rows;
    unsigned features;
};

size_t gemm_few_workspace(int64_t k) {
    return (size_t)gemm_few_rows * (size_t)gemm_up(k, 32) * sizeof(float);
}

static void few_task(void *user, int task, int worker) {
    const struct few_run *run = user;
    (void)worker;
    _Alignas(64) float sums[gemm_few_rows * most_task_rows];
    int64_t first = task * run->task_rows, last = gemm_min(run->gemm->n, first + run->task_rows);
    run->kernel->few(&run->few, first, last, sums, most_task_rows);
    struct gemm_tile t = {.gemm = run->gemm,
                          .stride = most_task_rows,
                          .rows = (int)run->gemm->m,
                          .first = true,
                          .last = true,
                          .features = run->features};
    for (int64_t j = first; j < last; j += run->kernel->columns) {
        t.tile = sums + (j - first);
        t.column = j;
        t.columns = (int)gemm_min(run->kernel->columns, last - j);
        run->kernel->finish(&t);
    }
}

void gemm_run_few(const struct gemm_kernel *kernel, const struct gemm *gemm, struct pool *pool,
                  void *workspace, unsigned features) {
    float *x = workspace;
    int64_t wide = gemm_up(gemm->k, 32), size = dtype_row(gemm->x_type)->bytes;
    int rows = gemm->m == 1 ? 1 : gemm->m == 2 ? 2 : gemm->m <= 4 ? 4 : 8;
    memset(x, 0, (size_t)(rows * wide) * sizeof *x);
    for (int64_t r = 0; r < gemm->m; r++)
        cpu_row_load(x + r * wide, (const char *)gemm->x + r * gemm->ldx * size, gemm->x_type, gemm->k,
                     features);
    int64_t bytes = gemm_row_bytes(gemm->w_type, gemm->ldw);
    struct few_run run = {
        .few = {.w = gemm->w,
                .row_bytes = (size_t)bytes,
                .w_type = gemm->w_type,
                .x = x,
                .ldx = wide,
                .k = gemm->k,
                .rows = rows},
        .gemm = gemm,
        .kernel = kernel,
        .features = features,
    };
    run.task_rows = gemm_min(most_task_rows, gemm_max(8, task_bytes / gemm_max(1, bytes) / 8 * 8));
    gemm_tasks(gemm, pool, (int)gemm_ceil(gemm->n, run.task_rows), few_task, &run);
}
