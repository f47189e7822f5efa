/* Loss scaling as operations (scaling.h). */
#include <math.h>

#include "op/op.h"

static int64_t elements(const struct reference_operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->dim[i];
    return n;
}

static void scale_shapes(const struct graph *graph, const struct node *node, struct value *out,
                         enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
    out[0].dtype = DTYPE_F32;
}

static void scale_reference(const struct reference_call *call) {
    for (int64_t i = 0; i < elements(&call->in[0]); i++)
        call->out[0].data[i] = call->in[0].data[i] * call->in[1].data[SCALING_FACTOR];
}

const struct op_row op_scale_row = {
    .name = "scale",
    .inputs = 2,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = scale_shapes,
    .reference = scale_reference,
};

static void unscale_reference(const struct reference_call *call) {
    for (int64_t i = 0; i < elements(&call->in[0]); i++)
        call->in[0].data[i] /= call->in[1].data[SCALING_FACTOR];
}

const struct op_row op_unscale_row = {
    .name = "unscale",
    .inputs = 2,
    .outputs = 0,
    .state_writes = 1u,
    .overwrite = {-1, -1, -1, -1},
    .reference = unscale_reference,
};

/* A norm that is not finite halves the scale; enough finite ones in a row double it. */
static void scale_update_reference(const struct reference_call *call) {
    double *scale = &call->in[1].data[SCALING_FACTOR], *good = &call->in[1].data[SCALING_GOOD];
    if (!isfinite(call->in[0].data[0])) {
        *scale = fmax(*scale / 2, SCALING_LEAST);
        *good = 0;
    } else if (++*good >= SCALING_INTERVAL) {
        *scale = fmin(*scale * 2, SCALING_MOST);
        *good = 0;
    }
}

const struct op_row op_scale_update_row = {
    .name = "scale_update",
    .inputs = 2,
    .outputs = 0,
    .state_writes = 1u << 1,
    .overwrite = {-1, -1, -1, -1},
    .reference = scale_update_reference,
};
