/* OP_LINEAR and its gradients: an operation's operands put onto one matrix product (gemm.h). */
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"

size_t cpu_product_workspace(enum gemm_form form, int64_t m, int64_t n, int64_t k, enum dtype w_type,
                             int threads) {
    size_t most = 0;
    for (int i = 0; i < cpu_gemm_count; i++) {
        size_t bytes = cpu_gemms[i].workspace(form, m, n, k, w_type, threads);
        if (bytes > most) most = bytes;
    }
    return (most + 63) & ~(size_t)63;
}

static size_t linear_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    return cpu_product_workspace(GEMM_NT, x->dim[0], w->dim[0], w->dim[1], w->dtype, threads) +
           (((size_t)w->dim[0] + 15) & ~(size_t)15) * sizeof(float);
}

static size_t grad_x_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *dy = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    return cpu_product_workspace(GEMM_NN, dy->dim[0], w->dim[1], w->dim[0], w->dtype, threads);
}

static size_t grad_w_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *x = &graph->values[node->input[0]], *dw = &graph->values[node->input[2]];
    return cpu_product_workspace(GEMM_TN, dw->dim[0], dw->dim[1], x->dim[0], DTYPE_F32, threads);
}

static struct gemm linear_product(const struct cpu_call *call, const float *bias) {
    const struct operand *x = &call->in[0], *w = &call->in[1], *addend = &call->in[3], *low = &call->in[4],
                         *up = &call->in[5], *y = &call->out[0];
    return (struct gemm){
        .form = GEMM_NT,
        .m = x->dim[0],
        .n = w->dim[0],
        .k = w->dim[1],
        .x = x->data,
        .x_type = x->dtype,
        .ldx = w->dim[1],
        .w = w->data,
        .w_type = w->dtype,
        .ldw = w->dim[1],
        .w_parts = w->part,
        .y = y->data,
        .y_type = y->dtype,
        .ldy = w->dim[0],
        .alpha = call->attributes->alpha,
        .addend = addend->data,
        .addend_type = addend->dtype,
        .bias = bias,
        .exact = call->exact,
        .rank = low->data ? up->dim[1] : 0,
        .low = low->data,
        .low_type = low->dtype,
        .up = up->data,
        .up_type = up->dtype,
        .up_parts = up->part,
        .beta = call->attributes->beta,
    };
}

static void linear_run(const struct cpu_call *call) {
    const struct operand *bias = &call->in[2];
    float *workspace = call->workspace;
    const float *row = bias->data;
    if (bias->data && bias->dtype != DTYPE_F32) { /* the product's scratch follows on the next line */
        int64_t width = call->in[1].dim[0];
        cpu_row_load(workspace, bias->data, bias->dtype, width, call->features);
        row = workspace;
        workspace += (width + 15) & ~(int64_t)15;
    }
    struct gemm product = linear_product(call, row);
    call->gemm->run(&product, 1, call->pool, workspace, call->features);
}

void cpu_linear_together(const struct cpu_call *calls, int count) {
    struct gemm products[gemm_most_together];
    bool as_they_lie = true; /* biases; others would need room each */
    for (int i = 0; i < count; i++) {
        const struct operand *bias = &calls[i].in[2];
        as_they_lie = as_they_lie && (!bias->data || bias->dtype == DTYPE_F32);
        products[i] = linear_product(&calls[i], bias->data);
    }
    if (as_they_lie)
        calls->gemm->run(products, count, calls->pool, calls->workspace, calls->features);
    else
        for (int i = 0; i < count; i++) linear_run(&calls[i]);
}

static void grad_x_run(const struct cpu_call *call) {
    const struct operand *dy = &call->in[0], *w = &call->in[1], *addend = &call->in[2], *low = &call->in[3],
                         *down = &call->in[4], *dx = &call->out[0];
    struct gemm product = {
        .form = GEMM_NN,
        .m = dy->dim[0],
        .n = w->dim[1],
        .k = w->dim[0],
        .x = dy->data,
        .x_type = dy->dtype,
        .ldx = w->dim[0],
        .w = w->data,
        .w_type = w->dtype,
        .ldw = w->dim[1],
        .w_parts = w->part,
        .y = dx->data,
        .y_type = dx->dtype,
        .ldy = w->dim[1],
        .alpha = call->attributes->alpha,
        .addend = addend->data,
        .addend_type = addend->dtype,
        .rank = low->data ? down->dim[0] : 0,
        .low = low->data,
        .low_type = low->dtype,
        .up = down->data,
        .up_type = down->dtype,
        .up_parts = down->part,
        .beta = call->attributes->beta,
    };
    call->gemm->run(&product, 1, call->pool, call->workspace, call->features);
}

static void grad_w_run(const struct cpu_call *call) {
    const struct operand *x = &call->in[0], *dy = &call->in[1], *dw = &call->in[2];
    struct gemm product = {
        .form = GEMM_TN,
        .m = dw->dim[0],
        .n = dw->dim[1],
        .k = x->dim[0],
        .x = dy->data,
        .x_type = dy->dtype,
        .ldx = dw->dim[0],
        .w = x->data,
        .w_type = x->dtype,
        .ldw = dw->dim[1],
        .y = dw->data,
        .y_type = dw->dtype,
        .ldy = dw->dim[1],
        .alpha = call->attributes->alpha,
        .addend = dw->data,
        .addend_type = dw->dtype,
    };
    call->gemm->run(&product, 1, call->pool, call->workspace, call->features);
}

const struct cpu_kernel cpu_kernels_linear[] = {
    {OP_LINEAR, "linear", 0, linear_run, linear_workspace},
    {OP_LINEAR_GRAD_X, "linear_grad_x", 0, grad_x_run, grad_x_workspace},
    {OP_LINEAR_GRAD_W, "linear_grad_w", 0, grad_w_run, grad_w_workspace},
    {0},
};
