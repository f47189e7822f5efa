/* DoRA's operations and the scaling of the loss put onto the launches of kernels.h. */
#include "device/cuda/cuda.h"

static struct rescale rescale_of(const struct call *call, int z, int lengths) {
    return (struct rescale){.y = array_of(&call->out[0]),
                            .z = array_of(&call->in[z]),
                            .m = call->in[lengths].data,
                            .n = call->in[lengths + 1].data,
                            .rows = call->in[0].dim[0],
                            .width = call->in[0].dim[1]};
}

static bool rescale(struct call *call, struct error *err) {
    struct rescale r = rescale_of(call, 0, 1);
    (void)err;
    r.bias = array_of(&call->in[3]);
    r.addend = array_of(&call->in[4]);
    cuda_rescale(&r, call->stream);
    return true;
}

static size_t band_bytes(int64_t rows, int64_t width) {
    return cuda_round((size_t)(cuda_rescale_bands(rows) * width) * sizeof(float));
}

static size_t rescale_workspace(const struct graph *graph, const struct node *node) {
    const struct value *dy = &graph->values[node->input[0]];
    return band_bytes(dy->dim[0], dy->dim[1]);
}

static bool rescale_grad(struct call *call, struct error *err) {
    struct rescale r = rescale_of(call, 1, 2);
    (void)err;
    r.dy = array_of(&call->in[0]);
    cuda_rescale_grad(&r, call->in[4].data, call_scratch(call, band_bytes(r.rows, r.width)), call->stream);
    return true;
}

static bool row_norms(struct call *call, struct error *err) {
    const struct operand *w = &call->in[0];
    struct matrix matrix = matrix_of(w);
    (void)err;
    cuda_row_norms(call->in[3].data, &matrix, call->in[1].data, call->in[2].data,
                   call->node->attributes.alpha, w->dim[0], w->dim[1], call->in[1].dim[0], call->stream);
    return true;
}

static bool scale(struct call *call, struct error *err) {
    (void)err;
    cuda_scale(call->out[0].data, call->in[0].data, call->in[1].data, false, operand_elements(&call->in[0]),
               call->stream);
    return true;
}

static bool unscale(struct call *call, struct error *err) {
    (void)err;
    cuda_scale(call->in[0].data, call->in[0].data, call->in[1].data, true, operand_elements(&call->in[0]),
               call->stream);
    return true;
}

static bool scale_update(struct call *call, struct error *err) {
    (void)err;
    cuda_scale_update(call->in[1].data, call->in[0].data, call->stream);
    return true;
}

const struct cuda_kernel cuda_kernels_dora[] = {
    {OP_RESCALE, rescale, NULL, NULL},
    {OP_RESCALE_GRAD, rescale_grad, rescale_workspace, NULL},
    {OP_ROW_NORMS, row_norms, NULL, NULL},
    {OP_SCALE, scale, NULL, NULL},
    {OP_UNSCALE, unscale, NULL, NULL},
    {OP_SCALE_UPDATE, scale_update, NULL, NULL},
    {.run = NULL},
};
