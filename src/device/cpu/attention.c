/* Attention: the table, and the plain C forms (attention_body.h). */
#include "device/cpu/attention_body.h"

#include "device/cpu/attention_kernels.h"

static size_t forward_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *segments = &graph->values[node->input[3]];
    return attention_table_bytes(segments->dim[0]) +
           attention_table_bytes(attention_scratch(&node->attributes)) * (size_t)threads;
}

static size_t cache_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *slots = &graph->values[node->input[4]], *cache = &graph->values[node->input[6]];
    const struct attributes *a = &node->attributes;
    return forward_workspace(graph, node, threads) +
           attention_table_bytes(slots->dim[0] * a->kv_heads * attention_pieces(cache->dim[2]) *
                                 attention_piece_floats(a));
}

static size_t backward_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct value *q = &graph->values[node->input[0]], *segments = &graph->values[node->input[6]];
    return attention_table_bytes(segments->dim[0]) +
           attention_table_bytes(q->dim[0] * node->attributes.heads) +
           attention_table_bytes(attention_grad_scratch(&node->attributes)) * (size_t)threads;
}

static void attention_c(const struct cpu_call *call) { attention_run(call, &attention_floats); }
static void attention_grad_c(const struct cpu_call *call) { attention_grad_run(call, &attention_floats); }
static void cache_attention_c(const struct cpu_call *call) { cache_attention_run(call, &attention_floats); }

enum { bf16_needs = CPU_AVX512 | CPU_AVX512BF16 };

const struct cpu_kernel cpu_kernels_attention[] = {
#if defined(__x86_64__)
    {OP_ATTENTION, "attention_avx512bf16", bf16_needs, attention_avx512bf16, forward_workspace},
    {OP_ATTENTION_GRAD, "attention_grad_avx512bf16", bf16_needs, attention_grad_avx512bf16,
     backward_workspace},
    {OP_CACHE_ATTENTION, "cache_attention_avx512bf16", bf16_needs, cache_attention_avx512bf16,
     cache_workspace},
    {OP_ATTENTION, "attention_avx512", CPU_AVX512, attention_avx512, forward_workspace},
    {OP_ATTENTION_GRAD, "attention_grad_avx512", CPU_AVX512, attention_grad_avx512, backward_workspace},
    {OP_CACHE_ATTENTION, "cache_attention_avx512", CPU_AVX512, cache_attention_avx512, cache_workspace},
    {OP_ATTENTION, "attention_avx2", CPU_AVX2, attention_avx2, forward_workspace},
    {OP_ATTENTION_GRAD, "attention_grad_avx2", CPU_AVX2, attention_grad_avx2, backward_workspace},
    {OP_CACHE_ATTENTION, "cache_attention_avx2", CPU_AVX2, cache_attention_avx2, cache_workspace},
#endif
    {OP_ATTENTION, "attention_c", 0, attention_c, forward_workspace},
    {OP_ATTENTION_GRAD, "attention_grad_c", 0, attention_grad_c, backward_workspace},
    {OP_CACHE_ATTENTION, "cache_attention_c", 0, cache_attention_c, cache_workspace},
    {.run = NULL},
};
