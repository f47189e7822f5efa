/* Operations that move rows or work element by element: embedding, add, dropout, gather, scatter, likeliest.
 */
#include <math.h>

#include "base/rng.h"
#include "op/op.h"

static void embedding_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 1), op_input(graph, node, 0)->dim[1]);
}

static void embedding_reference(const struct reference_call *call) {
    int64_t rows = call->in[1].dim[0], width = call->in[0].dim[1];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++)
            call->out[0].data[t * width + i] = call->in[0].data[(int64_t)call->in[1].data[t] * width + i];
}

static void embedding_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0]) return;
    int inputs[3] = {b->output_gradient[0], node.input[1], b->state_gradient(b->user, node.input[0])};
    graph_emit(graph, OP_EMBEDDING_GRAD, inputs, NULL, DTYPE_F32, "dembedding");
}

const struct op_row op_embedding_row = {
    .name = "embedding",
    .by_rows = true,
    .inputs = 2,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = embedding_shapes,
    .backward = embedding_backward,
    .reference = embedding_reference,
};

static void embedding_grad_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++)
            call->in[2].data[(int64_t)call->in[1].data[t] * width + i] += call->in[0].data[t * width + i];
}

const struct op_row op_embedding_grad_row = {
    .name = "embedding_grad",
    .by_rows = true,
    .inputs = 3,
    .outputs = 0,
    .state_writes = 1u << 2,
    .overwrite = {-1, -1, -1, -1},
    .reference = embedding_grad_reference,
};

static void like_first(const struct graph *graph, const struct node *node, struct value *out,
                       enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
}

static void add_backward(struct backward *b) {
    backward_give(b, 0, b->output_gradient[0]);
    backward_give(b, 1, b->output_gradient[0]);
}

static int64_t elements(const struct reference_operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->dim[i];
    return n;
}

static void add_reference(const struct reference_call *call) {
    for (int64_t i = 0; i < elements(&call->out[0]); i++)
        call->out[0].data[i] = call->in[0].data[i] + call->in[1].data[i];
}

const struct op_row op_add_row = {
    .name = "add",
    .by_rows = true,
    .inputs = 2,
    .outputs = 1,
    .overwrite = {0, -1, -1, -1},
    .shapes = like_first,
    .backward = add_backward,
    .reference = add_reference,
};

static void copy_reference(const struct reference_call *call) {
    for (int64_t i = 0; i < elements(&call->out[0]); i++) call->out[0].data[i] = call->in[0].data[i];
}

/* Made by graph_recompute alone, behind the backward pass. */
const struct op_row op_copy_row = {
    .name = "copy",
    .inputs = 2,
    .outputs = 1,
    .optional_inputs = 1u << 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = like_first,
    .reference = copy_reference,
};

/* `inverse`: what dropout takes away instead of what it leaves, x - y.
 *
 * The mask is a function of the element's place in the data, so the backward pass draws it again. */
static void dropout_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0]) return;
    int inputs[4] = {b->output_gradient[0], node.input[1], node.input[2], node.input[3]};
    enum dtype dtype = graph->values[b->output_gradient[0]].dtype;
    backward_give(
        b, 0,
        graph_output(graph, graph_emit(graph, OP_DROPOUT, inputs, &node.attributes, dtype, "ddropout"), 0));
}

static void dropout_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    const double *random = call->in[3].data;
    uint64_t seed = (uint64_t)random[0] | (uint64_t)random[1] << 32;
    double p = (double)call->attributes->probability;
    uint32_t threshold = (uint32_t)floor(p * 4294967296.0);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++) {
            uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)call->in[1].data[t],
                                   (uint32_t)call->in[2].data[t],
                                   (uint32_t)random[2] << 16 | (uint32_t)call->attributes->module};
            uint32_t words[4];
            philox(seed, counter, words);
            double x = call->in[0].data[t * width + i];
            double kept = words[i % 4] < threshold ? 0 : x / (1 - p);
            call->out[0].data[t * width + i] = call->attributes->inverse ? x - kept : kept;
        }
}

const struct op_row op_dropout_row = {
    .name = "dropout",
    .cheap = true,
    .by_rows = true,
    .inputs = 4,
    .outputs = 1,
    .overwrite = {0, -1, -1, -1},
    .shapes = like_first,
    .backward = dropout_backward,
    .reference = dropout_reference,
};

