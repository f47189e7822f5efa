/* Gated linear unit with SiLU (Shazeer 2020, SwiGLU): y = gate · σ(gate) · up. */
#include <math.h>

#include "op/op.h"

static void glu_shapes(const struct graph *graph, const struct node *node, struct value *out,
                       enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
}

static void glu_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    int inputs[3] = {node.input[0], node.input[1], b->output_gradient[0]};
    enum dtype dtype = graph->values[node.input[0]].dtype;
    int grad = graph_emit(graph, OP_GLU_GRAD, inputs, NULL, dtype, "dglu");
    backward_give(b, 0, graph_output(graph, grad, 0));
    backward_give(b, 1, graph_output(graph, grad, 1));
}

static void glu_reference(const struct reference_call *call) {
    int64_t n = call->in[0].dim[0] * call->in[0].dim[1];
    for (int64_t i = 0; i < n; i++) {
        double g = call->in[0].data[i];
        call->out[0].data[i] = g / (1 + exp(-g)) * call->in[1].data[i];
    }
}

const struct op_row op_glu_row = {
    .name = "glu",
    .cheap = true,
    .by_rows = true,
    .inputs = 2,
    .outputs = 1,
    .overwrite = {0, -1, -1, -1},
    .shapes = glu_shapes,
    .backward = glu_backward,
    .reference = glu_reference,
};

static void glu_grad_shapes(const struct graph *graph, const struct node *node, struct value *out,
                            enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
    op_shape_like(&out[1], op_input(graph, node, 1));
}

static void glu_grad_reference(const struct reference_call *call) {
    int64_t n = call->in[0].dim[0] * call->in[0].dim[1];
    for (int64_t i = 0; i < n; i++) {
        double g = call->in[0].data[i], up = call->in[1].data[i], dy = call->in[2].data[i];
        double sigmoid = 1 / (1 + exp(-g));
        call->out[0].data[i] = dy * up * sigmoid * (1 + g * (1 - sigmoid));
        call->out[1].data[i] = dy * g * sigmoid;
    }
}

const struct op_row op_glu_grad_row = {
    .name = "glu_grad",
    .by_rows = true,
    .inputs = 3,
    .outputs = 2,
    .overwrite = {0, 1, -1, -1},
    .shapes = glu_grad_shapes,
    .reference = glu_grad_reference,
};
