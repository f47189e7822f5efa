/* Attention and its gradient over long rows, whose blocks a device may take in another order than those of
 * short ones (cuda/attention_grad_wgmma.cu): in bf16 against f32, whose kernels are others. */
#ifndef TESTS_OP_DEVICE_ATTENTION_H
#define TESTS_OP_DEVICE_ATTENTION_H

#include "op/device_layer.h"

struct long_rows {
    int32_t first, second; /* tokens of the two rows */
    int heads, kv_heads, head_dim;
};

/* q, k, v and dy are rows 0 to 3 of state; y, dq, dk and dv are looked at. */
static void long_rows_build(struct layer *l, const struct long_rows *r, enum dtype dtype) {
    static int32_t starts[3];
    int64_t width = (int64_t)r->heads * r->head_dim, kv = (int64_t)r->kv_heads * r->head_dim;
    struct attributes attributes = {.heads = r->heads,
                                    .kv_heads = r->kv_heads,
                                    .head_dim = r->head_dim,
                                    .scale = 1 / sqrtf((float)r->head_dim),
                                    .compute = dtype};
    layer_open(l, (int64_t)r->first + r->second);
    /* Half of 2^-8 for each weight and its gradient, which are rounded before the products. */
    l->tolerance = 0x1p-7;
    starts[1] = r->first;
    starts[2] = r->first + r->second;
    int q = layer_rows(l, dtype, width), k = layer_rows(l, dtype, kv), v = layer_rows(l, dtype, kv),
        dy = layer_rows(l, dtype, width);
    int segments = graph_input(&l->graph, INPUT_SEGMENTS, DTYPE_I32, COUNT_SEGMENTS_AND_ONE, 3);
    l->binding.inputs[INPUT_SEGMENTS] = starts;
    l->binding.segments = 2;
    l->binding.longest_segment = r->first > r->second ? r->first : r->second;
    int forward[4] = {q, k, v, segments};
    int attention = graph_emit(&l->graph, OP_ATTENTION, forward, &attributes, dtype, "attention");
    int y = layer_look(l, layer_output(l, attention, 0)), lse = layer_output(l, attention, 1);
    int backward[7] = {q, k, v, y, lse, dy, segments};
    int grad = graph_emit(&l->graph, OP_ATTENTION_GRAD, backward, &attributes, dtype, "gradient");
    for (int i = 0; i < 3; i++) layer_look(l, layer_output(l, grad, i));
    layer_close(l);
}

/* The same operands in f32. */
static void long_rows_take(struct layer *to, const struct layer *from) {
    for (int row = 0; row < from->table.count; row++) {
        enum dtype dtype = from->table.rows[row].dtype;
        rowcodec(dtype)->decode(from->begin[row].data, (float *)(void *)to->begin[row].data,
                                (int64_t)(to->begin[row].bytes / sizeof(float)));
    }
}

#endif
