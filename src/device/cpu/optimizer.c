/* The optimizer's kernels: the table, zeroing, and the plain C forms (optimizer_body.h). */
#include "device/cpu/optimizer_8bit_body.h"
#include "device/cpu/optimizer_body.h"
#include "device/cpu/optimizer_muon_body.h"

static size_t gradient_norm_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)threads;
    const struct value *gradients = &graph->values[node->input[0]];
    int64_t elements = 1;
    for (int i = 0; i < gradients->rank; i++) elements *= gradients->dim[i];
    return (size_t)optimizer_pieces(elements) * sizeof(double);
}

/* Where each part's tasks begin. */
static size_t update_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)graph, (void)threads;
    return ((size_t)node->attributes.parts->count + 1) * sizeof(int32_t);
}

/* Sums of the columns of one part for each thread. */
static size_t adafactor_workspace(const struct graph *graph, const struct node *node, int threads) {
    (void)graph;
    const struct op_parts *parts = node->attributes.parts;
    int64_t most = 1;
    for (int i = 0; i < parts->count; i++)
        if (parts->items[i].columns > most) most = parts->items[i].columns;
    return (size_t)most * (size_t)threads * sizeof(double);
}

static size_t adamw8bit_workspace(const struct graph *graph, const struct node *node, int threads) {
    return update_workspace(graph, node, threads) + 64 + sizeof(struct eight_bits);
}

/* The update of the largest part and the next one, two Gram matrices, and what products take. */
static size_t muon_workspace(const struct graph *graph, const struct node *node, int threads) {
    const struct op_parts *parts = node->attributes.parts;
    size_t most = 0;
    for (int i = 0; i < parts->count; i++) {
        struct muon_room room;
        if (!parts->items[i].hidden) continue;
        muon_lay_out(&room, &parts->items[i], threads);
        if (room.bytes > most) most = room.bytes;
    }
    return most > update_workspace(graph, node, threads) ? most : update_workspace(graph, node, threads);
}

struct zero_job {
    unsigned char *data;
    size_t bytes;
};

enum { zero_piece = 4 * optimizer_piece }; /* bytes */

static void zero_task(void *user, int task, int worker) {
    (void)worker;
    const struct zero_job *job = user;
    size_t first = (size_t)task * zero_piece, left = job->bytes - first;
    memset(job->data + first, 0, left < zero_piece ? left : zero_piece);
}

static void zero_c(const struct cpu_call *call) {
    uint64_t bytes = 0;
    if (!dtype_bytes(call->in[0].dtype, (uint64_t)optimizer_elements(&call->in[0]), &bytes)) return;
    struct zero_job job = {.data = call->in[0].data, .bytes = (size_t)bytes};
    pool_run(call->pool, (int)((bytes + zero_piece - 1) / zero_piece), zero_task, &job);
}

/* ---- loss scaling (op/scaling.h) ---- */

static void scale_c(const struct cpu_call *call) { /* a number for each target: one thread */
    const float *x = call->in[0].data, scale = ((const float *)call->in[1].data)[SCALING_FACTOR];
    float *y = call->out[0].data;
    for (int64_t i = 0; i < optimizer_elements(&call->in[0]); i++) y[i] = x[i] * scale;
}

static void unscale_task(void *user, int task, int worker) {
    const struct cpu_call *call = user;
    int64_t first = (int64_t)task * optimizer_piece, left = optimizer_elements(&call->in[0]) - first;
    float *x = (float *)call->in[0].data + first;
    float factor = 1 / ((const float *)call->in[1].data)[SCALING_FACTOR]; /* exact: a power of two */
    (void)worker;
    for (int64_t i = 0; i < (left < optimizer_piece ? left : optimizer_piece); i++) x[i] *= factor;
}

static void unscale_c(const struct cpu_call *call) {
    pool_run(call->pool, (int)optimizer_pieces(optimizer_elements(&call->in[0])), unscale_task,
             (void *)(uintptr_t)call);
}

static void scale_update_c(const struct cpu_call *call) {
    float *scaling = call->in[1].data;
    if (!isfinite(*(const float *)call->in[0].data)) {
        scaling[SCALING_FACTOR] = fmaxf(scaling[SCALING_FACTOR] / 2, SCALING_LEAST);
        scaling[SCALING_GOOD] = 0;
    } else if (++scaling[SCALING_GOOD] >= SCALING_INTERVAL) {
        scaling[SCALING_FACTOR] = fminf(scaling[SCALING_FACTOR] * 2, SCALING_MOST);
        scaling[SCALING_GOOD] = 0;
    }
}

const struct cpu_kernel cpu_kernels_optimizer[] = {
#if defined(__x86_64__)
    {OP_GRADIENT_NORM, "gradient_norm_avx512", CPU_AVX512, gradient_norm_avx512, gradient_norm_workspace},
    {OP_ADAMW, "adamw_avx512", CPU_AVX512, adamw_avx512, update_workspace},
    {OP_SGD, "sgd_avx512", CPU_AVX512, sgd_avx512, update_workspace},
    {OP_LION, "lion_avx512", CPU_AVX512, lion_avx512, update_workspace},
    {OP_ADAFACTOR, "adafactor_avx512", CPU_AVX512, adafactor_avx512, adafactor_workspace},
    {OP_ADAMW8BIT, "adamw8bit_avx512", CPU_AVX512, adamw8bit_avx512, adamw8bit_workspace},
    {OP_MUON, "muon_avx512", CPU_AVX512, muon_avx512, muon_workspace},
    {OP_AVERAGE, "average_avx512", CPU_AVX512, average_avx512, NULL},
    {OP_GRADIENT_NORM, "gradient_norm_avx2", CPU_AVX2, gradient_norm_avx2, gradient_norm_workspace},
    {OP_ADAMW, "adamw_avx2", CPU_AVX2, adamw_avx2, update_workspace},
    {OP_SGD, "sgd_avx2", CPU_AVX2, sgd_avx2, update_workspace},
    {OP_LION, "lion_avx2", CPU_AVX2, lion_avx2, update_workspace},
    {OP_ADAFACTOR, "adafactor_avx2", CPU_AVX2, adafactor_avx2, adafactor_workspace},
    {OP_ADAMW8BIT, "adamw8bit_avx2", CPU_AVX2, adamw8bit_avx2, adamw8bit_workspace},
    {OP_MUON, "muon_avx2", CPU_AVX2, muon_avx2, muon_workspace},
    {OP_AVERAGE, "average_avx2", CPU_AVX2, average_avx2, NULL},
#endif
    {OP_GRADIENT_NORM, "gradient_norm_c", 0, gradient_norm_run, gradient_norm_workspace},
    {OP_ADAMW, "adamw_c", 0, adamw_run, update_workspace},
    {OP_SGD, "sgd_c", 0, sgd_run, update_workspace},
    {OP_LION, "lion_c", 0, lion_run, update_workspace},
    {OP_ADAFACTOR, "adafactor_c", 0, adafactor_run, adafactor_workspace},
    {OP_ADAMW8BIT, "adamw8bit_c", 0, adamw8bit_run, adamw8bit_workspace},
    {OP_MUON, "muon_c", 0, muon_run, muon_workspace},
    {OP_AVERAGE, "average_c", 0, average_run, NULL},
    {OP_ZERO, "zero_c", 0, zero_c, NULL},
    {OP_SCALE, "scale_c", 0, scale_c, NULL},
    {OP_UNSCALE, "unscale_c", 0, unscale_c, NULL},
    {OP_SCALE_UPDATE, "scale_update_c", 0, scale_update_c, NULL},
    {.run = NULL},
};
