/* Kernels over rows and elements: the table, the kernels that only move rows, and the plain C forms of
 * those that compute (elementwise_body.h). */
#include "device/cpu/elementwise_body.h"

#include "base/largest.h"
#include "device/cpu/elementwise_kernels.h"
#include "tensor/stored_parts.h"

/* A row of the norm's weight, when it is not stored as f32. */
static size_t norm_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)threads;
    int index = node->op == OP_NORM ? 1 : 2;
    return (size_t)graph->values[node->input[index]].dim[0] * sizeof(float);
}

/* cos and sin of position · frequency in f64: angles reach 10⁵ radians, where f32 has no digits left. */
static void rope_table_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const int32_t *positions = job->call->in[0].data;
    const float *frequencies = job->call->in[1].data;
    int64_t half = job->width / 2;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        float *row = (float *)job->call->out[0].data + t * job->width;
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)positions[t] * (double)frequencies[i];
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

static void rope_table_c(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], 2 * call->in[1].dim[0], NULL, rope_table_task);
}

/* A row of any stored type to f32, bf16 or f16. `buffer` holds a row; unused for f32. */
static void convert_row(const struct cpu_call *call, void *out, enum dtype out_type, const struct stored *in,
                        int64_t row, float *buffer) {
    int64_t width = in->columns;
    if (in->dtype == out_type) {
        memcpy(out, stored_codes(in, row, 0), (size_t)(width * v_bytes(out_type)));
    } else if (out_type == DTYPE_F32) {
        cpu_stored_load(out, in, row, 0, width, call->features);
    } else {
        cpu_stored_load(buffer, in, row, 0, width, call->features);
        cpu_row_store(out, buffer, out_type, width, call->features);
    }
}

/* One row per worker, for rows that change their type on the way. */
static size_t row_buffers(const struct graph *graph, const struct node *node, int threads) {
    return (size_t)graph->values[node->output[0]].dim[1] * sizeof(float) * (size_t)threads;
}

/* y[t] = table[index[t]]: embedding and gather. */
static void take_rows_task(void *user, int task, int worker) {
    const struct row_job *job = user;
    const struct operand *table = &job->call->in[0], *y = &job->call->out[0];
    const int32_t *index = job->call->in[1].data;
    const struct stored stored = operand_stored(table);
    float *buffer = (float *)job->call->workspace + worker * job->width;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++)
        convert_row(job->call, row_out(y, t, job->width), y->dtype, &stored, index[t], buffer);
}

static void take_rows_c(const struct cpu_call *call) {
    rows_run(call, call->in[1].dim[0], call->in[0].dim[1], NULL, take_rows_task);
}

static void copy_task(void *user, int task, int worker) {
    const struct row_job *job = user;
    const struct operand *x = &job->call->in[0], *y = &job->call->out[0];
    struct stored stored = operand_stored(x);
    float *buffer = (float *)job->call->workspace + worker * job->width;
    stored.columns = job->width; /* 1 where there is one number a row */
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++)
        convert_row(job->call, row_out(y, t, job->width), y->dtype, &stored, t, buffer);
}

static void copy_c(const struct cpu_call *call) {
    const struct operand *x = &call->in[0];
    rows_run(call, x->dim[0], x->rank > 1 ? x->dim[1] : 1, NULL, copy_task);
}

/* The first of the ascending rows that is not below `row`. */
static int64_t lower_bound(const int32_t *rows, int64_t count, int64_t row) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (rows[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* dx[rows[m]] = dy[m], zero elsewhere. rows ascend; rows that are named again add up. */
static void scatter_task(void *user, int task, int worker) {
    const struct row_job *job = user;
    const struct operand *dy = &job->call->in[0], *dx = &job->call->out[0];
    const int32_t *rows = job->call->in[1].data;
    const struct stored from = operand_stored(dy);
    int64_t count = job->call->in[1].dim[0], first = task * job->rows_per_task, end = last_row(job, task);
    float *buffer = (float *)job->call->workspace + worker * job->width;
    memset(row_out(dx, first, job->width), 0, (size_t)((end - first) * job->width) * element_bytes(dx));
    for (int64_t m = lower_bound(rows, count, first); m < count && rows[m] < end; m++) {
        void *out = row_out(dx, rows[m], job->width);
        if (m > 0 && rows[m - 1] == rows[m])
            for (int64_t i = 0; i < job->width; i += lanes)
                v_write(out, dx->dtype, i, job->width - i,
                        v_read(out, dx->dtype, i, job->width - i) +
                            v_read(row_of(dy, m, job->width), dy->dtype, i, job->width - i));
        else
            convert_row(job->call, out, dx->dtype, &from, m, buffer);
    }
}

static void scatter_c(const struct cpu_call *call) {
    rows_run(call, call->out[0].dim[0], call->out[0].dim[1], NULL, scatter_task);
}

static void likeliest_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    int32_t *ids = job->call->out[0].data;
    for (int64_t m = task * job->rows_per_task; m < last_row(job, task); m++)
        ids[m] = (int32_t)floats_largest((const float *)job->call->in[0].data + m * job->width, job->width);
}

static void likeliest_c(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], call->in[0].dim[1], NULL, likeliest_task);
}

