/* Causal grouped-query attention inside segments (Vaswani et al. 2017, eq. 1; Ainslie et al. 2023).
 *
 *   p = softmax(scale · q kᵀ) over the keys of the same segment up to the query
 *   y = p v                            lse = log Σ exp(scale · q kᵀ)
 *   dv = pᵀ dy     ds = p (dy vᵀ - Σ dy · y)     dq = scale · ds k     dk = scale · dsᵀ q
 */
#include <math.h>

#include "op/op.h"

static void attention_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    (void)dtype;
    const struct value *q = op_input(graph, node, 0);
    op_shape_like(&out[0], q);
    op_shape_flat(&out[1], q, node->attributes.heads);
    out[1].dtype = DTYPE_F32;
}

/* Pairs that are not masked: half of T · L, where L is the mean segment. */
static double pair_flops(const struct graph *graph, const struct node *node,
                         const int64_t counts[COUNT_KINDS]) {
    double tokens = (double)op_count(op_input(graph, node, 0), counts);
    double segments = counts ? (double)counts[COUNT_SEGMENTS] : 1;
    double pairs = tokens * (tokens / (segments > 0 ? segments : 1) + 1) / 2;
    return 2.0 * pairs * node->attributes.heads * node->attributes.head_dim;
}

static double attention_flops(const struct graph *graph, const struct node *node,
                              const int64_t counts[COUNT_KINDS]) {
    return 2 * pair_flops(graph, node, counts);
}

static double attention_grad_flops(const struct graph *graph, const struct node *node,
                                   const int64_t counts[COUNT_KINDS]) {
    return 5 * pair_flops(graph, node, counts);
}

static void attention_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0] && !b->needed[1] && !b->needed[2]) return;
    int inputs[7] = {node.input[0],  node.input[1],         node.input[2], node.output[0],
                     node.output[1], b->output_gradient[0], node.input[3]};
    enum dtype dtype = graph->values[node.input[0]].dtype;
    int grad = graph_emit(graph, OP_ATTENTION_GRAD, inputs, &node.attributes, dtype, "dqkv");
    for (int i = 0; i < 3; i++) backward_give(b, i, graph_output(graph, grad, i));
}

