/* A layer of a decoder with the head behind it, for new tokens of several sequences: what a device may serve
 * by a few launches (cuda/few_join.h). Compared as in device_layer.h. */
#ifndef TESTS_OP_DEVICE_DECODING_H
#define TESTS_OP_DEVICE_DECODING_H

#include "op/device_layer.h"

struct decoding {
    int64_t sequences, width, hidden, heads, kv_heads, head_dim, context;
    enum dtype q, v, gate, down; /* of weights: q, k and o; v; gate and up; down and the head */
    int64_t rank;                /* of an adapter on q, k, v, gate and up; 0: none */
};

static int decoding_input(struct layer *l, enum input_name name, enum count count, int64_t n,
                          const int32_t *data) {
    l->binding.inputs[name] = data;
    return graph_input(&l->graph, name, DTYPE_I32, count, n);
}

static int decoding_norm(struct layer *l, int x, int64_t width) {
    int inputs[2] = {x, layer_state(l, DTYPE_F32, 0, width, 1)};
    return layer_output(l, layer_emit(l, OP_NORM, inputs, DTYPE_BF16), 0);
}

static int decoding_product(struct layer *l, const int *inputs, enum dtype dtype) {
    return layer_output(l, layer_emit(l, OP_LINEAR, inputs, dtype), 0);
}

static int decoding_plain(struct layer *l, int x, int addend, enum dtype type, int64_t rows, int64_t width,
                          enum dtype dtype) {
    int inputs[6] = {x, layer_state(l, type, rows, width, 0.1), -1, addend, -1, -1};
    return decoding_product(l, inputs, dtype);
}

struct decoding_projection {
    enum dtype type;
    int64_t rows;
    bool bias;
};

/* Products of x, with adapters where they have a rank, whose first products stand before them all, or each
 * before its own: a model has both. */
static void decoding_projections(struct layer *l, const struct decoding *d, int x,
                                 const struct decoding_projection *of, int count, bool first, int *y) {
    int low[3] = {-1, -1, -1};
    for (int i = 0; first && d->rank && i < count; i++)
        low[i] = decoding_plain(l, x, -1, DTYPE_F32, d->rank, d->width, DTYPE_F32);
    for (int i = 0; i < count; i++) {
        if (!first && d->rank) low[i] = decoding_plain(l, x, -1, DTYPE_F32, d->rank, d->width, DTYPE_F32);
        int weight = layer_state(l, of[i].type, of[i].rows, d->width, 0.1),
            up = d->rank ? layer_state(l, DTYPE_F32, of[i].rows, d->rank, 0.1) : -1,
            bias = of[i].bias ? layer_state(l, DTYPE_F32, 0, of[i].rows, 1) : -1;
        int inputs[6] = {x, weight, bias, -1, low[i], up};
        y[i] = decoding_product(l, inputs, DTYPE_BF16);
    }
}

static int decoding_attention(struct layer *l, const struct decoding *d, const int *qkv) {
    static int32_t positions[8], segments[9], slots[8], past[8];
    struct attributes turn = {.head_dim = (int)d->head_dim}, attend = {.heads = (int)d->heads,
                                                                       .kv_heads = (int)d->kv_heads,
                                                                       .head_dim = (int)d->head_dim,
                                                                       .scale = 0.1f};
    int64_t n = d->sequences, cache[4] = {n + 1, d->kv_heads, d->context, d->head_dim};
    for (int32_t s = 0; s < n; s++) {
        segments[s + 1] = s + 1;
        slots[s] = (int32_t)n - s;
        past[s] = positions[s] = s ? (int32_t)(d->context - 1) / s - s % 2 : 0;
    }
    int table[2] = {decoding_input(l, INPUT_POSITIONS, COUNT_TOKENS, n, positions),
                    layer_state(l, DTYPE_F32, 0, d->head_dim / 2, 0.01)};
    int angles = layer_output(l, layer_emit(l, OP_ROPE_TABLE, table, DTYPE_F32), 0), turned[2];
    for (int i = 0; i < 2; i++) {
        int inputs[2] = {qkv[i], angles};
        turned[i] = layer_output(l, graph_emit(&l->graph, OP_ROPE, inputs, &turn, DTYPE_BF16, "turned"), 0);
    }
    int inputs[8] = {turned[0],
                     turned[1],
                     qkv[2],
                     decoding_input(l, INPUT_SEGMENTS, COUNT_SEGMENTS_AND_ONE, n + 1, segments),
                     decoding_input(l, INPUT_SLOTS, COUNT_SEGMENTS, n, slots),
                     decoding_input(l, INPUT_PAST, COUNT_SEGMENTS, n, past),
                     layer_look(l, layer_shaped_state(l, DTYPE_BF16, 4, cache, 1)),
                     layer_look(l, layer_shaped_state(l, DTYPE_BF16, 4, cache, 1))};
    return layer_output(
        l, graph_emit(&l->graph, OP_CACHE_ATTENTION, inputs, &attend, DTYPE_BF16, "attention"), 0);
}

static void decoding_build(struct layer *l, const struct decoding *d) {
    enum { vocabulary = 520 };
    static const int32_t rows[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t n = d->sequences, width = d->width, kv = d->kv_heads * d->head_dim;
    const struct decoding_projection attend[3] = {{d->q, d->heads * d->head_dim, false},
                                                  {d->q, kv, true},
                                                  {d->v, kv, false}},
                                     unit[2] = {{d->gate, d->hidden, false}, {d->gate, d->hidden, false}};
    int qkv[3], gate_up[2];
    layer_open(l, n);
    l->tolerance = 0.02; /* a norm is rounded to bf16 before it is divided, or after it */
    l->binding.targets = l->binding.segments = n;
    l->binding.longest_segment = 1;
    int x = layer_state(l, DTYPE_F32, n, width, 1);
    decoding_projections(l, d, decoding_norm(l, x, width), attend, 3, false, qkv);
    int attention = decoding_attention(l, d, qkv);
    x = layer_look(l, decoding_plain(l, attention, x, d->q, width, d->heads * d->head_dim, DTYPE_F32));
    decoding_projections(l, d, decoding_norm(l, x, width), unit, 2, true, gate_up);
    int glu = layer_output(l, layer_emit(l, OP_GLU, gate_up, DTYPE_BF16), 0);
    x = layer_look(l, decoding_plain(l, glu, x, d->down, width, d->hidden, DTYPE_F32));
    int gather[2] = {x, decoding_input(l, INPUT_ROWS, COUNT_TARGETS, n, rows)};
    x = layer_output(l, layer_emit(l, OP_GATHER, gather, DTYPE_F32), 0);
    layer_look(l, decoding_plain(l, decoding_norm(l, x, width), -1, d->down, vocabulary, width, DTYPE_F32));
    layer_close(l);
}

#endif
