/* Products with frozen weights in fp8 (--compute fp8; Micikevicius et al. 2022, FP8 Formats for Deep
 * Learning).
 *
 * A weight W [n, k] lies in the store as e4m3 with one factor for all of it, and a second time transposed,
 * since Hopper's products of 8 bits read both operands along the sum. Activations and gradients are rounded
 * with a factor for each row, the largest of that row: from what is there, so that nothing is carried from
 * step to step. Norms, gated units and their gradients, which have a row at hand, write it both ways; what
 * others yield is rounded before its first product. An adapter stays as exact as in bf16: a number is two of
 * e4m3, a = a₁ + a₂, and
 *
 *   y = α [x | l₁ | l₂ | l₁] [w | u₁ | u₁ | u₂]ᵀ          l: low, u: β/α up (forward), down (backward)
 *
 * so that it costs three times its rank more columns and nothing is read to be added to. */
#include "device/cuda/fp8.h"

#include "base/checked.h"
#include "device/cuda/blas.h"

int64_t fp8_extra(int64_t rank) { return (3 * rank + 15) & ~(int64_t)15; }

/* Rows of whole lines of 128 bytes are read a quarter faster. */
int64_t fp8_pad(int64_t rank) { return (3 * rank + 127) & ~(int64_t)127; }

bool fp8_layout(struct fp8_layout *out, int64_t rows, int64_t columns, int64_t pad) {
    uint64_t codes, transposed, scales = (uint64_t)(rows > columns ? rows : columns);
    return checked_mul((uint64_t)rows, (uint64_t)(columns + pad), &codes) &&
           checked_align(codes, 256, &out->transposed) &&
           checked_mul((uint64_t)columns, (uint64_t)(rows + pad), &transposed) &&
           checked_add(out->transposed, transposed, &transposed) &&
           checked_align(transposed, 256, &out->scales) && checked_mul(scales, 4, &scales) &&
           checked_add(out->scales, scales, &out->bytes);
}

struct fp8_weight fp8_weight_at(void *data, int64_t rows, int64_t columns, int64_t pad) {
    struct fp8_layout layout = {0};
    unsigned char *at = data;
    fp8_layout(&layout, rows, columns, pad); /* it fitted when the store was opened */
    return (struct fp8_weight){.codes = at,
                               .transposed = at + layout.transposed,
                               .scales = (float *)(void *)(at + layout.scales),
                               .stride = columns + pad,
                               .transposed_stride = rows + pad};
}

bool fp8_serves(const struct device *device, struct error *err) {
    if (device->major == 9) return true;
    error_set(err, ERROR_USAGE, "cuda",
              "products in fp8 are for compute capability 9.0 (Hopper), the %s has %d.%d", device->name,
              device->major, device->minor);
    return error_fix(err, "Take --compute bf16.");
}

size_t fp8_rows_bytes(int64_t rows, int64_t width) {
    return cuda_round((size_t)(rows * width)) + cuda_round((size_t)rows * sizeof(float));
}

size_t fp8_workspace(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]];
    int joins = fp8_joins(graph, node);
    size_t joined = joins ? fp8_join_workspace(graph, node, joins) : 0,
           alone = fp8_beside_rows + fp8_rows_bytes(x->dim[0], x->dim[1] + fp8_pad(fp8_most_rank));
    return joined > alone ? joined : alone;
}

/* Whether a later node multiplies a node's output in fp8. */
static bool is_multiplied(const struct graph *graph, const struct node *node, int output) {
    for (const struct node *later = node + 1; later < graph->nodes + graph->node_count; later++)
        if (later->attributes.fp8 && later->input[0] == node->output[output])
            return node->output[output] >= 0;
    return false;
}

