/* Kernels that go over rows or elements once, written for any vector width (simd_vector.h). Included by
 * one file per instruction set.
 *
 * Activations are f32, bf16 or f16 in any mix; everything is computed in f32. A task is a fixed number of
 * rows or elements, and a row's sum is made inside one task. */
#include "base/rng.h"
#include "device/cpu/row_tasks.h"
#include "device/cpu/simd_vector.h"

/* Norm weights as f32, decoded into the workspace where they are stored otherwise. */
static const float *norm_weight(const struct cpu_call *call, const struct operand *weight) {
    if (weight->dtype == DTYPE_F32 && (uintptr_t)weight->data % 4 == 0) return weight->data;
    cpu_row_load(call->workspace, weight->data, weight->dtype, weight->dim[0], call->features);
    return call->workspace;
}

/* y = x · rstd · w,  rstd = (mean x² + ε)^-½ */
static void norm_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in, *out = job->call->out;
    enum dtype x_type = in[0].dtype, y_type = out[0].dtype;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        const void *x = row_of(&in[0], t, job->width);
        void *y = row_out(&out[0], t, job->width);
        vf sum = {0};
        for (int64_t i = 0; i < job->width; i += lanes) {
            vf v = v_read(x, x_type, i, job->width - i);
            sum = v_fma(v, v, sum);
        }
        float rstd = 1.0f / sqrtf(v_sum(sum) / (float)job->width + job->call->attributes->epsilon);
        if (out[1].data) ((float *)out[1].data)[t] = rstd;
        for (int64_t i = 0; i < job->width; i += lanes) {
            vf v = v_read(x, x_type, i, job->width - i),
               w = v_read(job->weight, DTYPE_F32, i, job->width - i);
            v_write(y, y_type, i, job->width - i, v * rstd * w);
        }
    }
}

static void norm_run(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], call->in[0].dim[1], norm_weight(call, &call->in[1]), norm_task);
}

/* dx = rstd · g - x · rstd³ · mean(g · x) + addend,  g = dy · w */
static void norm_grad_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in, *out = job->call->out;
    enum dtype dy_type = in[0].dtype, x_type = in[1].dtype, addend_type = in[4].dtype;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        const void *dy = row_of(&in[0], t, job->width), *x = row_of(&in[1], t, job->width);
        const void *addend = in[4].data ? row_of(&in[4], t, job->width) : NULL;
        void *dx = row_out(&out[0], t, job->width);
        vf sum = {0};
        for (int64_t i = 0; i < job->width; i += lanes) {
            int64_t n = job->width - i;
            sum = v_fma(v_read(dy, dy_type, i, n) * v_read(job->weight, DTYPE_F32, i, n),
                        v_read(x, x_type, i, n), sum);
        }
        float rstd = ((const float *)in[3].data)[t];
        float factor = rstd * rstd * rstd * (v_sum(sum) / (float)job->width);
        for (int64_t i = 0; i < job->width; i += lanes) {
            int64_t n = job->width - i;
            vf g = v_read(dy, dy_type, i, n) * v_read(job->weight, DTYPE_F32, i, n) * rstd;
            vf result = v_fma(v_read(x, x_type, i, n), v_splat(-factor), g);
            if (addend) result += v_read(addend, addend_type, i, n);
            v_write(dx, out[0].dtype, i, n, result);
        }
    }
}

static void norm_grad_run(const struct cpu_call *call) {
    rows_run(call, call->in[1].dim[0], call->in[1].dim[1], norm_weight(call, &call->in[2]), norm_grad_task);
}

/* Sums over rows, for the gradients of weights: a task owns some columns, so that each sum is made in the
 * order of the rows whatever the threads. */
enum { columns_per_task = 64 };

static void columns_run(const struct cpu_call *call, int64_t width, pool_task run) {
    struct row_job job = {.call = call, .rows = call->in[0].dim[0], .width = width};
    pool_run(call->pool, (int)((width + columns_per_task - 1) / columns_per_task), run, &job);
}