const struct cpu_kernel cpu_kernels_elementwise[] = {
    {OP_LIKELIEST, "likeliest_c", 0, likeliest_c, NULL},
    {OP_EMBEDDING, "embedding_c", 0, take_rows_c, row_buffers},
    {OP_GATHER, "gather_c", 0, take_rows_c, row_buffers},
    {OP_COPY, "copy_c", 0, copy_c, row_buffers},
    {OP_SCATTER, "scatter_c", 0, scatter_c, row_buffers},
    {OP_ROPE_TABLE, "rope_table_c", 0, rope_table_c, NULL},
#if defined(__x86_64__)
    {OP_NORM, "norm_avx512", CPU_AVX512, norm_avx512, norm_workspace},
    {OP_NORM_GRAD, "norm_grad_avx512", CPU_AVX512, norm_grad_avx512, norm_workspace},
    {OP_NORM_GRAD_W, "norm_grad_w_avx512", CPU_AVX512, norm_grad_w_avx512, NULL},
    {OP_BIAS_GRAD, "bias_grad_avx512", CPU_AVX512, bias_grad_avx512, NULL},
    {OP_EMBEDDING_GRAD, "embedding_grad_avx512", CPU_AVX512, embedding_grad_avx512, NULL},
    {OP_ROPE, "rope_avx512", CPU_AVX512, rope_avx512, NULL},
    {OP_GLU, "glu_avx512", CPU_AVX512, glu_avx512, NULL},
    {OP_GLU_GRAD, "glu_grad_avx512", CPU_AVX512, glu_grad_avx512, NULL},
    {OP_ADD, "add_avx512", CPU_AVX512, add_avx512, NULL},
    {OP_DROPOUT, "dropout_avx512", CPU_AVX512, dropout_avx512, NULL},
    {OP_NOISE, "noise_avx512", CPU_AVX512, noise_avx512, NULL},
    {OP_NORM, "norm_avx2", CPU_AVX2, norm_avx2, norm_workspace},
    {OP_NORM_GRAD, "norm_grad_avx2", CPU_AVX2, norm_grad_avx2, norm_workspace},
    {OP_NORM_GRAD_W, "norm_grad_w_avx2", CPU_AVX2, norm_grad_w_avx2, NULL},
    {OP_BIAS_GRAD, "bias_grad_avx2", CPU_AVX2, bias_grad_avx2, NULL},
    {OP_EMBEDDING_GRAD, "embedding_grad_avx2", CPU_AVX2, embedding_grad_avx2, NULL},
    {OP_ROPE, "rope_avx2", CPU_AVX2, rope_avx2, NULL},
    {OP_GLU, "glu_avx2", CPU_AVX2, glu_avx2, NULL},
    {OP_GLU_GRAD, "glu_grad_avx2", CPU_AVX2, glu_grad_avx2, NULL},
    {OP_ADD, "add_avx2", CPU_AVX2, add_avx2, NULL},
    {OP_DROPOUT, "dropout_avx2", CPU_AVX2, dropout_avx2, NULL},
    {OP_NOISE, "noise_avx2", CPU_AVX2, noise_avx2, NULL},
#endif
    {OP_NORM, "norm_c", 0, norm_run, norm_workspace},
    {OP_NORM_GRAD, "norm_grad_c", 0, norm_grad_run, norm_workspace},
    {OP_NORM_GRAD_W, "norm_grad_w_c", 0, norm_grad_w_run, NULL},
    {OP_BIAS_GRAD, "bias_grad_c", 0, bias_grad_run, NULL},
    {OP_EMBEDDING_GRAD, "embedding_grad_c", 0, embedding_grad_run, NULL},
    {OP_ROPE, "rope_c", 0, rope_run, NULL},
    {OP_GLU, "glu_c", 0, glu_run, NULL},
    {OP_GLU_GRAD, "glu_grad_c", 0, glu_grad_run, NULL},
    {OP_ADD, "add_c", 0, add_run, NULL},
    {OP_DROPOUT, "dropout_c", 0, dropout_run, NULL},
    {OP_NOISE, "noise_c", 0, noise_run, NULL},
    {.run = NULL},
};
