/* The head and cross entropy as one operation: logits exist only inside it, a chunk of rows at a time.
 *
 *   logp[m] = l[target] - log Σ_v exp l[v],   l = x wᵀ + β low upᵀ
 *   dl[v]   = dlogp · (1[v = target] - p[v]),  dx = dl w,  dw += dlᵀ x,  dlow = β dl up,  dup += β dlᵀ low
 *
 * The gradient form yields logp too, so a training step computes the logits once: the backward rule
 * puts its logp in place of the forward one, which then nobody reads and the plan drops. */
#include <math.h>

#include "op/op.h"

static void head_shapes(const struct graph *graph, const struct node *node, struct value *out,
                        enum dtype dtype) {
    (void)dtype;
    op_shape_like(&out[0], op_input(graph, node, 0));
    out[0].rank = 1;
    out[0].dtype = DTYPE_F32;
}

static double head_flops(const struct graph *graph, const struct node *node,
                         const int64_t counts[COUNT_KINDS]) {
    const struct value *w = op_input(graph, node, 1);
    return 2.0 * (double)op_count(op_input(graph, node, 0), counts) * (double)w->dim[0] * (double)w->dim[1];
}

static double head_grad_flops(const struct graph *graph, const struct node *node,
                              const int64_t counts[COUNT_KINDS]) {
    /* The adapter's part, of low rank, is left out. */
    return (op_input(graph, node, 4) ? 3 : 2) * head_flops(graph, node, counts);
}

static void head_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    if (!b->needed[0] && !b->needed[1] && !b->needed[3] && !b->needed[4]) return;
    int inputs[8] = {node.input[0],
                     node.input[1],
                     node.input[2],
                     b->output_gradient[0],
                     b->needed[1] ? b->state_gradient(b->user, node.input[1]) : -1,
                     node.input[3],
                     node.input[4],
                     b->needed[4] ? b->state_gradient(b->user, node.input[4]) : -1};
    int grad = graph_emit(graph, OP_HEAD_GRAD, inputs, &node.attributes, DTYPE_F32, "dhead");
    b->replace(b->user, node.output[0], graph_output(graph, grad, 0));
    backward_give(b, 0, graph_output(graph, grad, 1));
    if (node.input[3] >= 0) backward_give(b, 3, graph_output(graph, grad, 2));
}

/* The two pairs of factors that logits are made of; the second may be absent. */
struct factors {
    const double *x, *w, *low, *up;
    int64_t width, rank;
    double beta;
};

static struct factors factors_of(const struct reference_call *call, int64_t m, int low) {
    int64_t width = call->in[0].dim[1], rank = call->in[low].data ? call->in[low].dim[1] : 0;
    return (struct factors){.x = call->in[0].data + m * width,
                            .w = call->in[1].data,
                            .low = rank ? call->in[low].data + m * rank : NULL,
                            .up = call->in[low + 1].data,
                            .width = width,
                            .rank = rank,
                            .beta = (double)call->attributes->beta};
}

static double logit(const struct factors *f, int64_t v) {
    double l = 0, small = 0;
    for (int64_t i = 0; i < f->width; i++) l += f->x[i] * f->w[v * f->width + i];
    for (int64_t r = 0; r < f->rank; r++) small += f->low[r] * f->up[v * f->rank + r];
    return l + f->beta * small;
}

static double row_logits(const struct factors *f, int64_t vocabulary, double *most) {
    double sum = 0;
    *most = -INFINITY;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t v = 0; v < vocabulary; v++) {
            double l = logit(f, v);
            if (pass)
                sum += exp(l - *most);
            else
                *most = fmax(*most, l);
        }
    return *most + log(sum);
}

