/* Work over rows of activations: tasks of whole rows, so many that one costs some microseconds. */
#ifndef HONE_DEVICE_CPU_ROW_TASKS_H
#define HONE_DEVICE_CPU_ROW_TASKS_H

#include "device/cpu/kernel.h"
#include "device/cpu/simd_vector.h"

enum { task_elements = 16384 }; /* per task, so that one costs some microseconds */

struct row_job {
    const struct cpu_call *call;
    int64_t rows, width, rows_per_task;
    const float *weight;
};

static inline size_t element_bytes(const struct operand *operand) { return (size_t)v_bytes(operand->dtype); }

static inline const void *row_of(const struct operand *operand, int64_t row, int64_t width) {
    return (const char *)operand->data + (size_t)(row * width) * element_bytes(operand);
}

static inline void *row_out(const struct operand *operand, int64_t row, int64_t width) {
    return (char *)operand->data + (size_t)(row * width) * element_bytes(operand);
}

/* Runs `run` over tasks of whole rows. */
static inline void rows_run(const struct cpu_call *call, int64_t rows, int64_t width, const float *weight,
                            pool_task run) {
    int64_t each = width > 0 ? task_elements / width : 1;
    if (each < 1) each = 1;
    struct row_job job = {
        .call = call, .rows = rows, .width = width, .rows_per_task = each, .weight = weight};
    pool_run(call->pool, (int)((rows + each - 1) / each), run, &job);
}

static inline int64_t last_row(const struct row_job *job, int task) {
    int64_t end = ((int64_t)task + 1) * job->rows_per_task;
    return end < job->rows ? end : job->rows;
}

#endif
