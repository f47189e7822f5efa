/* The optimizer as operations over contiguous blocks: norm of all gradients, then one update. Here are the
 * updates that treat each number alone; the gradient is clipped as by torch.nn.utils.clip_grad_norm_:
 *   g = gradient · min(1, most / (norm + 1e-6))           when most > 0
 *
 * AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim.AdamW:
 *   p  = p (1 - lr · decay);  m = β1 m + (1-β1) g;  v = β2 v + (1-β2) g²
 *   p -= lr / (1-β1ᵗ) · m / (√v / √(1-β2ᵗ) + ε)
 * SGD as torch.optim.SGD, whose weight decay is part of the gradient:
 *   g += decay · p;  b = g in the first step, then b = μ b + (1 - dampening) g
 *   p -= lr · (b, or g + μ b with Nesterov's momentum, or g without momentum)
 * Lion (Chen et al. 2023, algorithm 2):
 *   p  = p (1 - lr · decay);  p -= lr · sign(β1 m + (1-β1) g);  m = β2 m + (1-β2) g
 *
 * Moving average of the parameters as torch.optim.swa_utils' AveragedModel with get_ema_multi_avg_fn, moved
 * after each update: a = p after the first one, then a += (1 - d) (p - a).
 *
 * A norm that is not finite changes nothing, the step counter included; so does a loss, which makes the norm
 * so. */
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
    bool lost = call->in[1].data && !isfinite(call->in[1].data[0]);
    call->out[0].data[0] = lost ? NAN : sqrt(squares);
}

const struct op_row op_gradient_norm_row = {
    .name = "gradient_norm",
    .inputs = 2,
    .outputs = 1,
    .overwrite = {-1, -1, -1, -1},
    .shapes = norm_shapes,
    .reference = norm_reference,
};

bool update_reference_begin(const struct reference_call *call, double *step) {
    if (!isfinite(call->in[0].data[0])) return false;
    *step = call->in[2].data[0] += 1;
    return true;
}

double update_reference_clip(const struct reference_call *call, const double *hyper) {
    return hyper[HYPER_MAX_NORM] > 0 ? fmin(1, hyper[HYPER_MAX_NORM] / (call->in[0].data[0] + 1e-6)) : 1;
}

/* One number of a part: its state and the step's numbers. m and v may be NULL. */
typedef void (*update_number)(double *p, double g, double *m, double *v, const double *hyper, double step);

static void update_each(const struct reference_call *call, update_number update) {
    const struct op_parts *parts = call->attributes->parts;
    double step;
    if (!update_reference_begin(call, &step)) return;
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        const double *hyper = call->in[1].data + part->group * HYPER_COLUMNS;
        double factor = update_reference_clip(call, hyper);
        for (int64_t at = part->offset; at < part->offset + op_part_elements(part); at++)
            update(call->in[3].data + at, call->in[4].data[at] * factor,
                   call->in[5].data ? call->in[5].data + at : NULL,
                   call->in[6].data ? call->in[6].data + at : NULL, hyper, step);
    }
}

void adamw_reference_number(double *p, double g, double *m, double *v, const double *hyper, double step) {
    double beta1 = hyper[HYPER_BETA1], beta2 = hyper[HYPER_BETA2], rate = hyper[HYPER_RATE];
    *p *= 1 - rate * hyper[HYPER_DECAY];
    *m = beta1 * *m + (1 - beta1) * g;
    *v = beta2 * *v + (1 - beta2) * g * g;
    *p -= rate / (1 - pow(beta1, step)) * *m / (sqrt(*v) / sqrt(1 - pow(beta2, step)) + hyper[HYPER_EPSILON]);
}

static void sgd_number(double *p, double g, double *m, double *v, const double *hyper, double step) {
    (void)v;
    g += hyper[HYPER_DECAY] * *p;
    double change = g, momentum = hyper[HYPER_MOMENTUM];
    if (m) {
        *m = step > 1 ? momentum * *m + (1 - hyper[HYPER_DAMPENING]) * g : g;
        change = hyper[HYPER_NESTEROV] > 0 ? g + momentum * *m : *m;
    }
    *p -= hyper[HYPER_RATE] * change;
}

static void lion_number(double *p, double g, double *m, double *v, const double *hyper, double step) {
    (void)v, (void)step;
    double beta1 = hyper[HYPER_BETA1], beta2 = hyper[HYPER_BETA2], mixed = beta1 * *m + (1 - beta1) * g;
    *p *= 1 - hyper[HYPER_RATE] * hyper[HYPER_DECAY];
    *p -= hyper[HYPER_RATE] * ((mixed > 0) - (mixed < 0));
    *m = beta2 * *m + (1 - beta2) * g;
}

static void adamw_reference(const struct reference_call *call) { update_each(call, adamw_reference_number); }
static void sgd_reference(const struct reference_call *call) { update_each(call, sgd_number); }
static void lion_reference(const struct reference_call *call) { update_each(call, lion_number); }

const struct op_row op_adamw_row = {
    .name = "adamw",
    .inputs = 7,
    .outputs = 0,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6,
    .overwrite = {-1, -1, -1, -1},
    .reference = adamw_reference,
};

const struct op_row op_sgd_row = {
    .name = "sgd",
    .inputs = 6,
    .outputs = 0,
    .optional_inputs = 1u << 5,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5,
    .overwrite = {-1, -1, -1, -1},
    .reference = sgd_reference,
};

const struct op_row op_lion_row = {
    .name = "lion",
    .inputs = 6,
    .outputs = 0,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5,
    .overwrite = {-1, -1, -1, -1},
    .reference = lion_reference,
};

static void average_reference(const struct reference_call *call) {
    if (!isfinite(call->in[0].data[0])) return;
    double keep = call->in[2].data[0] > 1 ? call->in[1].data[HYPER_AVERAGE] : 0;
    for (int64_t i = 0; i < elements(&call->in[3]); i++)
        call->in[4].data[i] += (1 - keep) * (call->in[3].data[i] - call->in[4].data[i]);
}

const struct op_row op_average_row = {
    .name = "average",
    .inputs = 5,
    .outputs = 0,
    .state_writes = 1u << 4,
    .overwrite = {-1, -1, -1, -1},
    .reference = average_reference,
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
