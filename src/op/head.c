/* The head and cross entropy as one operation: logits exist only inside it, a chunk of rows at a time.
 *
 *   logp[m] = l[target] - log Σ_v exp l[v],   l = x wᵀ
 *   dl[v]   = dlogp · (1[v = target] - p[v]),  dx = dl w,  dw += dlᵀ x
 *
 * The gradient form yields logp too, so a training step computes the logits once: the backward rule
 * puts its logp in place of the forward one, which then nobody reads and the plan drops. */
#include <math.h>

#include "op/op.h"

static void head_shapes(const struct graph *graph, const struct node *node, struct value *out,
                        enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
    out[0].rank = 1;
    out[0].dtype = DTYPE_F32;
}

static double head_flops(const struct graph *graph, const struct node *node,
                         const int64_t counts[COUNT_KINDS]) {
    const struct value *w = op_input(graph, node, 1);
    return 2.0 * (double)op_count(op_input(graph, node, 0), counts) * (double)w->dim[0] * (double)w->dim[1];
}

static double head_grad_flops(const struct graph *graph, const struct node *node,
                              const int64_t counts[COUNT_KINDS]) {
    return (op_input(graph, node, 4) ? 3 : 2) * head_flops(graph, node, counts);
}

static void head_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0] && !b->needed[1]) return;
    int inputs[5] = {node.input[0], node.input[1], node.input[2], b->output_gradient[0],
                     b->needed[1] ? b->state_gradient(b->user, node.input[1]) : -1};
    int grad = graph_emit(graph, OP_HEAD_GRAD, inputs, &node.attributes, DTYPE_F32, "dhead");
    b->replace(b->user, node.output[0], graph_output(graph, grad, 0));
    backward_give(b, 0, graph_output(graph, grad, 1));
}

static double row_logits(const struct reference_call *call, int64_t m, double *most) {
    const double *x = call->in[0].data + m * call->in[0].dim[1], *w = call->in[1].data;
    int64_t width = call->in[0].dim[1], vocabulary = call->in[1].dim[0];
    double sum = 0;
    *most = -INFINITY;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t v = 0; v < vocabulary; v++) {
            double l = 0;
            for (int64_t i = 0; i < width; i++) l += x[i] * w[v * width + i];
            if (pass)
                sum += exp(l - *most);
            else
                *most = fmax(*most, l);
        }
    return *most + log(sum);
}

static void head_rows(const struct reference_call *call, bool gradient) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1], vocabulary = call->in[1].dim[0];
    const double *w = call->in[1].data;
    double *dw = gradient ? call->in[4].data : NULL;
    for (int64_t m = 0; m < rows; m++) {
        const double *x = call->in[0].data + m * width;
        int64_t target = (int64_t)call->in[2].data[m];
        double most, lse = row_logits(call, m, &most),
                     *dx = gradient && call->out[1].data ? call->out[1].data + m * width : NULL;
        for (int64_t i = 0; dx && i < width; i++) dx[i] = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            double l = 0;
            for (int64_t i = 0; i < width; i++) l += x[i] * w[v * width + i];
            if (v == target && call->out[0].data) call->out[0].data[m] = l - lse;
            double dl = gradient ? call->in[3].data[m] * ((v == target) - exp(l - lse)) : 0;
            for (int64_t i = 0; dx && i < width; i++) dx[i] += dl * w[v * width + i];
            for (int64_t i = 0; dw && i < width; i++) dw[v * width + i] += dl * x[i];
        }
    }
}

static void head_reference(const struct reference_call *call) { head_rows(call, false); }
static void head_grad_reference(const struct reference_call *call) { head_rows(call, true); }

const struct op_row op_head_row = {
    .name = "head",
    .inputs = 3,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = head_shapes,
    .backward = head_backward,
    .flops = head_flops,
    .reference = head_reference,
};

static void head_grad_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    head_shapes(graph, node, out, dtype);
    op_shape_like(&out[1], op_input(graph, node, 0));
}

const struct op_row op_head_grad_row = {
    .name = "head_grad",
    .inputs = 5,
    .outputs = 2,
    .optional_inputs = 1u << 4,
    .state_writes = 1u << 4,
    .overwrite = {-1, -1, -1, -1},
    .shapes = head_grad_shapes,
    .flops = head_grad_flops,
    .reference = head_grad_reference,
};

/* loss += Σ weights · logp, in f64 and in order. */
static void loss_reference(const struct reference_call *call) {
    for (int64_t m = 0; m < call->in[0].dim[0]; m++)
        call->in[2].data[0] += call->in[0].data[m] * call->in[1].data[m];
}

static void loss_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    int inputs[2] = {node.input[1], node.input[3]}, gradient = node.input[1];
    if (node.input[3] >= 0)
        gradient = graph_output(graph, graph_emit(graph, OP_SCALE, inputs, NULL, DTYPE_F32, "scaled"), 0);
    backward_give(b, 0, gradient);
}

const struct op_row op_loss_row = {
    .name = "loss",
    .inputs = 4,
    .outputs = 0,
    .optional_inputs = 1u << 3,
    .state_writes = 1u << 2,
    .overwrite = {-1, -1, -1, -1},
    .backward = loss_backward,
    .reference = loss_reference,
};
