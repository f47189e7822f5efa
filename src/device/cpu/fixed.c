/* What a run costs whatever its count of tokens: weights are decoded and packed once for each product, and
 * each operation is handed to the threads. The rates are those of the products' table (gemm.c), as measured
 * on processors of each kind. */
#include "device/cpu/gemm.h"
#include "device/cpu/head_kernels.h"
#include "device/cpu/measure.h"

/* The operations that pack a weight, or read and write its gradient: which input that is, and how often. */
static const struct {
    enum op_code op;
    int weight, times;
} packs[] = {{OP_LINEAR, 1, 1},    {OP_LINEAR_GRAD_X, 1, 1}, {OP_LINEAR_GRAD_W, 2, 1},
             {OP_ROW_NORMS, 0, 1}, {OP_HEAD, 1, 1},          {OP_HEAD_GRAD, 1, 2}};

static double packed_elements(const struct graph *graph, const struct node *node,
                              const int64_t counts[COUNT_KINDS]) {
    for (size_t i = 0; i < sizeof packs / sizeof *packs; i++) {
        if (packs[i].op != node->op) continue;
        const struct value *weight = &graph->values[node->input[packs[i].weight]];
        double elements = packs[i].times * (double)weight->dim[0] * (double)weight->dim[1];
        if (node->op != OP_HEAD && node->op != OP_HEAD_GRAD) return elements;
        bool trained = node->op == OP_HEAD_GRAD && node->input[4] >= 0;
        double chunks = (double)cpu_head_chunks(counts[COUNT_TARGETS], weight->dim[0], trained);
        return chunks * elements * (trained ? 1.5 : 1);
    }
    return 0;
}

double cpu_fixed_flops(const struct device *device, const struct graph *graph,
                       const int64_t counts[COUNT_KINDS], enum dtype compute) {
    const struct cpu_gemm *product = cpu_gemm_select(compute, device->features);
    double flops = 0;
    for (int n = 0; product && n < graph->node_count; n++)
        flops +=
            product->handover + 2 * product->pack_rows * packed_elements(graph, &graph->nodes[n], counts);
    return flops;
}
