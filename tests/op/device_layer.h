/* What adapters do in a layer, forward and backward, as one graph: a device may serve several of its nodes by
 * one launch. It is run whole, and then node by node, as it is when every result is looked at
 * (binding.after), and for some rows at a time: all yield the same to rounding. */
#ifndef TESTS_OP_DEVICE_LAYER_H
#define TESTS_OP_DEVICE_LAYER_H

#include "op/device_kernel_cases.h"

enum { layer_values = 64 };

struct layer {
    struct graph graph;
    struct state_table table;
    struct trial numbers; /* only its random numbers */
    int64_t width, rank;
    struct binding binding;
    double tolerance;                   /* by how much of its size a value may differ */
    int looked_at[layer_values], count; /* values that are compared: state that is written, results */
    struct block begin[layer_values];   /* of each row of state */
};

static int layer_shaped_state(struct layer *l, enum dtype dtype, int rank, const int64_t *dim, double scale) {
    int row = state_add(&l->table, STATE_OPTIMIZER, dtype, rank, dim, "state");
    int id = graph_state(&l->graph, row, dtype, rank, dim, "state");
    l->begin[row] = block_open(value_bytes(&l->graph.values[id]));
    fill(&l->numbers, l->begin[row].data, dtype, value_elements(&l->graph.values[id]), scale);
    return id;
}

static int layer_state(struct layer *l, enum dtype dtype, int64_t rows, int64_t columns, double scale) {
    int64_t dim[2] = {rows, columns};
    return layer_shaped_state(l, dtype, rows ? 2 : 1, rows ? dim : dim + 1, scale);
}

/* An input of the layer: a row for each token. */
static int layer_rows(struct layer *l, enum dtype dtype, int64_t columns) {
    int id = layer_state(l, dtype, l->binding.tokens, columns, 1);
    l->graph.values[id].count = COUNT_TOKENS;
    return id;
}

static int layer_look(struct layer *l, int id) {
    if (l->graph.values[id].kind == VALUE_TRANSIENT) l->graph.values[id].keep = true;
    return l->looked_at[l->count++] = id;
}

static int layer_emit(struct layer *l, enum op_code op, const int *inputs, enum dtype dtype) {
    static const struct attributes attributes = {.alpha = 0.5f, .epsilon = 1e-5f, .compute = DTYPE_BF16};
    return graph_emit(&l->graph, op, inputs, &attributes, dtype, "value");
}

static int layer_output(const struct layer *l, int node, int which) {
    return graph_output(&l->graph, node, which);
}

/* x Aᵀ */
static int layer_down(struct layer *l, int x, int64_t width) {
    int inputs[6] = {x, layer_state(l, DTYPE_F32, l->rank, width, 0.1), -1, -1, -1, -1};
    return layer_look(l, layer_output(l, layer_emit(l, OP_LINEAR, inputs, DTYPE_F32), 0));
}

/* dy B, and dB, of low. */
static int layer_up_grad(struct layer *l, int dy, int low, int64_t width) {
    int inputs[5] = {dy, layer_state(l, DTYPE_F32, width, l->rank, 0.1), -1, -1, -1};
    int dlow = layer_look(l, layer_output(l, layer_emit(l, OP_LINEAR_GRAD_X, inputs, DTYPE_BF16), 0));
    int grad[3] = {low, dy, layer_look(l, layer_state(l, DTYPE_F32, width, l->rank, 1))};
    layer_emit(l, OP_LINEAR_GRAD_W, grad, DTYPE_F32);
    return dlow;
}

static void layer_down_grad(struct layer *l, int x, int dlow, int64_t width) {
    int grad[3] = {x, dlow, layer_look(l, layer_state(l, DTYPE_F32, l->rank, width, 1))};
    layer_emit(l, OP_LINEAR_GRAD_W, grad, DTYPE_F32);
}

static void layer_open(struct layer *l, int64_t tokens) {
    memset(l, 0, sizeof *l);
    l->numbers.random = 5;
    l->binding.tokens = tokens;
    l->tolerance = 1e-3;
    graph_init(&l->graph);
    state_table_init(&l->table);
}

static void layer_close(struct layer *l) {
    graph_set_producers(&l->graph);
    assert_false(l->graph.failed);
    assert_true(l->table.count <= layer_values && l->count <= layer_values);
}

static void layer_build(struct layer *l, int64_t tokens, int64_t width, int64_t rank) {
    int64_t wide = 2 * width + 8;
    layer_open(l, tokens);
    l->width = width;
    l->rank = rank;
    int norm[2] = {layer_rows(l, DTYPE_F32, width), layer_state(l, DTYPE_F32, 0, width, 1)};
    int glu[3] = {layer_rows(l, DTYPE_BF16, wide), layer_rows(l, DTYPE_BF16, wide),
                  layer_rows(l, DTYPE_BF16, wide)};
    int residual = layer_rows(l, DTYPE_F32, width);
    int normed = layer_emit(l, OP_NORM, norm, DTYPE_BF16), n = layer_output(l, normed, 0);
    layer_look(l, layer_output(l, normed, 1));
    int low_gate = layer_down(l, n, width), low_up = layer_down(l, n, width);
    int y = layer_look(l, layer_output(l, layer_emit(l, OP_GLU, glu, DTYPE_BF16), 0));
    int low_down = layer_down(l, y, wide);
    int dlow_down = layer_up_grad(l, residual, low_down, width);
    y = layer_output(l, layer_emit(l, OP_GLU, glu, DTYPE_BF16), 0);
    layer_down_grad(l, y, dlow_down, wide);
    int grad = layer_emit(l, OP_GLU_GRAD, glu, DTYPE_BF16);
    int dgate = layer_look(l, layer_output(l, grad, 0)), dup = layer_look(l, layer_output(l, grad, 1));
    int dlow_up = layer_up_grad(l, dup, low_up, wide), dlow_gate = layer_up_grad(l, dgate, low_gate, wide);
    n = layer_output(l, layer_emit(l, OP_NORM, norm, DTYPE_BF16), 0);
    layer_down_grad(l, n, dlow_up, width);
    layer_down_grad(l, n, dlow_gate, width);
    layer_close(l);
}

static void layer_release(struct layer *l) {
    for (int i = 0; i < layer_values; i++) free(l->begin[i].memory);
    state_table_release(&l->table);
    graph_release(&l->graph);
}

#endif