/* NEFTune (Jain et al. 2024, algorithm 1): noise on the embeddings of training rows, the smaller the longer a
 * row is, so that its length as a whole does not depend on the row's. It is added, so gradients pass. */
static void noise_backward(struct backward *b) { backward_give(b, 0, b->output_gradient[0]); }

static void noise_reference(const struct reference_call *call) {
    const double *random = call->in[3].data, *starts = call->in[4].data;
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1], segment = 0;
    uint64_t seed = (uint64_t)random[0] | (uint64_t)random[1] << 32;
    for (int64_t t = 0; t < rows; t++) {
        while (t >= (int64_t)starts[segment + 1]) segment++;
        double length = starts[segment + 1] - starts[segment];
        double size = (double)call->attributes->scale / sqrt(length * (double)width);
        for (int64_t i = 0; i < width; i++) {
            uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)call->in[1].data[t],
                                   (uint32_t)call->in[2].data[t],
                                   (uint32_t)random[2] << 16 | (uint32_t)call->attributes->module};
            uint32_t words[4];
            philox(seed, counter, words);
            call->out[0].data[t * width + i] =
                call->in[0].data[t * width + i] + size * 0x1p-31 * (double)(int32_t)words[i % 4];
        }
    }
}

const struct op_row op_noise_row = {
    .name = "noise",
    .inputs = 5,
    .outputs = 1,
    .overwrite = {0, -1, -1, -1},
    .shapes = like_first,
    .backward = noise_backward,
    .reference = noise_reference,
};

static void gather_shapes(const struct graph *graph, const struct node *node, struct value *out,
                          enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 1), op_input(graph, node, 0)->dim[1]);
}

static void gather_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0]) return;
    int inputs[3] = {b->output_gradient[0], node.input[1], node.input[0]};
    backward_give(b, 0,
                  graph_output(graph, graph_emit(graph, OP_SCATTER, inputs, NULL, DTYPE_F32, "dgather"), 0));
}

static void gather_reference(const struct reference_call *call) {
    int64_t rows = call->in[1].dim[0], width = call->in[0].dim[1];
    for (int64_t m = 0; m < rows; m++)
        for (int64_t i = 0; i < width; i++)
            call->out[0].data[m * width + i] = call->in[0].data[(int64_t)call->in[1].data[m] * width + i];
}

const struct op_row op_gather_row = {
    .name = "gather",
    .inputs = 2,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = gather_shapes,
    .backward = gather_backward,
    .reference = gather_reference,
};

static void scatter_shapes(const struct graph *graph, const struct node *node, struct value *out,
                           enum dtype dtype) {
    (void)dtype;
    op_shape_flat(&out[0], op_input(graph, node, 2), op_input(graph, node, 0)->dim[1]);
}

/* A row that several targets point at (it cannot happen in training) sums their gradients. */
static void scatter_reference(const struct reference_call *call) {
    int64_t rows = call->in[1].dim[0], width = call->in[0].dim[1];
    for (int64_t i = 0; i < elements(&call->out[0]); i++) call->out[0].data[i] = 0;
    for (int64_t m = 0; m < rows; m++)
        for (int64_t i = 0; i < width; i++)
            call->out[0].data[(int64_t)call->in[1].data[m] * width + i] += call->in[0].data[m * width + i];
}

const struct op_row op_scatter_row = {
    .name = "scatter",
    .inputs = 3,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = scatter_shapes,
    .reference = scatter_reference,
};

static void likeliest_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
    out[0].rank = 1;
    out[0].dim[1] = 0;
    out[0].dtype = DTYPE_I32;
}

static void likeliest_reference(const struct reference_call *call) {
    int64_t rows = call->in[0].dim[0], width = call->in[0].dim[1];
    for (int64_t m = 0; m < rows; m++) {
        const double *row = call->in[0].data + m * width;
        double best = -INFINITY;
        call->out[0].data[m] = -1;
        for (int64_t i = 0; i < width; i++)
            if (row[i] > best) {
                best = row[i];
                call->out[0].data[m] = (double)i;
            }
    }
}

const struct op_row op_likeliest_row = {
    .name = "likeliest",
    .inputs = 1,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = likeliest_shapes,
    .reference = likeliest_reference,
};
