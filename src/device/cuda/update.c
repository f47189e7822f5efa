/* The gradients' norm and the updates; what they are made of is put onto the device when a program is
 * compiled. */
#include <string.h>

#include "base/mem.h"
#include "device/cuda/cuda.h"

static int64_t pieces_of(int64_t elements) { return (elements + cuda_piece - 1) / cuda_piece; }

static size_t norm_workspace(const struct graph *graph, const struct node *node) {
    const struct value *gradients = &graph->values[node->input[0]];
    int64_t n = 1;
    for (int i = 0; i < gradients->rank; i++) n *= gradients->dim[i];
    return cuda_round((size_t)pieces_of(n) * sizeof(double));
}

static bool gradient_norm(struct call *call, struct error *err) {
    int64_t n = operand_elements(&call->in[0]);
    (void)err;
    double *sums = call_scratch(call, (size_t)pieces_of(n) * sizeof *sums);
    cuda_gradient_norm(call->out[0].data, call->in[0].data, n, sums, call->stream);
    return true;
}

/* Every part cut into pieces that a block takes. */
static bool piece_table(const struct node *node, void **out, size_t *bytes, int *count, struct error *err) {
    const struct op_parts *parts = node->attributes.parts;
    int64_t total = 0;
    for (int i = 0; i < parts->count; i++) total += pieces_of(parts->items[i].rows * parts->items[i].columns);
    struct update_piece *pieces = mem_array((size_t)total + 1, sizeof *pieces), *at = pieces;
    if (!pieces) return error_no_memory(err, "cuda", (uint64_t)total * sizeof *pieces);
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        int64_t n = part->rows * part->columns;
        for (int64_t first = 0; first < n; first += cuda_piece)
            *at++ = (struct update_piece){part->offset + first,
                                          (int32_t)(n - first < cuda_piece ? n - first : cuda_piece),
                                          part->group};
    }
    *out = pieces;
    *bytes = (size_t)total * sizeof *pieces;
    *count = (int)total;
    return true;
}

static bool part_table(const struct node *node, void **out, size_t *bytes, int *count, struct error *err) {
    const struct op_parts *parts = node->attributes.parts;
    *bytes = (size_t)parts->count * sizeof *parts->items;
    *count = parts->count;
    *out = mem_alloc(*bytes);
    if (!*out) return error_no_memory(err, "cuda", *bytes);
    memcpy(*out, parts->items, *bytes);
    return true;
}

static size_t update_workspace(const struct graph *graph, const struct node *node) {
    (void)graph;
    return cuda_round(cuda_scalar_bytes(node->attributes.parts->groups));
}

static bool run_update(struct call *call, enum update_kind kind) {
    int groups = call->node->attributes.parts->groups;
    struct update update = {.kind = kind,
                            .pieces = kind == UPDATE_ADAFACTOR ? NULL : call->table,
                            .parts = kind == UPDATE_ADAFACTOR ? call->table : NULL,
                            .count = call->table_count,
                            .groups = groups,
                            .norm = call->in[0].data,
                            .hyper = call->in[1].data,
                            .gradients = call->in[4].data,
                            .step = call->in[2].data,
                            .parameters = call->in[3].data,
                            .m = call->in[5].data,
                            .v = call->in[6].data,
                            .scalars = call_scratch(call, cuda_scalar_bytes(groups))};
    cuda_update(&update, call->stream);
    return true;
}

static bool adamw(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_ADAMW);
}
static bool sgd(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_SGD);
}
static bool lion(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_LION);
}
static bool adafactor(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_ADAFACTOR);
}

static bool average(struct call *call, struct error *err) {
    (void)err;
    cuda_average(call->in[4].data, call->in[3].data, call->in[0].data, call->in[1].data, call->in[2].data,
                 operand_elements(&call->in[3]), call->stream);
    return true;
}

const struct cuda_kernel cuda_kernels_optimizer[] = {
    {OP_GRADIENT_NORM, gradient_norm, norm_workspace, NULL},
    {OP_ADAMW, adamw, update_workspace, piece_table},
    {OP_SGD, sgd, update_workspace, piece_table},
    {OP_LION, lion, update_workspace, piece_table},
    {OP_ADAFACTOR, adafactor, update_workspace, part_table},
    {OP_AVERAGE, average, NULL, NULL},
    {.run = NULL},
};
