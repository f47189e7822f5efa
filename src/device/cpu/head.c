/* The head with cross entropy, and the loss. Logits exist for a chunk of target rows at a time, as f32, in at
 * most 64 MiB (or one row), since w is decoded twice for each chunk; in four times as much where w is
 * trained, since its gradient is read and written for each:
 *
 *   l = x wᵀ + β low upᵀ,  logp = l[target] - log Σ exp l,  dl = dlogp (1[v = target] - p),
 *   dx = dl w,  dw += dlᵀ x,  dlow = β dl up,  dup += β dlᵀ low
 *
 * dl takes the place of l, in the type that the product would round it to anyway. */
#include "device/cpu/gemm.h"
#include "device/cpu/head_body.h"
#include "device/cpu/head_kernels.h"
#include "device/cpu/kernel.h"

enum { logit_budget = 64 << 20, logit_budget_trained = 256 << 20 };

struct head_chunk {
    const struct cpu_call *call;
    float *logits; /* [rows, stride] */
    int64_t row, stride, vocabulary;
    bool gradient;
    enum dtype stored;
    const struct operand *low, *up; /* data NULL: there are none */
    float beta;
};

/* Longer than the vocabulary, so that rows do not share the sets of a cache. */
static int64_t logit_stride(int64_t vocabulary) { return ((vocabulary + 15) & ~(int64_t)15) + 16; }

static int64_t most_rows(int64_t vocabulary, bool trained) {
    int64_t budget = trained ? logit_budget_trained : logit_budget,
            most = budget / (logit_stride(vocabulary) * (int64_t)sizeof(float));
    return most < 1 ? 1 : most;
}

int64_t cpu_head_chunks(int64_t rows, int64_t vocabulary, bool trained) {
    int64_t most = most_rows(vocabulary, trained);
    return (rows + most - 1) / most;
}

static int64_t chunk_rows(int64_t rows, int64_t vocabulary, bool trained) {
    int64_t chunks = cpu_head_chunks(rows, vocabulary, trained);
    return chunks > 1 ? (rows + chunks - 1) / chunks : rows;
}

static size_t product_workspace(int64_t rows, int64_t vocabulary, int64_t width, enum dtype w_type,
                                int threads) {
    size_t most = 0;
    for (int i = 0; i < cpu_gemm_count; i++) {
        size_t nt = cpu_gemms[i].workspace(GEMM_NT, rows, vocabulary, width, w_type, threads);
        size_t nn = cpu_gemms[i].workspace(GEMM_NN, rows, width, vocabulary, w_type, threads);
        size_t tn = cpu_gemms[i].workspace(GEMM_TN, vocabulary, width, rows, DTYPE_F32, threads);
        if (nt > most) most = nt;
        if (nn > most) most = nn;
        if (tn > most) most = tn;
    }
    return most;
}

static size_t head_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    int64_t most = most_rows(w->dim[0], node->op == OP_HEAD_GRAD && node->input[4] >= 0), rows = x->dim[0];
    if (rows > most) rows = most; /* a run with fewer rows may have longer chunks than the planned one */
    return (size_t)(rows * logit_stride(w->dim[0])) * sizeof(float) +
           product_workspace(rows, w->dim[0], w->dim[1], w->dtype, threads);
}

static float run_row(const struct head_row *row, unsigned features) {
#if defined(__x86_64__)
    if (features & CPU_AVX512) return head_row_avx512(row);
    if (features & CPU_AVX2) return head_row_avx2(row);
#endif
    (void)features;
    return head_row_run(row);
}

static void logits_task(void *user, int task, int worker) {
    const struct head_chunk *chunk = user;
    const struct cpu_call *call = chunk->call;
    (void)worker;
    int64_t m = chunk->row + task;
    struct head_row row = {.logits = chunk->logits + task * chunk->stride,
                           .count = chunk->vocabulary,
                           .target = ((const int32_t *)call->in[2].data)[m],
                           .dlogp = chunk->gradient ? ((const float *)call->in[3].data)[m] : 0,
                           .gradient = chunk->gradient,
                           .stored = chunk->stored};
    float *logp = call->out[0].data, right = row.logits[row.target];
    float lse = run_row(&row, call->features);
    if (logp) logp[m] = right - lse;
}