/* out += Σ_t dy[t] (· x[t] · rstd[t]) over the task's columns. x NULL: without. */
static inline __attribute__((always_inline)) void column_sums(const struct row_job *job, int task,
                                                              const struct operand *dy,
                                                              const struct operand *x, const float *rstd,
                                                              float *out) {
    int64_t from = (int64_t)task * columns_per_task, left = job->width - from;
    int64_t count = left < columns_per_task ? left : columns_per_task;
    vf sums[columns_per_task / lanes] = {{0}};
    for (int64_t t = 0; t < job->rows; t++) {
        const void *g = row_of(dy, t, job->width), *v = x ? row_of(x, t, job->width) : NULL;
        for (int64_t i = 0; i < count; i += lanes) {
            vf term = v_read(g, dy->dtype, from + i, count - i);
            if (x) term = term * v_read(v, x->dtype, from + i, count - i) * rstd[t];
            sums[i / lanes] += term;
        }
    }
    for (int64_t i = 0; i < count; i += lanes)
        v_write(out, DTYPE_F32, from + i, count - i,
                v_read(out, DTYPE_F32, from + i, count - i) + sums[i / lanes]);
}

/* db += Σ_t dy[t] */
static void bias_grad_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    column_sums(job, task, &job->call->in[0], NULL, NULL, job->call->in[1].data);
}

static void bias_grad_run(const struct cpu_call *call) {
    columns_run(call, call->in[0].dim[1], bias_grad_task);
}

/* dw += Σ_t dy[t] · x[t] · rstd[t] */
static void norm_grad_w_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in;
    column_sums(job, task, &in[0], &in[1], in[2].data, in[3].data);
}

static void norm_grad_w_run(const struct cpu_call *call) {
    columns_run(call, call->in[0].dim[1], norm_grad_w_task);
}

/* dw[ids[t]] += dy[t] */
static void embedding_grad_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *dy = &job->call->in[0];
    const int32_t *ids = job->call->in[1].data;
    int64_t from = (int64_t)task * columns_per_task, left = job->width - from;
    int64_t end = from + (left < columns_per_task ? left : columns_per_task);
    for (int64_t t = 0; t < job->rows; t++) {
        float *dw = (float *)job->call->in[2].data + ids[t] * job->width;
        const void *g = row_of(dy, t, job->width);
        for (int64_t i = from; i < end; i += lanes)
            v_write(dw, DTYPE_F32, i, end - i,
                    v_read(dw, DTYPE_F32, i, end - i) + v_read(g, dy->dtype, i, end - i));
    }
}

static void embedding_grad_run(const struct cpu_call *call) {
    columns_run(call, call->in[0].dim[1], embedding_grad_task);
}

/* y[i] = x[i] cos - x[i + d/2] sin;  y[i + d/2] = x[i + d/2] cos + x[i] sin;  y may be x. */
static void rope_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in, *out = job->call->out;
    int64_t d = in[1].dim[1], half = d / 2;
    float sign = job->call->attributes->inverse ? -1.0f : 1.0f;
    enum dtype x_type = in[0].dtype, y_type = out[0].dtype;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        const void *x = row_of(&in[0], t, job->width);
        void *y = row_out(&out[0], t, job->width);
        const float *cosines = (const float *)in[1].data + t * d, *sines = cosines + half;
        for (int64_t head = 0; head < job->width; head += d)
            for (int64_t i = 0; i < half; i += lanes) {
                int64_t n = half - i;
                vf c = v_read(cosines, DTYPE_F32, i, n), s = v_read(sines, DTYPE_F32, i, n) * sign;
                vf low = v_read(x, x_type, head + i, n), high = v_read(x, x_type, head + half + i, n);
                v_write(y, y_type, head + i, n, v_fma(low, c, -(high * s)));
                v_write(y, y_type, head + half + i, n, v_fma(high, c, low * s));
            }
    }
}

static void rope_run(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], call->in[0].dim[1], NULL, rope_task);
}

/* The elementwise kernels see their operands as one row, cut into rows of task_elements. */
static inline int64_t piece(const struct row_job *job, int task, int64_t *first) {
    *first = (int64_t)task * task_elements;
    int64_t left = job->width - *first;
    return left < task_elements ? left : task_elements;
}

static void pieces_run(const struct cpu_call *call, int64_t elements, pool_task run) {
    struct row_job job = {.call = call, .width = elements};
    pool_run(call->pool, (int)((elements + task_elements - 1) / task_elements), run, &job);
}

