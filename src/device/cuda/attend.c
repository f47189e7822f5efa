/* Attention, its gradient, and attention through the key-value cache. */
#include "device/cuda/cuda.h"

static struct attention attention_of(const struct call *call) {
    const struct attributes *a = &call->node->attributes;
    return (struct attention){.q = array_of(&call->in[0]),
                              .k = array_of(&call->in[1]),
                              .v = array_of(&call->in[2]),
                              .ranges = call->ranges,
                              .tokens = call->in[0].dim[0],
                              .heads = a->heads,
                              .kv_heads = a->kv_heads,
                              .head_dim = a->head_dim,
                              .scale = a->scale,
                              .processors = call->device->processors};
}

static bool on_warpgroups(const struct call *call, const struct attention *a) {
    return cuda_is_hopper(call->device->major, call->device->minor) &&
           cuda_wgmma_serves(a->q.type, a->head_dim);
}

static bool attention(struct call *call, struct error *err) {
    struct attention a = attention_of(call);
    (void)err;
    a.y = array_of(&call->out[0]);
    a.lse = call->out[1].data;
    if (on_warpgroups(call, &a)) {
        a.counters = call_scratch(call, sizeof *a.counters);
        if (cuda_wgmma(&a, call->stream)) return true;
    }
    if (cuda_flash_serves(a.q.type, a.head_dim))
        cuda_flash(&a, call->stream);
    else
        cuda_attention(&a, call->stream);
    return true;
}

/* Sums of dq and counters (attention_grad_wgmma.cu). */
static size_t wgmma_bytes(int64_t rows, const struct attributes *a) {
    return cuda_round(cuda_wgmma_sums_bytes(rows, a->heads, a->head_dim)) +
           cuda_round(cuda_wgmma_counters_bytes(rows, a->heads, a->head_dim));
}

static size_t workspace(const struct graph *graph, const struct node *node) {
    bool counts = cuda_wgmma_serves(graph->values[node->input[0]].dtype, node->attributes.head_dim);
    return counts ? cuda_round(sizeof(int)) : 0;
}

static size_t grad_workspace(const struct graph *graph, const struct node *node) {
    const struct value *q = &graph->values[node->input[0]];
    size_t rows = (size_t)q->dim[0], heads = (size_t)node->attributes.heads;
    size_t bytes = cuda_round(rows * heads * sizeof(float));
    if (cuda_flash_serves(q->dtype, node->attributes.head_dim) &&
        graph->values[node->input[5]].dtype != q->dtype)
        bytes += cuda_round(rows * (size_t)q->dim[1] * 2);
    if (cuda_wgmma_serves(q->dtype, node->attributes.head_dim))
        bytes += wgmma_bytes(q->dim[0], &node->attributes);
    return bytes;
}

static bool attention_grad(struct call *call, struct error *err) {
    struct attention a = attention_of(call);
    (void)err;
    a.y = array_of(&call->in[3]);
    a.lse = call->in[4].data;
    a.dy = array_of(&call->in[5]);
    a.dq = array_of(&call->out[0]);
    a.dk = array_of(&call->out[1]);
    a.dv = array_of(&call->out[2]);
    a.delta = call_scratch(call, (size_t)a.tokens * (size_t)a.heads * sizeof(float));
    if (cuda_flash_serves(a.q.type, a.head_dim)) {
        int64_t width = (int64_t)a.heads * a.head_dim;
        a.dy16 = a.dy;
        if (a.dy.type != a.q.type)
            a.dy16 = (struct array){call_scratch(call, (size_t)(a.tokens * width) * 2), a.q.type, width};
    }
    if (on_warpgroups(call, &a)) {
        a.dq_sums = call_scratch(call, cuda_wgmma_sums_bytes(a.tokens, a.heads, a.head_dim));
        a.counters = call_scratch(call, cuda_wgmma_counters_bytes(a.tokens, a.heads, a.head_dim));
        if (cuda_wgmma_grad(&a, call->stream)) return true;
    }
    cuda_attention_grad(&a, call->stream);
    return true;
}

static size_t parts_bytes(int64_t tokens, int pieces, const struct attributes *a) {
    return cuda_round((size_t)(tokens * a->heads * pieces * (a->head_dim + 2)) * sizeof(float));
}

static size_t cache_workspace(const struct graph *graph, const struct node *node) {
    int64_t segments = graph->values[node->input[4]].dim[0];
    int piece, pieces;
    cuda_cache_pieces(graph->values[node->input[6]].dim[2], &piece, &pieces);
    return pieces > 1 ? parts_bytes(segments, pieces, &node->attributes) : 0;
}

static struct cache_attention cache_attention_of(const struct call *call) {
    const struct attributes *a = &call->node->attributes;
    struct cache_attention c = {.q = array_of(&call->in[0]),
                                .k = array_of(&call->in[1]),
                                .v = array_of(&call->in[2]),
                                .y = array_of(&call->out[0]),
                                .keys = array_of(&call->in[6]),
                                .values = array_of(&call->in[7]),
                                .segments = call->in[3].data,
                                .slots = call->in[4].data,
                                .past = call->in[5].data,
                                .ranges = call->ranges,
                                .tokens = call->in[0].dim[0],
                                .segment_count = call->in[4].dim[0],
                                .context = call->in[6].dim[2],
                                .heads = a->heads,
                                .kv_heads = a->kv_heads,
                                .head_dim = a->head_dim,
                                .scale = a->scale,
                                .clusters = cuda_is_hopper(call->device->major, call->device->minor)};
    c.keys.stride = c.values.stride = a->head_dim;
    return c;
}

/* A token a sequence. */
static bool is_decoding(const struct cache_attention *c) {
    return c->tokens == c->segment_count && c->head_dim % 8 == 0;
}

static void decode(struct call *call, struct cache_attention *c) {
    cuda_cache_pieces(c->context, &c->piece, &c->pieces);
    if (c->pieces > 1)
        c->parts = call_scratch(call, parts_bytes(c->tokens, c->pieces, &call->node->attributes));
    cuda_cache_decode(c, call->stream);
}

bool cuda_attend_turned(struct call *call, const struct call *q, const struct call *k) {
    struct cache_attention c = cache_attention_of(call);
    if (!is_decoding(&c) || c.head_dim % 16 || q->in[0].dtype != q->out[0].dtype ||
        k->in[0].dtype != k->out[0].dtype || q->in[1].dim[1] != c.head_dim)
        return false;
    c.q = array_of(&q->in[0]);
    c.k = array_of(&k->in[0]);
    c.angles = q->in[1].data;
    decode(call, &c);
    return true;
}

static bool cache_attention(struct call *call, struct error *err) {
    struct cache_attention c = cache_attention_of(call);
    (void)err;
    if (is_decoding(&c)) {
        decode(call, &c);
        return true;
    }
    cuda_cache_append(&c, call->stream);
    if (cuda_flash_serves(c.q.type, c.head_dim) && c.keys.type == c.q.type)
        cuda_flash_cache(&c, call->stream);
    else
        cuda_cache_attention(&c, call->stream);
    return true;
}

const struct cuda_kernel cuda_kernels_attention[] = {
    {OP_ATTENTION, attention, workspace, NULL},
    {OP_ATTENTION_GRAD, attention_grad, grad_workspace, NULL},
    {OP_CACHE_ATTENTION, cache_attention, cache_workspace, NULL},
    {.run = NULL},
};
