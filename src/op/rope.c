/* Rotary position embedding (Su et al. 2021, eq. 34), halves convention of GPT-NeoX and Hugging Face:
 * channel i of the first half turns with channel i of the second.
 *
 *   a = position · frequency[i]
 *   y[i]       = x[i] cos a - x[i + d/2] sin a
 *   y[i + d/2] = x[i + d/2] cos a + x[i] sin a
 */
#include <math.h>

#include "op/op.h"

static void table_shapes(const struct graph *graph, const struct node *node, struct value *out,
                         enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 0), 2 * op_input(graph, node, 1)->dim[0]);
    out[0].dtype = DTYPE_F32;
}

static void table_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], half = call->in[1].dim[0];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < half; i++) {
            double angle = call->in[0].data[t] * call->in[1].data[i];
            call->out[0].data[t * 2 * half + i] = cos(angle);
            call->out[0].data[t * 2 * half + half + i] = sin(angle);
        }
}

const struct op_row op_rope_table_row = {
    .name = "rope_table",
    .by_rows = true,
    .inputs = 2,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = table_shapes,
    .reference = table_reference,
};

static void rope_shapes(const struct graph *graph, const struct node *node, struct value *out,
                        enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
}

static void rope_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0]) return;
    struct attributes attributes = node.attributes;
    attributes.inverse = !attributes.inverse; /* a rotation's transpose is its inverse */
    int inputs[2] = {b->output_gradient[0], node.input[1]};
    enum dtype dtype = graph->values[b->output_gradient[0]].dtype;
    backward_give(b, 0,
                  graph_output(graph, graph_emit(graph, OP_ROPE, inputs, &attributes, dtype, "drope"), 0));
}

static void rope_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1], d = call->in[1].dim[1], half = d / 2;
    double sign = call->attributes->inverse ? -1 : 1;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t head = 0; head < width / d; head++) {
            const double *x = call->in[0].data + t * width + head * d, *table = call->in[1].data + t * d;
            double *y = call->out[0].data + t * width + head * d;
            for (int64_t i = 0; i < half; i++) {
                double c = table[i], s = sign * table[half + i], low = x[i], high = x[i + half];
                y[i] = low * c - high * s;
                y[i + half] = high * c + low * s;
            }
        }
}

const struct op_row op_rope_row = {
    .name = "rope",
    .by_rows = true,
    .inputs = 2,
    .outputs = 1,
    .overwrite = {0, -1, -1, -1},
    .shapes = rope_shapes,
    .backward = rope_backward,
    .reference = rope_reference,
};
