/* Products with frozen weights in fp8 (--compute fp8; Micikevicius et al. 2022, FP8 Formats for Deep
 * Learning).
 *
 * A weight W [n, k] lies in the store as e4m3 with one factor for all of it, and a second time transposed,
 * since Hopper's products of 8 bits read both operands along the sum. Activations and gradients are rounded
 * just before, with a factor for each row, the largest of that row: from what is there, so that nothing is
 * carried from step to step. An adapter stays as exact as in bf16: a number is two of e4m3, a = a₁ + a₂, and
 *
 *   y = α [x | l₁ | l₂ | l₁] [w | u₁ | u₁ | u₂]ᵀ          l: low, u: β/α up (forward), down (backward)
 *
 * so that it costs three times its rank more columns and nothing is read to be added to. */
#include "device/cuda/fp8.h"

#include "base/checked.h"
#include "device/cuda/blas.h"

enum { most_extra = 3 * 128 }; /* graph_fold folds no larger rank */

static int64_t extra_of(int64_t rank) { return (3 * rank + 15) & ~(int64_t)15; }

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

static size_t row_bytes(int64_t rows, int64_t width) {
    return cuda_round((size_t)(rows * width)) + cuda_round((size_t)rows * sizeof(float));
}

size_t fp8_workspace(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]];
    return blas_workspace + row_bytes(x->dim[0], x->dim[1] + most_extra) + 256;
}

/* x in fp8, room for the adapter's numbers behind each row. Kept for the nodes that follow: products of one
 * input stand side by side. */
static struct fp8_rows convert(struct call *call, int64_t pad) {
    const struct operand *in = &call->in[0];
    struct converted *last = call->last;
    int id = call->node->input[0];
    int64_t rows = in->dim[0], stride = in->dim[1] + pad;
    size_t codes = cuda_round((size_t)(rows * stride)), all = row_bytes(rows, stride);
    bool kept = last->value == id && last->type == DTYPE_U8 && last->data == call->workspace + call->used;
    unsigned char *at = kept ? last->data : call_scratch(call, all);
    struct fp8_rows out = {at, stride, (float *)(void *)(at + codes)};
    if (kept) {
        call->used += cuda_round(all);
        return out;
    }
    cuda_fp8_rows(&out, array_of(in), rows, in->dim[1], call->stream);
    if (call->graph->values[id].kind == VALUE_TRANSIENT)
        *last = (struct converted){id, DTYPE_U8, at, at + all};
    return out;
}

bool fp8_product(struct call *call, struct product *p, struct thin *thin, struct error *err) {
    void *library = call_scratch(call, blas_workspace);
    const struct operand *w = &call->in[1];
    bool forward = p->w_transposed;
    int64_t pad = call->fp8_pad, extra = thin->low.data ? extra_of(thin->rank) : 0;
    if (!p->m) return true;
    if (extra > pad) extra = 0; /* laid into y instead */
    struct fp8_weight weight = fp8_weight_at(w->data, w->dim[0], w->dim[1], pad);
    struct fp8_rows x = convert(call, pad);
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
                                  .balance = call_scratch(call, sizeof(float)),
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