static const void *row_of(const struct operand *x, int64_t row) {
    return (const char *)x->data + row * x->dim[1] * (int64_t)dtype_row(x->dtype)->bytes;
}

/* The products of a chunk: rows [row, row + count) of x, logits and dx. An adapter of small rank is folded.
 */
static struct gemm logits_product(const struct head_chunk *chunk, int64_t count) {
    const struct operand *x = &chunk->call->in[0], *w = &chunk->call->in[1];
    int64_t width = w->dim[1], rank = chunk->low->data ? chunk->low->dim[1] : 0;
    struct gemm product = {
        .form = GEMM_NT,
        .m = count,
        .n = chunk->vocabulary,
        .k = width,
        .x = (const char *)x->data + chunk->row * width * dtype_row(x->dtype)->bytes,
        .x_type = x->dtype,
        .ldx = width,
        .w = w->data,
        .w_type = w->dtype,
        .ldw = width,
        .w_parts = w->part,
        .y = chunk->logits,
        .y_type = DTYPE_F32,
        .ldy = chunk->stride,
        .alpha = 1,
        .exact = chunk->call->exact,
    };
    if (!rank || rank > gemm_most_rank) return product;
    product.rank = rank;
    product.low = row_of(chunk->low, chunk->row);
    product.low_type = chunk->low->dtype;
    product.up = chunk->up->data;
    product.up_type = chunk->up->dtype;
    product.beta = chunk->beta;
    return product;
}

/* l += β low upᵀ, of a rank that is not folded */
static struct gemm low_product(const struct head_chunk *chunk, int64_t count) {
    int64_t rank = chunk->low->dim[1];
    return (struct gemm){
        .form = GEMM_NT,
        .m = count,
        .n = chunk->vocabulary,
        .k = rank,
        .x = row_of(chunk->low, chunk->row),
        .x_type = chunk->low->dtype,
        .ldx = rank,
        .w = chunk->up->data,
        .w_type = chunk->up->dtype,
        .ldw = rank,
        .y = chunk->logits,
        .y_type = DTYPE_F32,
        .ldy = chunk->stride,
        .alpha = chunk->beta,
        .addend = chunk->logits,
        .addend_type = DTYPE_F32,
    };
}

/* dlow = β dl up */
static struct gemm grad_low_product(const struct head_chunk *chunk, int64_t count) {
    const struct operand *dlow = &chunk->call->out[2];
    struct gemm product = {
        .form = GEMM_NN,
        .m = count,
        .n = chunk->up->dim[1],
        .k = chunk->vocabulary,
        .x = chunk->logits,
        .x_type = chunk->stored,
        .ldx = chunk->stored == DTYPE_F32 ? chunk->stride : 2 * chunk->stride,
        .w = chunk->up->data,
        .w_type = chunk->up->dtype,
        .ldw = chunk->up->dim[1],
        .y = (void *)(uintptr_t)row_of(dlow, chunk->row),
        .y_type = dlow->dtype,
        .ldy = chunk->up->dim[1],
        .alpha = chunk->beta,
    };
    return product;
}

/* dup += β dlᵀ low */
static struct gemm grad_up_product(const struct head_chunk *chunk, int64_t count) {
    const struct operand *dup = &chunk->call->in[7];
    return (struct gemm){
        .form = GEMM_TN,
        .m = chunk->vocabulary,
        .n = dup->dim[1],
        .k = count,
        .x = chunk->logits,
        .x_type = chunk->stored,
        .ldx = chunk->stored == DTYPE_F32 ? chunk->stride : 2 * chunk->stride,
        .w = row_of(chunk->low, chunk->row),
        .w_type = chunk->low->dtype,
        .ldw = dup->dim[1],
        .y = dup->data,
        .y_type = dup->dtype,
        .ldy = dup->dim[1],
        .alpha = chunk->beta,
        .addend = dup->data,
        .addend_type = dup->dtype,
    };
}