size_t fp8_output_workspace(const struct graph *graph, const struct node *node) {
    size_t bytes = 0;
    for (int o = 0; o < node->outputs; o++) {
        if (!is_multiplied(graph, node, o)) continue;
        const struct value *y = &graph->values[node->output[o]];
        bytes += fp8_rows_bytes(y->dim[0], y->dim[1] + fp8_pad(fp8_most_rank));
    }
    return bytes ? fp8_beside_rows + bytes : 0;
}

/* Room for a value's rows, each with that for an adapter's numbers, kept for the nodes that follow. */
static struct fp8_rows room_for(struct call *call, int id, int64_t rows, int64_t width) {
    int64_t stride = width + call->fp8_pad;
    size_t codes = cuda_round((size_t)(rows * stride)), all = fp8_rows_bytes(rows, stride);
    unsigned char *at = call_copy(call, id, DTYPE_U8);
    if (!at) {
        at = call_scratch_above(call, all);
        if (call->graph->values[id].kind == VALUE_TRANSIENT) call_keep(call, id, DTYPE_U8, at, all);
    }
    return (struct fp8_rows){at, stride, (float *)(void *)(at + codes)};
}

struct fp8_rows fp8_output(struct call *call, int output) {
    const struct operand *y = &call->out[output];
    if (!is_multiplied(call->graph, call->node, output)) return (struct fp8_rows){NULL, 0, NULL};
    return room_for(call, call->node->output[output], y->dim[0], y->dim[1]);
}

/* x in fp8: products of one input stand side by side, and often the node that wrote it has left it there. */
static struct fp8_rows convert(struct call *call) {
    const struct operand *in = &call->in[0];
    int id = call->node->input[0];
    bool kept = call_copy(call, id, DTYPE_U8);
    struct fp8_rows out = room_for(call, id, in->dim[0], in->dim[1]);
    if (!kept) cuda_fp8_rows(&out, array_of(in), in->dim[0], in->dim[1], call->stream);
    return out;
}

bool fp8_product(struct call *call, struct product *p, struct thin *thin, struct error *err) {
    void *library = call_scratch(call, blas_workspace);
    const struct operand *w = &call->in[1];
    bool forward = p->w_transposed;
    int64_t pad = call->fp8_pad, extra = thin->low.data ? fp8_extra(thin->rank) : 0;
    if (!p->m) return true;
    if (extra > pad) extra = 0; /* laid into y instead */
    struct fp8_weight weight = fp8_weight_at(w->data, w->dim[0], w->dim[1], pad);
    struct fp8_rows x = convert(call);
    *p = (struct product){.fp8 = true,
                          .x = x.data,
                          .w = forward ? weight.codes : weight.transposed,
                          .x_scales = x.scales,
                          .w_scales = weight.scales,
                          .y = p->y,
                          .m = p->m,
                          .n = p->n,
                          .k = p->k,
                          .ldx = x.stride,
                          .ldw = forward ? weight.stride : weight.transposed_stride,
                          .w_transposed = true,
                          .alpha = call->node->attributes.alpha};
    if (extra) {
        struct fp8_tails tails = {.x = x.data + p->k,
                                  .w = (uint8_t *)(uintptr_t)p->w + p->k,
                                  .x_stride = x.stride,
                                  .w_stride = p->ldw,
                                  .x_scales = x.scales,
                                  .w_scales = weight.scales,
                                  .largest = call_scratch(call, sizeof(unsigned)),
                                  .low = thin->low,
                                  .up = thin->up,
                                  .along = thin->across, /* of a row of the operand w */
                                  .across = thin->along,
                                  .factor = call->node->attributes.beta / p->alpha,
                                  .rows = p->m,
                                  .columns = p->n,
                                  .rank = (int)thin->rank,
                                  .extra = (int)extra};
        cuda_fp8_tails(&tails, call->stream);
        thin->low.data = NULL;
        p->k += extra;
    }
    thin->y = p->y;
    thin->beta = call->node->attributes.beta;
    thin->rows = p->m;
    thin->columns = p->n;
    cuda_lay(call, thin, p);
    return blas_product(call->device->blas, p, library, call->stream, err);
}