static double dot_product(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Two passes over the keys, so that no row of scores is stored. */
static void attention_reference(const struct reference_call *call) {
    const struct attributes *a = call->attributes;
    int64_t d = a->head_dim, H = a->heads, K = a->kv_heads, segments = call->in[3].dim[0] - 1;
    double scale = (double)a->scale;
    for (int64_t s = 0; s < segments; s++) {
        int64_t first = (int64_t)call->in[3].data[s], end = (int64_t)call->in[3].data[s + 1];
        for (int64_t t = first; t < end; t++)
            for (int64_t h = 0; h < H; h++) {
                const double *q = call->in[0].data + (t * H + h) * d;
                const double *k = call->in[1].data + (h * K / H) * d, *v = call->in[2].data + (h * K / H) * d;
                double *y = call->out[0].data + (t * H + h) * d, most = -INFINITY, sum = 0;
                for (int64_t j = first; j <= t; j++)
                    most = fmax(most, scale * dot_product(q, k + j * K * d, d));
                for (int64_t c = 0; c < d; c++) y[c] = 0;
                for (int64_t j = first; j <= t; j++) {
                    double weight = exp(scale * dot_product(q, k + j * K * d, d) - most);
                    sum += weight;
                    for (int64_t c = 0; c < d; c++) y[c] += weight * v[j * K * d + c];
                }
                for (int64_t c = 0; c < d; c++) y[c] /= sum;
                if (call->out[1].data) call->out[1].data[t * H + h] = most + log(sum);
            }
    }
}

const struct op_row op_attention_row = {
    .name = "attention",
    .inputs = 4,
    .outputs = 2,
    .overwrite = {-1, -1, -1, -1},
    .shapes = attention_shapes,
    .backward = attention_backward,
    .flops = attention_flops,
    .reference = attention_reference,
};

static void attention_grad_shapes(const struct graph *graph, const struct node *node, struct value *out,
                                  enum dtype dtype) {
    (void)dtype;
    for (int i = 0; i < 3; i++) op_shape_like(&out[i], op_input(graph, node, i));
}

/* Adds the gradient of one query row to dq, dk, dv. */
static void grad_row(const struct reference_call *call, int64_t first, int64_t t, int64_t h) {
    const struct attributes *a = call->attributes;
    int64_t d = a->head_dim, H = a->heads, K = a->kv_heads, shared = (h * K / H) * d;
    double scale = (double)a->scale;
    int64_t row = (t * H + h) * d;
    const double *q = call->in[0].data + row, *y = call->in[3].data + row, *dy = call->in[5].data + row;
    double lse = call->in[4].data[t * H + h], delta = dot_product(dy, y, d);
    for (int64_t j = first; j <= t; j++) {
        const double *k = call->in[1].data + j * K * d + shared, *v = call->in[2].data + j * K * d + shared;
        double *dk = call->out[1].data + j * K * d + shared, *dv = call->out[2].data + j * K * d + shared;
        double p = exp(scale * dot_product(q, k, d) - lse), ds = p * (dot_product(dy, v, d) - delta) * scale;
        for (int64_t c = 0; c < d; c++) {
            call->out[0].data[row + c] += ds * k[c];
            dk[c] += ds * q[c];
            dv[c] += p * dy[c];
        }
    }
}

static void attention_grad_reference(const struct reference_call *call) {
    int64_t segments = call->in[6].dim[0] - 1;
    for (int o = 0; o < 3; o++)
        for (int64_t i = 0; i < call->out[o].dim[0] * call->out[o].dim[1]; i++) call->out[o].data[i] = 0;
    for (int64_t s = 0; s < segments; s++) {
        int64_t first = (int64_t)call->in[6].data[s], end = (int64_t)call->in[6].data[s + 1];
        for (int64_t t = first; t < end; t++)
            for (int64_t h = 0; h < call->attributes->heads; h++) grad_row(call, first, t, h);
    }
}

const struct op_row op_attention_grad_row = {
    .name = "attention_grad",
    .inputs = 7,
    .outputs = 3,
    .overwrite = {-1, -1, -1, -1},
    .shapes = attention_grad_shapes,
    .flops = attention_grad_flops,
    .reference = attention_grad_reference,
};

static void cache_shapes(const struct graph *graph, const struct node *node, struct value *out,
                         enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
}

/* Row t of segment s attends to its slot's rows [0, past + its place]; ck, cv: of the head's kv head. */
static void cache_row(const struct reference_call *call, int64_t t, int64_t h, const double *ck,
                      const double *cv, int64_t last) {
    const struct attributes *a = call->attributes;
    int64_t d = a->head_dim, H = a->heads;
    const double *q = call->in[0].data + (t * H + h) * d;
    double *y = call->out[0].data + (t * H + h) * d, most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < d; c++) y[c] = 0;
    for (int64_t j = 0; j <= last;
         j++) { /* online softmax: rescale what was summed when a larger score comes */
        double s = (double)a->scale * dot_product(q, ck + j * d, d);
        double larger = fmax(s, most), keep = exp(most - larger), weight = exp(s - larger);
        sum = sum * keep + weight;
        for (int64_t c = 0; c < d; c++) y[c] = y[c] * keep + weight * cv[j * d + c];
        most = larger;
    }
    for (int64_t c = 0; c < d; c++) y[c] /= sum;
}

static void cache_reference(const struct reference_call *call) {
    const struct attributes *a = call->attributes;
    int64_t d = a->head_dim, K = a->kv_heads, head = call->in[6].dim[2] * d;
    for (int64_t s = 0; s + 1 < call->in[3].dim[0]; s++) {
        int64_t first = (int64_t)call->in[3].data[s], end = (int64_t)call->in[3].data[s + 1];
        int64_t slot = (int64_t)call->in[4].data[s], past = (int64_t)call->in[5].data[s];
        double *ck = call->in[6].data + slot * K * head, *cv = call->in[7].data + slot * K * head;
        for (int64_t t = first; t < end; t++) {
            int64_t at = past + t - first;
            for (int64_t c = 0; c < K * d; c++) {
                ck[c / d * head + at * d + c % d] = call->in[1].data[t * K * d + c];
                cv[c / d * head + at * d + c % d] = call->in[2].data[t * K * d + c];
            }
            for (int64_t h = 0; h < a->heads; h++) {
                int64_t shared = h * K / a->heads * head;
                cache_row(call, t, h, ck + shared, cv + shared, at);
            }
        }
    }
}

const struct op_row op_cache_attention_row = {
    .name = "cache_attention",
    .inputs = 8,
    .outputs = 1,
    .state_writes = 1u << 6 | 1u << 7,
    .overwrite = {-1, -1, -1, -1},
    .shapes = cache_shapes,
    .flops = attention_flops,
    .reference = cache_reference,
};