/* dx and dlow of a row, dw and dup of all. */
static void add_gradients(const struct reference_call *call, const struct factors *f, int64_t m, int64_t v,
                          double dl) {
    double *dx = call->out[1].data ? call->out[1].data + m * f->width : NULL,
           *dlow = f->rank && call->out[2].data ? call->out[2].data + m * f->rank : NULL,
           *dw = call->in[4].data, *dup = f->rank ? call->in[7].data : NULL;
    for (int64_t i = 0; dx && i < f->width; i++) dx[i] += dl * f->w[v * f->width + i];
    for (int64_t i = 0; dw && i < f->width; i++) dw[v * f->width + i] += dl * f->x[i];
    for (int64_t r = 0; dlow && r < f->rank; r++) dlow[r] += f->beta * dl * f->up[v * f->rank + r];
    for (int64_t r = 0; dup && r < f->rank; r++) dup[v * f->rank + r] += f->beta * dl * f->low[r];
}

static void head_rows(const struct reference_call *call, bool gradient) {
    int64_t rows = call->in[0].dim[0], vocabulary = call->in[1].dim[0];
    for (int64_t m = 0; m < rows; m++) {
        const struct factors f = factors_of(call, m, gradient ? 5 : 3);
        int64_t target = (int64_t)call->in[2].data[m];
        double most, lse = row_logits(&f, vocabulary, &most);
        for (int64_t i = 0; gradient && call->out[1].data && i < f.width; i++)
            call->out[1].data[m * f.width + i] = 0;
        for (int64_t r = 0; gradient && call->out[2].data && r < f.rank; r++)
            call->out[2].data[m * f.rank + r] = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            double l = logit(&f, v);
            if (v == target && call->out[0].data) call->out[0].data[m] = l - lse;
            if (gradient) add_gradients(call, &f, m, v, call->in[3].data[m] * ((v == target) - exp(l - lse)));
        }
    }
}

static void head_reference(const struct reference_call *call) { head_rows(call, false); }
static void head_grad_reference(const struct reference_call *call) { head_rows(call, true); }

const struct op_row op_head_row = {
    .name = "head",
    .inputs = 5,
    .outputs = 1,
    .optional_inputs = 3u << 3,
    .overwrite = {-1, -1, -1, -1},
    .shapes = head_shapes,
    .backward = head_backward,
    .flops = head_flops,
    .reference = head_reference,
};

static void head_grad_shapes(const struct graph *graph, const struct node *node, struct value *out,
                             enum dtype dtype) {
    head_shapes(graph, node, out, dtype);
    const struct value *low = op_input(graph, node, 5);
    op_shape_like(&out[1], op_input(graph, node, 0));
    op_shape_like(&out[2], op_input(graph, node, 0));
    out[2].dim[1] = low ? low->dim[1] : 0;
    out[2].dtype = DTYPE_F32;
}

const struct op_row op_head_grad_row = {
    .name = "head_grad",
    .inputs = 8,
    .outputs = 3,
    .optional_inputs = 0xfu << 4,
    .state_writes = 1u << 4 | 1u << 7,
    .overwrite = {-1, -1, -1, -1},
    .shapes = head_grad_shapes,
    .flops = head_grad_flops,
    .reference = head_grad_reference,
};

/* loss += Σ weights · logp, in f64 and in order. */
static void loss_reference(const struct reference_call *call) {
    for (int64_t m = 0; m < call->in[0].dim[0]; m++)
        call->in[2].data[0] += call->in[0].data[m] * call->in[1].data[m];
}

static void loss_backward(struct backward *b) {
    struct graph *graph = b->graph;
    const struct node node = graph->nodes[b->node];
    int inputs[2] = {node.input[1], node.input[3]}, gradient = node.input[1];
    if (node.input[3] >= 0)
        gradient = graph_output(graph, graph_emit(graph, OP_SCALE, inputs, NULL, DTYPE_F32, "scaled"), 0);
    backward_give(b, 0, gradient);
}

const struct op_row op_loss_row = {
    .name = "loss",
    .inputs = 4,
    .outputs = 0,
    .optional_inputs = 1u << 3,
    .state_writes = 1u << 2,
    .overwrite = {-1, -1, -1, -1},
    .backward = loss_backward,
    .reference = loss_reference,
};
