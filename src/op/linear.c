/* The matrix product with a weight, and its two gradients.
 *
 *   y  = α x wᵀ + β low upᵀ + bias + addend        x [T, in], w [out, in], low [T, R], up [out, R]
 *   dx = α dy w + β low down + addend              down [R, in]
 *   dw += α dyᵀ x,   db += Σ_t dy[t]
 *
 * The products of low rank are an adapter's; models emit them as products of their own, and graph_fold puts
 * them here, where a device can add them while the result is still in its registers.
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
    int64_t rows = op_count(op_input(graph, node, 0), counts);
    const struct value *low = op_input(graph, node, node->inputs - 1);
    return product_flops(rows, op_input(graph, node, 1)) + (low ? product_flops(rows, low) : 0);
}

/* The gradients of a product x wᵀ: inputs `x` and `w` of the node. */
static void product_backward(struct backward *b, int x, int w, const struct attributes *attributes) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    int dy = b->output_gradient[0];
    if (b->needed[x]) { /* what x has gathered so far is the addend: no separate sum */
        int inputs[5] = {dy, node.input[w], *b->input_gradient[x], -1, -1};
        enum dtype dtype = attributes->narrow ? DTYPE_BF16 : DTYPE_F32;
        int grad = graph_emit(graph, OP_LINEAR_GRAD_X, inputs, attributes, dtype, "dx");
        *b->input_gradient[x] = graph_output(graph, grad, 0);
    }
    if (b->needed[w]) {
        int inputs[3] = {node.input[x], dy, b->state_gradient(b->user, node.input[w])};
        graph_emit(graph, OP_LINEAR_GRAD_W, inputs, attributes, DTYPE_F32, "dw");
    }
}

static void linear_backward(struct backward *b) {
    const struct node node = b->graph->nodes[b->node];
    struct attributes attributes = node.attributes, low = node.attributes;
    low.alpha = low.beta;
    product_backward(b, 4, 5, &low);
    product_backward(b, 0, 1, &attributes);
    backward_bias(b, 2);
    backward_give(b, 3, b->output_gradient[0]);
}

/* out [rows, columns] += factor · x y, element (k, j) of y at k · along + j · across. */
static void reference_product(const struct reference_operand *x, const double *y, int64_t along,
                              int64_t across, double factor, struct reference_operand *out) {
    int64_t rows = out->dim[0], columns = out->dim[1], length = x->dim[1];
    for (int64_t t = 0; x->data && t < rows; t++)
        for (int64_t j = 0; j < columns; j++) {
            double sum = 0;
            for (int64_t k = 0; k < length; k++) sum += x->data[t * length + k] * y[k * along + j * across];
            out->data[t * columns + j] += factor * sum;
        }
}

static void linear_reference(const struct reference_call *call) {
    const double *bias = call->in[2].data, *addend = call->in[3].data;
    struct reference_operand y = call->out[0];
    int64_t in = call->in[1].dim[1], out = call->in[1].dim[0];
    for (int64_t i = 0; i < call->in[0].dim[0] * out; i++)
        y.data[i] = (bias ? bias[i % out] : 0) + (addend ? addend[i] : 0);
    reference_product(&call->in[0], call->in[1].data, 1, in, (double)call->attributes->alpha, &y);
    reference_product(&call->in[4], call->in[5].data, 1, call->in[5].dim[1], (double)call->attributes->beta,
                      &y);
}

const struct op_row op_linear_row = {
    .name = "linear",
    .by_rows = true,
    .inputs = 6,
    .outputs = 1,
    .optional_inputs = 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5,
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
    const double *addend = call->in[2].data;
    struct reference_operand dx = call->out[0];
    int64_t in = call->in[1].dim[1];
    for (int64_t i = 0; i < call->in[0].dim[0] * in; i++) dx.data[i] = addend ? addend[i] : 0;
    reference_product(&call->in[0], call->in[1].data, in, 1, (double)call->attributes->alpha, &dx);
    reference_product(&call->in[3], call->in[4].data, in, 1, (double)call->attributes->beta, &dx);
}

const struct op_row op_linear_grad_x_row = {
    .name = "linear_grad_x",
    .by_rows = true,
    .inputs = 5,
    .outputs = 1,
    .optional_inputs = 1u << 2 | 1u << 3 | 1u << 4,
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
    .by_rows = true,
    .inputs = 3,
    .outputs = 0,
    .state_writes = 1u << 2,
    .overwrite = {-1, -1, -1, -1},
    .flops = grad_w_flops,
    .reference = grad_w_reference,
};

static void bias_grad_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++) call->in[1].data[i] += call->in[0].data[t * width + i];
}

const struct op_row op_bias_grad_row = {
    .name = "bias_grad",
    .by_rows = true,
    .inputs = 2,
    .outputs = 0,
    .state_writes = 1u << 1,
    .overwrite = {-1, -1, -1, -1},
    .reference = bias_grad_reference,
};
