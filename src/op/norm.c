/* Root-mean-square norm (Zhang and Sennrich 2019, eq. 4).
 *
 *   rstd = (mean(x²) + ε)^-½      y = x · rstd · w
 *   dx   = rstd · g - x · rstd³ · mean(g · x) + addend,   g = dy · w
 *   dw  += Σ_t dy · x · rstd
 */
#include <math.h>

#include "op/op.h"

static void norm_shapes(const struct graph *graph, const struct node *node, struct value *out,
                        enum dtype dtype) {
    (void)dtype;
    const struct value *x = op_input(graph, node, 0);
    op_shape_like(&out[0], x);
    op_shape_like(&out[1], x);
    out[1].rank = 1;
    out[1].dtype = DTYPE_F32;
}

static void norm_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (b->needed[1]) {
        int inputs[4] = {b->output_gradient[0], node.input[0], node.output[1],
                         b->state_gradient(b->user, node.input[1])};
        graph_emit(graph, OP_NORM_GRAD_W, inputs, NULL, DTYPE_F32, "dnorm_w");
    }
    if (!b->needed[0]) return;
    int inputs[5] = {b->output_gradient[0], node.input[0], node.input[1], node.output[1],
                     *b->input_gradient[0]};
    enum dtype dtype = graph->values[node.input[0]].dtype;
    *b->input_gradient[0] =
        graph_output(graph, graph_emit(graph, OP_NORM_GRAD, inputs, &node.attributes, dtype, "dnorm"), 0);
}

static void norm_reference(const struct reference_call *call) {
    const double *x = call->in[0].data, *w = call->in[1].data;
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t t = 0; t < rows; t++) {
        double squares = 0;
        for (int64_t i = 0; i < width; i++) squares += x[t * width + i] * x[t * width + i];
        double rstd = 1 / sqrt(squares / (double)width + (double)call->attributes->epsilon);
        for (int64_t i = 0; i < width; i++) call->out[0].data[t * width + i] = x[t * width + i] * rstd * w[i];
        if (call->out[1].data) call->out[1].data[t] = rstd;
    }
}

const struct op_row op_norm_row = {
    .name = "norm",
    .cheap = true,
    .by_rows = true,
    .inputs = 2,
    .outputs = 2,
    .overwrite = {-1, -1, -1, -1},
    .shapes = norm_shapes,
    .backward = norm_backward,
    .reference = norm_reference,
};

static void norm_grad_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 1));
}

static void norm_grad_reference(const struct reference_call *call) {
    const double *dy = call->in[0].data, *x = call->in[1].data, *w = call->in[2].data,
                 *rstd = call->in[3].data;
    const double *addend = call->in[4].data;
    int64_t rows = call->in[1].dim[0], width = call->in[1].dim[1];
    for (int64_t t = 0; t < rows; t++) {
        double r = rstd[t], mean = 0;
        for (int64_t i = 0; i < width; i++) mean += dy[t * width + i] * w[i] * x[t * width + i];
        mean /= (double)width;
        for (int64_t i = 0; i < width; i++) {
            int64_t at = t * width + i;
            call->out[0].data[at] = r * dy[at] * w[i] - x[at] * r * r * r * mean + (addend ? addend[at] : 0);
        }
    }
}

const struct op_row op_norm_grad_row = {
    .name = "norm_grad",
    .by_rows = true,
    .inputs = 5,
    .outputs = 1,
    .optional_inputs = 1u << 4,
    .overwrite = {4, -1, -1, -1},
    .shapes = norm_grad_shapes,
    .reference = norm_grad_reference,
};

static void norm_grad_w_reference(const struct reference_call *call) {
    const double *dy = call->in[0].data, *x = call->in[1].data, *rstd = call->in[2].data;
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++)
            call->in[3].data[i] += dy[t * width + i] * x[t * width + i] * rstd[t];
}

const struct op_row op_norm_grad_w_row = {
    .name = "norm_grad_w",
    .by_rows = true,
    .inputs = 4,
    .outputs = 0,
    .state_writes = 1u << 3,
    .overwrite = {-1, -1, -1, -1},
    .reference = norm_grad_w_reference,
};
