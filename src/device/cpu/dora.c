/* DoRA's kernels: the table, and the plain C forms (dora_body.h). */
#include "device/cpu/dora_body.h"

#include "device/cpu/dora_kernels.h"

/* m / n of each column. */
static size_t rescale_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)threads;
    return (size_t)graph->values[node->output[0]].dim[1] * sizeof(float);
}

/* m / n and 1 / n of each column, and the sums of each band of rows. */
static size_t rescale_grad_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)threads;
    const struct value *dz = &graph->values[node->output[0]];
    return (size_t)dz->dim[1] * (size_t)(2 + dora_bands(dz->dim[0])) * sizeof(float);
}

const struct cpu_kernel cpu_kernels_dora[] = {
#if defined(__x86_64__)
    {OP_RESCALE, "rescale_avx512", CPU_AVX512, rescale_avx512, rescale_workspace},
    {OP_RESCALE_GRAD, "rescale_grad_avx512", CPU_AVX512, rescale_grad_avx512, rescale_grad_workspace},
    {OP_ROW_NORMS, "row_norms_avx512", CPU_AVX512, row_norms_avx512, NULL},
    {OP_RESCALE, "rescale_avx2", CPU_AVX2, rescale_avx2, rescale_workspace},
    {OP_RESCALE_GRAD, "rescale_grad_avx2", CPU_AVX2, rescale_grad_avx2, rescale_grad_workspace},
    {OP_ROW_NORMS, "row_norms_avx2", CPU_AVX2, row_norms_avx2, NULL},
#endif
    {OP_RESCALE, "rescale_c", 0, rescale_run, rescale_workspace},
    {OP_RESCALE_GRAD, "rescale_grad_c", 0, rescale_grad_run, rescale_grad_workspace},
    {OP_ROW_NORMS, "row_norms_c", 0, row_norms_run, NULL},
    {.run = NULL},
};
