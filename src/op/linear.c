/* The matrix product with a weight, and its two gradients.
 *
 *   y  = α x wᵀ + bias + addend        x [T, in], w [out, in]
 *   dx = α dy w + addend
 *   dw += α dyᵀ x
 */
#include "op/op.h"

static double product_flops(int64_t rows, const struct value *weight) {
    return 2.0 * (double)rows * (double)weight->dim[0] * (double)weight->dim[1];
}

static void linear_shapes(const struct graph *graph, const struct node *node, struct value *out,
                          enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 0), op_input(graph, node, 1)->dim[0]);
}

static double linear_flops(const struct graph *graph, const struct node *node,
                           const int64_t counts[COUNT_KINDS]) {
    return product_flops(op_count(op_input(graph, node, 0), counts), op_input(graph, node, 1));
}

static void linear_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    struct attributes attributes = node.attributes;
    int dy = b->output_gradient[0];
    if (b->needed[0]) { /* what x has gathered so far is the addend: no separate sum */
        int inputs[3] = {dy, node.input[1], *b->input_gradient[0]};
        int grad = graph_emit(graph, OP_LINEAR_GRAD_X, inputs, &attributes, DTYPE_F32, "dx");
        *b->input_gradient[0] = graph_output(graph, grad, 0);
    }
    if (b->needed[1]) {
        int inputs[3] = {node.input[0], dy, b->state_gradient(b->user, node.input[1])};
        graph_emit(graph, OP_LINEAR_GRAD_W, inputs, &attributes, DTYPE_F32, "dw");
    }
    backward_give(b, 3, dy);
}

static void linear_reference(const struct reference_call *call) {
    const double *x = call->in[0].data, *w = call->in[1].data, *bias = call->in[2].data,
                 *addend = call->in[3].data;
    int64_t rows = call->in[0].dim[0], in = call->in[1].dim[1], out = call->in[1].dim[0];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += x[t * in + i] * w[o * in + i];
            double y = (double)call->attributes->alpha * sum + (bias ? bias[o] : 0);
            call->out[0].data[t * out + o] = y + (addend ? addend[t * out + o] : 0);
        }
}

const struct op_row op_linear_row = {
    .name = "linear",
    .inputs = 4,
    .outputs = 1,
    .optional_inputs = 1u << 2 | 1u << 3,
    .overwrite = {3, -1, -1, -1},
    .shapes = linear_shapes,
    .backward = linear_backward,
    .flops = linear_flops,
    .reference = linear_reference,
};

static void grad_x_shapes(const struct graph *graph, const struct node *node, struct value *out,
                          enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 0), op_input(graph, node, 1)->dim[1]);
}

static void grad_x_reference(const struct reference_call *call) {
    const double *dy = call->in[0].data, *w = call->in[1].data, *addend = call->in[2].data;
    int64_t rows = call->in[0].dim[0], in = call->in[1].dim[1], out = call->in[1].dim[0];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t o = 0; o < out; o++) sum += dy[t * out + o] * w[o * in + i];
            call->out[0].data[t * in + i] =
                (double)call->attributes->alpha * sum + (addend ? addend[t * in + i] : 0);
        }
}

const struct op_row op_linear_grad_x_row = {
    .name = "linear_grad_x",
    .inputs = 3,
    .outputs = 1,
    .optional_inputs = 1u << 2,
    .overwrite = {2, -1, -1, -1},
    .shapes = grad_x_shapes,
    .flops = linear_flops,
    .reference = grad_x_reference,
};

static double grad_w_flops(const struct graph *graph, const struct node *node,
                           const int64_t counts[COUNT_KINDS]) {
    return product_flops(op_count(op_input(graph, node, 0), counts), op_input(graph, node, 2));
}

static void grad_w_reference(const struct reference_call *call) {
    const double *x = call->in[0].data, *dy = call->in[1].data;
    int64_t rows = call->in[0].dim[0], out = call->in[2].dim[0], in = call->in[2].dim[1];
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t t = 0; t < rows; t++) sum += dy[t * out + o] * x[t * in + i];
            call->in[2].data[o * in + i] += (double)call->attributes->alpha * sum;
        }
}

const struct op_row op_linear_grad_w_row = {
    .name = "linear_grad_w",
    .inputs = 3,
    .outputs = 0,
    .state_writes = 1u << 2,
    .overwrite = {-1, -1, -1, -1},
    .flops = grad_w_flops,
    .reference = grad_w_reference,
};
