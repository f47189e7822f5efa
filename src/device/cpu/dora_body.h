/* DoRA's kernels, written for any vector width (simd_vector.h); the equations are in op/dora.c. Included by
 * one file per instruction set. Sums are cut by shape: bands of rows, and groups of rows of a weight. */
#ifndef HONE_DEVICE_CPU_DORA_BODY_H
#define HONE_DEVICE_CPU_DORA_BODY_H

#include "device/cpu/row_tasks.h"
#include "device/cpu/simd_vector.h"

enum {
    dora_band = 32,      /* rows of activations whose gradients of m one task adds up */
    dora_columns = 1024, /* of them at a time, so that the sums stay in the first cache */
    norm_rows = 16,      /* rows of a weight that one task measures */
    norm_group = 4,      /* of which so many share what is read of A */
    norm_columns =
        256, /* of them at a time: the longest block of a stored type; A's stay in the first cache */
};

static inline int64_t dora_bands(int64_t rows) { return (rows + dora_band - 1) / dora_band; }

/* out = numerator / norm, 0 where the norm is; numerator NULL: 1. */
static void dora_ratios(float *out, const float *numerator, const float *norm, int64_t count) {
    for (int64_t j = 0; j < count; j++) out[j] = norm[j] > 0 ? (numerator ? numerator[j] : 1) / norm[j] : 0;
}

static void rescale_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in, *out = job->call->out;
    const float *bias = in[3].data;
    enum dtype z_type = in[0].dtype, addend_type = in[4].dtype, y_type = out[0].dtype;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        const void *z = row_of(&in[0], t, job->width);
        const void *addend = in[4].data ? row_of(&in[4], t, job->width) : NULL;
        void *y = row_out(&out[0], t, job->width);
        for (int64_t i = 0; i < job->width; i += lanes) {
            int64_t n = job->width - i;
            vf more = addend ? v_read(addend, addend_type, i, n) : (vf){0};
            if (bias) more += v_read(bias, DTYPE_F32, i, n);
            v_write(y, y_type, i, n,
                    v_fma(v_read(z, z_type, i, n), v_read(job->weight, DTYPE_F32, i, n), more));
        }
    }
}

static void rescale_run(const struct cpu_call *call) {
    int64_t width = call->in[0].dim[1];
    dora_ratios(call->workspace, call->in[1].data, call->in[2].data, width);
    rows_run(call, call->in[0].dim[0], width, call->workspace, rescale_task);
}

struct rescale_grad_job {
    const struct cpu_call *call;
    int64_t rows, width;
    const float *scale, *inverse; /* [width] m / n, 1 / n */
    float *sums;                  /* [bands, width] */
};

/* One row of a band: dz = dy · scale, and with `sums` sums += dy · z. */
static inline void rescale_grad_row(const struct rescale_grad_job *job, int64_t t, int64_t from, int64_t end,
                                    float *sums) {
    const struct operand *in = job->call->in, *out = job->call->out;
    const void *dy = row_of(&in[0], t, job->width), *z = row_of(&in[1], t, job->width);
    void *dz = row_out(&out[0], t, job->width);
    enum dtype dy_type = in[0].dtype, z_type = in[1].dtype, dz_type = out[0].dtype;
    for (int64_t i = from; i < end; i += lanes) {
        int64_t n = end - i;
        vf g = v_read(dy, dy_type, i, n);
        v_write(sums, DTYPE_F32, i, n, v_fma(g, v_read(z, z_type, i, n), v_read(sums, DTYPE_F32, i, n)));
        v_write(dz, dz_type, i, n, g * v_read(job->scale, DTYPE_F32, i, n));
    }
}

static void rescale_grad_task(void *user, int task, int worker) {
    (void)worker;
    const struct rescale_grad_job *job = user;
    int64_t first = (int64_t)task * dora_band,
            last = first + dora_band < job->rows ? first + dora_band : job->rows;
    float *sums = job->sums + (int64_t)task * job->width;
    memset(sums, 0, (size_t)job->width * sizeof *sums);
    for (int64_t from = 0; from < job->width; from += dora_columns) {
        int64_t end = from + dora_columns < job->width ? from + dora_columns : job->width;
        for (int64_t t = first; t < last; t++) rescale_grad_row(job, t, from, end, sums);
    }
}

/* dm += (Σ over bands, in order) / n */
static void rescale_sums_task(void *user, int task, int worker) {
    (void)worker;
    const struct rescale_grad_job *job = user;
    float *dm = job->call->in[4].data;
    int64_t from = (int64_t)task * dora_columns, end = from + dora_columns;
    if (end > job->width) end = job->width;
    for (int64_t i = from; i < end; i += lanes) {
        vf sum = {0};
        for (int64_t b = 0; b < dora_bands(job->rows); b++)
            sum += v_read(job->sums + b * job->width, DTYPE_F32, i, end - i);
        sum = v_fma(sum, v_read(job->inverse, DTYPE_F32, i, end - i), v_read(dm, DTYPE_F32, i, end - i));
        v_write(dm, DTYPE_F32, i, end - i, sum);
    }
}

