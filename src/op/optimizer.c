/* The optimizer as operations over contiguous blocks: norm of all gradients, then one update.
 *
 * AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim.AdamW computes it, after
 * torch.nn.utils.clip_grad_norm_:
 *   g  = gradient · min(1, most / (norm + 1e-6))           when most > 0
 *   p  = p (1 - lr · decay);  m = β1 m + (1-β1) g;  v = β2 v + (1-β2) g²
 *   p -= lr / (1-β1ᵗ) · m / (√v / √(1-β2ᵗ) + ε)
 * A norm that is not finite changes nothing, the step counter included. */
#include <math.h>

#include "op/op.h"

static int64_t elements(const struct reference_operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->dim[i];
    return n;
}

static void norm_shapes(const struct graph *graph, const struct node *node, struct value *out,
                        enum dtype dtype) {
    (void)graph, (void)node, (void)dtype;
    out[0].count = COUNT_FIXED;
    out[0].rank = 1;
    out[0].dim[0] = 1;
    out[0].dtype = DTYPE_F32;
}

static void norm_reference(const struct reference_call *call) {
    double squares = 0;
    for (int64_t i = 0; i < elements(&call->in[0]); i++) squares += call->in[0].data[i] * call->in[0].data[i];
    call->out[0].data[0] = sqrt(squares);
}

const struct op_row op_gradient_norm_row = {
    .name = "gradient_norm",
    .inputs = 1,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = norm_shapes,
    .reference = norm_reference,
};

static void adamw_reference(const struct reference_call *call) {
    double norm = call->in[0].data[0];
    const double *hyper = call->in[1].data;
    double *p = call->in[2].data, *g = call->in[3].data, *m = call->in[4].data, *v = call->in[5].data;
    double rate = hyper[0], beta1 = hyper[1], beta2 = hyper[2], epsilon = hyper[3], decay = hyper[4],
           most = hyper[5];
    if (!isfinite(norm)) return;
    double step = call->in[6].data[0] += 1;
    double clip = most > 0 ? fmin(1, most / (norm + 1e-6)) : 1;
    double correction1 = 1 - pow(beta1, step), correction2 = sqrt(1 - pow(beta2, step));
    for (int64_t i = 0; i < elements(&call->in[2]); i++) {
        double gradient = g[i] * clip;
        p[i] *= 1 - rate * decay;
        m[i] = beta1 * m[i] + (1 - beta1) * gradient;
        v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
        p[i] -= rate / correction1 * m[i] / (sqrt(v[i]) / correction2 + epsilon);
    }
}

const struct op_row op_adamw_row = {
    .name = "adamw",
    .inputs = 7,
    .outputs = 0,
    .state_writes = 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6,
    .overwrite = {-1, -1, -1, -1},
    .reference = adamw_reference,
};

static void zero_reference(const struct reference_call *call) {
    for (int64_t i = 0; i < elements(&call->in[0]); i++) call->in[0].data[i] = 0;
}

const struct op_row op_zero_row = {
    .name = "zero",
    .inputs = 1,
    .outputs = 0,
    .state_writes = 1u,
    .overwrite = {-1, -1, -1, -1},
    .reference = zero_reference,
};
