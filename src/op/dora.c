/* Weight decomposition (DoRA, Liu et al. 2024, equation 5): the adapted weight W + s B A keeps its direction,
 * and each of its rows gets a trained length m.
 *
 *   n = ‖W + α B A‖ of each row                                 row_norms, once for every change of A and B
 *   y = z · m / n + bias + addend,   z = (W + α B A) x          rescale
 *   dz = dy · m / n,   dm += Σ over rows dy · z / n             rescale_grad
 *
 * n counts as a constant (section 4.3), so nothing flows back through it. A row of zeros (n = 0) stays one:
 * m / n is taken for 0, where PEFT's 0 / 0 makes all that follows NaN. */
#include <math.h>

#include "op/op.h"

static double ratio(double numerator, double norm) { return norm > 0 ? numerator / norm : 0; }

static void rescale_shapes(const struct graph *graph, const struct node *node, struct value *out,
                           enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
}

static void rescale_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    int dy = b->output_gradient[0], trained = b->needed[1] ? b->state_gradient(b->user, node.input[1]) : -1;
    int inputs[5] = {dy, node.input[0], node.input[1], node.input[2], trained};
    int grad =
        graph_emit(graph, OP_RESCALE_GRAD, inputs, NULL, graph->values[node.input[0]].dtype, "drescale");
    backward_give(b, 0, graph_output(graph, grad, 0));
    backward_bias(b, 3);
    backward_give(b, 4, dy);
}

static void rescale_reference(const struct reference_call *call) {
    const double *z = call->in[0].data, *m = call->in[1].data, *n = call->in[2].data;
    const double *bias = call->in[3].data, *addend = call->in[4].data;
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t i = 0; i < rows * width; i++) {
        int64_t j = i % width;
        call->out[0].data[i] = z[i] * ratio(m[j], n[j]) + (bias ? bias[j] : 0) + (addend ? addend[i] : 0);
    }
}

const struct op_row op_rescale_row = {
    .name = "rescale",
    .cheap = true,
    .by_rows = true,
    .inputs = 5,
    .outputs = 1,
    .optional_inputs = 1u << 3 | 1u << 4,
    .overwrite = {4, -1, -1, -1},
    .shapes = rescale_shapes,
    .backward = rescale_backward,
    .reference = rescale_reference,
};

static void rescale_grad_reference(const struct reference_call *call) {
    const double *dy = call->in[0].data, *z = call->in[1].data, *m = call->in[2].data, *n = call->in[3].data;
    double *dm = call->in[4].data, *dz = call->out[0].data;
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t i = 0; i < rows * width; i++) {
        int64_t j = i % width;
        if (dm) dm[j] += ratio(dy[i] * z[i], n[j]);
        dz[i] = dy[i] * ratio(m[j], n[j]);
    }
}

const struct op_row op_rescale_grad_row = {
    .name = "rescale_grad",
    .by_rows = true,
    .inputs = 5,
    .outputs = 1,
    .optional_inputs = 1u << 4,
    .state_writes = 1u << 4,
    .overwrite = {0, -1, -1, -1},
    .shapes = rescale_shapes,
    .reference = rescale_grad_reference,
};

static double row_norms_flops(const struct graph *graph, const struct node *node,
                              const int64_t counts[COUNT_KINDS]) {
    const struct value *w = op_input(graph, node, 0), *a = op_input(graph, node, 1);
    (void)counts;
    return 2.0 * (double)w->dim[0] * (double)w->dim[1] * (double)(a->dim[0] + 1);
}

static void row_norms_reference(const struct reference_call *call) {
    const double *w = call->in[0].data, *a = call->in[1].data, *b = call->in[2].data;
    int64_t out = call->in[0].dim[0], in = call->in[0].dim[1], rank = call->in[1].dim[0];
    for (int64_t j = 0; j < out; j++) {
        double squares = 0;
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t k = 0; k < rank; k++) sum += b[j * rank + k] * a[k * in + i];
            double adapted = w[j * in + i] + (double)call->attributes->alpha * sum;
            squares += adapted * adapted;
        }
        call->in[3].data[j] = sqrt(squares);
    }
}

const struct op_row op_row_norms_row = {
    .name = "row_norms",
    .inputs = 4,
    .outputs = 0,
    .state_writes = 1u << 3,
    .overwrite = {-1, -1, -1, -1},
    .flops = row_norms_flops,
    .reference = row_norms_reference,
};