/* dx = dl w */
static struct gemm grad_x_product(const struct head_chunk *chunk, int64_t count) {
    const struct operand *w = &chunk->call->in[1], *dx = &chunk->call->out[1];
    int64_t width = w->dim[1];
    return (struct gemm){
        .form = GEMM_NN,
        .m = count,
        .n = width,
        .k = chunk->vocabulary,
        .x = chunk->logits,
        .x_type = chunk->stored,
        .ldx = chunk->stored == DTYPE_F32 ? chunk->stride : 2 * chunk->stride,
        .w = w->data,
        .w_type = w->dtype,
        .ldw = width,
        .w_parts = w->part,
        .y = (char *)dx->data + chunk->row * width * dtype_row(dx->dtype)->bytes,
        .y_type = dx->dtype,
        .ldy = width,
        .alpha = 1,
    };
}

/* dw += dlᵀ x */
static struct gemm grad_w_product(const struct head_chunk *chunk, int64_t count) {
    const struct operand *x = &chunk->call->in[0], *dw = &chunk->call->in[4];
    int64_t width = x->dim[1];
    return (struct gemm){
        .form = GEMM_TN,
        .m = chunk->vocabulary,
        .n = width,
        .k = count,
        .x = chunk->logits,
        .x_type = chunk->stored,
        .ldx = chunk->stored == DTYPE_F32 ? chunk->stride : 2 * chunk->stride,
        .w = (const char *)x->data + chunk->row * width * dtype_row(x->dtype)->bytes,
        .w_type = x->dtype,
        .ldw = width,
        .y = dw->data,
        .y_type = dw->dtype,
        .ldy = width,
        .alpha = 1,
        .addend = dw->data,
        .addend_type = dw->dtype,
    };
}

static void head_rows(const struct cpu_call *call, bool gradient) {
    const struct operand *w = &call->in[1];
    int64_t rows = call->in[0].dim[0], most = chunk_rows(rows, w->dim[0], gradient && call->in[4].data);
    struct head_chunk chunk = {.call = call,
                               .logits = call->workspace,
                               .stride = logit_stride(w->dim[0]),
                               .vocabulary = w->dim[0],
                               .gradient = gradient,
                               .stored = call->gemm->compute,
                               .low = &call->in[gradient ? 5 : 3],
                               .up = &call->in[gradient ? 6 : 4],
                               .beta = call->attributes->beta};
    float *scratch = chunk.logits + most * chunk.stride;
    for (chunk.row = 0; chunk.row < rows; chunk.row += most) {
        int64_t count = rows - chunk.row < most ? rows - chunk.row : most;
        struct gemm product = logits_product(&chunk, count);
        call->gemm->run(&product, 1, call->pool, scratch, call->features);
        if (chunk.low->data && !product.rank) {
            product = low_product(&chunk, count);
            call->gemm->run(&product, 1, call->pool, scratch, call->features);
        }
        pool_run(call->pool, (int)count, logits_task, &chunk);
        if (!gradient) continue;
        if (call->out[1].data) {
            product = grad_x_product(&chunk, count);
            call->gemm->run(&product, 1, call->pool, scratch, call->features);
        }
        if (call->in[4].data) {
            product = grad_w_product(&chunk, count);
            call->gemm->run(&product, 1, call->pool, scratch, call->features);
        }
        if (call->out[2].data && chunk.low->data) {
            product = grad_low_product(&chunk, count);
            call->gemm->run(&product, 1, call->pool, scratch, call->features);
        }
        if (call->in[7].data) {
            product = grad_up_product(&chunk, count);
            call->gemm->run(&product, 1, call->pool, scratch, call->features);
        }
    }
}

static void head_run(const struct cpu_call *call) { head_rows(call, false); }
static void head_grad_run(const struct cpu_call *call) { head_rows(call, true); }

/* loss += Σ weights · logp in f64 and in order: some thousand terms, so one thread. */
static void loss_run(const struct cpu_call *call) {
    const float *logp = call->in[0].data, *weights = call->in[1].data;
    double sum = 0;
    for (int64_t m = 0; m < call->in[0].dim[0]; m++) sum += (double)logp[m] * (double)weights[m];
    *(double *)call->in[2].data += sum;
}

const struct cpu_kernel cpu_kernels_head[] = {
    {OP_HEAD, "head", 0, head_run, head_workspace},
    {OP_HEAD_GRAD, "head_grad", 0, head_grad_run, head_workspace},
    {OP_LOSS, "loss", 0, loss_run, NULL},
    {0},
};