/* The operands of a pointwise kernel. Where all have one type, a loop for that type alone runs: the type is
 * then a constant to the compiler, and it tests nothing inside the loop. */
struct pointwise {
    const void *in[3];
    void *out[2];
    enum dtype in_type[3], out_type[2];
};

static struct pointwise pointwise_open(const struct cpu_call *call) {
    struct pointwise p;
    for (int i = 0; i < 3; i++) {
        p.in[i] = call->in[i].data;
        p.in_type[i] = call->in[i].dtype;
    }
    for (int o = 0; o < 2; o++) {
        p.out[o] = call->out[o].data;
        p.out_type[o] = call->out[o].dtype;
    }
    return p;
}

typedef void pointwise_step(const struct pointwise *p, int64_t at, int64_t count);

/* `ins` and `outs` operands; `step` does up to `lanes` elements. */
static inline __attribute__((always_inline)) void
pointwise_run(struct pointwise p, int ins, int outs, int64_t first, int64_t n, pointwise_step *step) {
    bool same = true;
    for (int i = 1; i < ins; i++) same = same && p.in_type[i] == p.in_type[0];
    for (int o = 0; o < outs; o++) same = same && p.out_type[o] == p.in_type[0];
    int64_t at = 0;
#define POINTWISE_LOOP(type)                                                \
    if (same && p.in_type[0] == type) {                                     \
        const struct pointwise one = {.in = {p.in[0], p.in[1], p.in[2]},    \
                                      .out = {p.out[0], p.out[1]},          \
                                      .in_type = {type, type, type},        \
                                      .out_type = {type, type}};            \
        for (; at + lanes <= n; at += lanes) step(&one, first + at, lanes); \
    }
    POINTWISE_LOOP(DTYPE_F32)
    POINTWISE_LOOP(DTYPE_BF16)
    POINTWISE_LOOP(DTYPE_F16)
#undef POINTWISE_LOOP
    for (; at < n; at += lanes) step(&p, first + at, n - at);
}

/* y = gate · σ(gate) · up */
static inline __attribute__((always_inline)) void glu_step(const struct pointwise *p, int64_t at,
                                                           int64_t count) {
    vf g = v_read(p->in[0], p->in_type[0], at, count), up = v_read(p->in[1], p->in_type[1], at, count);
    v_write(p->out[0], p->out_type[0], at, count, g * v_sigmoid(g) * up);
}

static void glu_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    int64_t first, n = piece(job, task, &first);
    pointwise_run(pointwise_open(job->call), 2, 1, first, n, glu_step);
}

static void glu_run(const struct cpu_call *call) {
    pieces_run(call, operand_elements(&call->in[0]), glu_task);
}

/* dgate = dy · up · σ · (1 + gate · (1 - σ));  dup = dy · gate · σ;  either may lie on its input. */
static inline __attribute__((always_inline)) void glu_grad_step(const struct pointwise *p, int64_t at,
                                                                int64_t count) {
    vf g = v_read(p->in[0], p->in_type[0], at, count), up = v_read(p->in[1], p->in_type[1], at, count);
    vf dy = v_read(p->in[2], p->in_type[2], at, count), sigmoid = v_sigmoid(g);
    vf slope = sigmoid * v_fma(g, v_splat(1.0f) - sigmoid, v_splat(1.0f));
    if (p->out[0]) v_write(p->out[0], p->out_type[0], at, count, dy * up * slope);
    if (p->out[1]) v_write(p->out[1], p->out_type[1], at, count, dy * g * sigmoid);
}

static void glu_grad_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    int64_t first, n = piece(job, task, &first);
    pointwise_run(pointwise_open(job->call), 3, 2, first, n, glu_grad_step);
}

static void glu_grad_run(const struct cpu_call *call) {
    pieces_run(call, operand_elements(&call->in[0]), glu_grad_task);
}

static inline __attribute__((always_inline)) void add_step(const struct pointwise *p, int64_t at,
                                                           int64_t count) {
    vf a = v_read(p->in[0], p->in_type[0], at, count), b = v_read(p->in[1], p->in_type[1], at, count);
    v_write(p->out[0], p->out_type[0], at, count, a + b);
}

static void add_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    int64_t first, n = piece(job, task, &first);
    pointwise_run(pointwise_open(job->call), 2, 1, first, n, add_step);
}