static void rescale_grad_run(const struct cpu_call *call) {
    struct rescale_grad_job job = {.call = call, .rows = call->in[1].dim[0], .width = call->in[1].dim[1]};
    float *scale = call->workspace, *inverse = scale + job.width;
    dora_ratios(scale, call->in[2].data, call->in[3].data, job.width);
    dora_ratios(inverse, NULL, call->in[3].data, job.width);
    job.scale = scale;
    job.inverse = inverse;
    job.sums = inverse + job.width;
    pool_run(call->pool, (int)dora_bands(job.rows), rescale_grad_task, &job);
    if (call->in[4].data)
        pool_run(call->pool, (int)((job.width + dora_columns - 1) / dora_columns), rescale_sums_task, &job);
}

/* Adds the squares of `rows` rows of w + α b a at `vectors` vectors of columns, the last of which has
 * `count`. w [rows, norm_columns], b [rows, rank]; a: its first row at these columns, rows `in` apart. */
static inline __attribute__((always_inline)) void row_norms_step(const float *w, const float *b,
                                                                 const float *a, int64_t in, int64_t rank,
                                                                 float alpha, const int rows,
                                                                 const int vectors, int64_t count, vf *sums) {
    vf update[norm_group][2] = {{{0}}};
    for (int64_t k = 0; k < rank; k++) {
        vf low = v_read(a + k * in, DTYPE_F32, 0, count),
           high = vectors > 1 ? v_load(a + k * in + lanes) : low;
        for (int r = 0; r < rows; r++) {
            vf factor = v_splat(b[r * rank + k]);
            update[r][0] = v_fma(factor, low, update[r][0]);
            if (vectors > 1) update[r][1] = v_fma(factor, high, update[r][1]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            vf x = v_fma(v_splat(alpha), update[r][v],
                         v_read(w + r * norm_columns + v * lanes, DTYPE_F32, 0, count));
            sums[r] = v_fma(x, x, sums[r]);
        }
}

static inline __attribute__((always_inline)) void row_norms_rows(const float *w, const float *b,
                                                                 const float *a, int64_t in, int64_t rank,
                                                                 float alpha, const int rows, int64_t columns,
                                                                 vf *sums) {
    int64_t i = 0;
    for (; i + 2 * lanes <= columns; i += 2 * lanes)
        row_norms_step(w + i, b, a + i, in, rank, alpha, rows, 2, lanes, sums);
    for (; i < columns; i += lanes)
        row_norms_step(w + i, b, a + i, in, rank, alpha, rows, 1, columns - i, sums);
}

static void row_norms_task(void *user, int task, int worker) {
    (void)worker;
    const struct cpu_call *call = user;
    const struct operand *w = &call->in[0];
    const struct stored stored = operand_stored(w);
    const float *a = call->in[1].data, *b = call->in[2].data;
    int64_t out = w->dim[0], in = w->dim[1], rank = call->in[1].dim[0], first = (int64_t)task * norm_rows;
    int64_t last = first + norm_rows < out ? first + norm_rows : out, rows;
    float alpha = call->attributes->alpha;
    _Alignas(64) float decoded[norm_group * norm_columns];
    vf sums[norm_rows] = {{0}};
    for (int64_t from = 0; from < in; from += norm_columns) {
        int64_t columns = in - from < norm_columns ? in - from : norm_columns;
        for (int64_t row = first; row < last; row += rows) {
            rows = last - row < norm_group ? 1 : norm_group;
            for (int64_t r = 0; r < rows; r++)
                cpu_stored_load(decoded + r * norm_columns, &stored, row + r, from, columns, call->features);
            if (rows == norm_group)
                row_norms_rows(decoded, b + row * rank, a + from, in, rank, alpha, norm_group, columns,
                               sums + (row - first));
            else
                row_norms_rows(decoded, b + row * rank, a + from, in, rank, alpha, 1, columns,
                               sums + (row - first));
        }
    }
    for (int64_t row = first; row < last; row++)
        ((float *)call->in[3].data)[row] = sqrtf(v_sum(sums[row - first]));
}

static void row_norms_run(const struct cpu_call *call) {
    struct cpu_call job = *call;
    pool_run(call->pool, (int)((call->in[0].dim[0] + norm_rows - 1) / norm_rows), row_norms_task, &job);
}

#endif