static void add_run(const struct cpu_call *call) {
    pieces_run(call, operand_elements(&call->out[0]), add_task);
}

/* Philox4x32-10 of base/rng.h for `lanes` neighbouring counters; word w of counter j lands in words[4 j + w],
 * the order of the channels. */
static inline void philox_lanes(uint64_t seed, uint32_t first, const uint32_t rest[3],
                                uint32_t words[4 * lanes]) {
    vu c0 = (vu)v_iota() + first, c1 = vu_splat(rest[0]), c2 = vu_splat(rest[1]), c3 = vu_splat(rest[2]);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        vu high0, low0, high1, low1;
        v_multiply_wide(c0, 0xD2511F53u, &high0, &low0);
        v_multiply_wide(c2, 0xCD9E8D57u, &high1, &low1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32_t planes[4][lanes];
    memcpy(planes[0], &c0, sizeof c0);
    memcpy(planes[1], &c1, sizeof c1);
    memcpy(planes[2], &c2, sizeof c2);
    memcpy(planes[3], &c3, sizeof c3);
    for (int j = 0; j < lanes; j++)
        for (int w = 0; w < 4; w++) words[4 * j + w] = planes[w][j];
}

/* A row of y from a row of x and the words that are drawn for its elements. */
static inline __attribute__((always_inline)) void drawn_row(const struct row_job *job, int64_t t,
                                                            vf (*element)(vu drawn, vf x, const void *user),
                                                            const void *user) {
    const struct operand *in = job->call->in, *out = job->call->out;
    const uint32_t *random = in[3].data;
    uint64_t seed = (uint64_t)random[1] << 32 | random[0];
    const void *x = row_of(&in[0], t, job->width);
    void *y = row_out(&out[0], t, job->width);
    uint32_t rest[3] = {((const uint32_t *)in[1].data)[t], ((const uint32_t *)in[2].data)[t],
                        random[2] << 16 | (uint32_t)job->call->attributes->module};
    for (int64_t i = 0; i < job->width; i += 4 * lanes) {
        uint32_t words[4 * lanes];
        philox_lanes(seed, (uint32_t)(i / 4), rest, words);
        for (int64_t j = 0; j < 4 * lanes && i + j < job->width; j += lanes) {
            vu drawn;
            memcpy(&drawn, words + j, sizeof drawn);
            vf v = v_read(x, in[0].dtype, i + j, job->width - i - j);
            v_write(y, out[0].dtype, i + j, job->width - i - j, element(drawn, v, user));
        }
    }
}

struct dropping {
    vu threshold;
    float scale;
    bool inverse;
};

static inline vf dropped(vu drawn, vf x, const void *user) {
    const struct dropping *d = user;
    vf kept = v_select((vi)(drawn < d->threshold), (vf){0}, x * d->scale);
    return d->inverse ? x - kept : kept;
}

static void dropout_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    double p = (double)job->call->attributes->probability;
    struct dropping d = {.threshold = vu_splat((uint32_t)floor(p * 4294967296.0)),
                         .scale = (float)(1 / (1 - p)),
                         .inverse = job->call->attributes->inverse};
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) drawn_row(job, t, dropped, &d);
}

static void dropout_run(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], call->in[0].dim[1], NULL, dropout_task);
}

/* y = x + α / √(L D) · u: u from the same words as dropout's, as signed numbers of 32 bits. */
static inline vf noisy(vu drawn, vf x, const void *user) {
    return v_fma(__builtin_convertvector((vi)drawn, vf), *(const vf *)user, x);
}

static void noise_task(void *user, int task, int worker) {
    (void)worker;
    const struct row_job *job = user;
    const struct operand *in = job->call->in;
    const int32_t *starts = in[4].data;
    for (int64_t t = task * job->rows_per_task; t < last_row(job, task); t++) {
        int64_t segment = cpu_task_owner(starts, in[4].dim[0] - 1, (int)t);
        double elements = (double)(starts[segment + 1] - starts[segment]) * (double)job->width;
        vf size = v_splat((float)((double)job->call->attributes->scale / sqrt(elements) * 0x1p-31));
        drawn_row(job, t, noisy, &size);
    }
}

static void noise_run(const struct cpu_call *call) {
    rows_run(call, call->in[0].dim[0], call->in[0].dim[1], NULL, noise_task);
}
