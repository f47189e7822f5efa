/* Operations on rows and elements: operands of a node put onto the launches of kernels.h. */
#include "device/cuda/blas.h"
#include "device/cuda/fp8.h"
#include "device/cuda/passes.h"

static int64_t width_of(const struct operand *operand) { return operand->rank > 1 ? operand->dim[1] : 1; }

static bool take_rows(struct call *call, struct error *err) { /* embedding and gather */
    struct matrix from = matrix_of(&call->in[0]);
    (void)err;
    cuda_take_rows(array_of(&call->out[0]), &from, call->in[1].data, call->in[1].dim[0],
                   width_of(&call->in[0]), call->stream);
    return true;
}

static bool scatter(struct call *call, struct error *err) {
    (void)err;
    cuda_scatter(array_of(&call->out[0]), array_of(&call->in[0]), call->in[1].data, call->in[1].dim[0],
                 call->out[0].dim[0], width_of(&call->out[0]), call->stream);
    return true;
}

static bool norm(struct call *call, struct error *err) {
    (void)err;
    struct fp8_rows codes = fp8_output(call, 0);
    cuda_norm(array_of(&call->out[0]), &codes, call->out[1].data, array_of(&call->in[0]),
              array_of(&call->in[1]), call->node->attributes.epsilon, call->in[0].dim[0],
              width_of(&call->in[0]), call->stream);
    return true;
}

/* The next node multiplies with the gradient, in bf16: a copy of it is left for that one. */
static bool wants_copy(const struct graph *graph, const struct node *node) {
    int dx = node->output[0];
    const struct node *next = node + 1;
    return next < graph->nodes + graph->node_count && next->op == OP_LINEAR_GRAD_X && next->input[0] == dx &&
           !next->attributes.fp8 && graph->values[dx].dtype == DTYPE_F32 &&
           operand_compute(graph, node) == DTYPE_BF16 && operand_compute(graph, next) == DTYPE_BF16;
}

static size_t norm_grad_workspace(const struct graph *graph, const struct node *node) {
    size_t codes = fp8_output_workspace(graph, node); /* at the end, the copy at the beginning */
    if (!wants_copy(graph, node)) return codes;
    return codes + blas_workspace + cuda_copy_bytes(&graph->values[node->output[0]], DTYPE_BF16);
}

static bool norm_grad(struct call *call, struct error *err) {
    struct array copy = {NULL, DTYPE_BF16, 0};
    (void)err;
    struct fp8_rows codes = fp8_output(call, 0);
    if (wants_copy(call->graph, call->node)) {
        call_scratch(call, blas_workspace);
        cuda_copy_place(call, call->node->output[0], &call->out[0], &copy);
    }
    cuda_norm_grad(array_of(&call->out[0]), &codes, copy, array_of(&call->in[0]), array_of(&call->in[1]),
                   array_of(&call->in[2]), call->in[3].data, array_of(&call->in[4]), call->in[1].dim[0],
                   width_of(&call->in[1]), call->stream);
    return true;
}

static bool norm_grad_w(struct call *call, struct error *err) {
    (void)err;
    cuda_column_sums(call->in[3].data, array_of(&call->in[0]), array_of(&call->in[1]), call->in[2].data,
                     call->in[0].dim[0], width_of(&call->in[0]), call->stream);
    return true;
}

static bool bias_grad(struct call *call, struct error *err) {
    (void)err;
    cuda_column_sums(call->in[1].data, array_of(&call->in[0]), (struct array){NULL, DTYPE_F32, 0}, NULL,
                     call->in[0].dim[0], width_of(&call->in[0]), call->stream);
    return true;
}

static bool embedding_grad(struct call *call, struct error *err) {
    (void)err;
    cuda_embedding_grad(array_of(&call->in[2]), array_of(&call->in[0]), call->in[1].data, call->in[0].dim[0],
                        width_of(&call->in[0]), call->stream);
    return true;
}

static bool rope_table(struct call *call, struct error *err) {
    (void)err;
    cuda_rope_table(call->out[0].data, call->in[0].data, call->in[1].data, call->in[0].dim[0],
                    call->in[1].dim[0], call->stream);
    return true;
}

static bool rope(struct call *call, struct error *err) {
    (void)err;
    int64_t head_dim = call->in[1].dim[1];
    cuda_rope(array_of(&call->out[0]), array_of(&call->in[0]), call->in[1].data,
              call->node->attributes.inverse, call->in[0].dim[0], width_of(&call->in[0]) / head_dim, head_dim,
              call->stream);
    return true;
}

static size_t glu_workspace(const struct graph *graph, const struct node *node) {
    size_t pass = passes_workspace(graph, node), codes = fp8_output_workspace(graph, node);
    return pass > codes ? pass : codes; /* who leads a pass leaves no codes */
}

static bool glu(struct call *call, struct error *err) {
    (void)err;
    struct fp8_rows codes = fp8_output(call, 0);
    cuda_glu(array_of(&call->out[0]), &codes, array_of(&call->in[0]), array_of(&call->in[1]),
             call->in[0].dim[0], width_of(&call->in[0]), call->stream);
    return true;
}

static bool glu_grad(struct call *call, struct error *err) {
    (void)err;
    struct fp8_rows codes[2] = {fp8_output(call, 0), fp8_output(call, 1)};
    cuda_glu_grad(array_of(&call->out[0]), array_of(&call->out[1]), codes, array_of(&call->in[0]),
                  array_of(&call->in[1]), array_of(&call->in[2]), call->in[0].dim[0], width_of(&call->in[0]),
                  call->stream);
    return true;
}

static bool add(struct call *call, struct error *err) {
    (void)err;
    cuda_add(array_of(&call->out[0]), array_of(&call->in[0]), array_of(&call->in[1]), call->in[0].dim[0],
             width_of(&call->in[0]), call->stream);
    return true;
}

static bool draw(struct call *call, bool noise) {
    const struct attributes *a = &call->node->attributes;
    struct drawing drawing = {.y = array_of(&call->out[0]),
                              .x = array_of(&call->in[0]),
                              .positions = call->in[1].data,
                              .examples = call->in[2].data,
                              .random = call->in[3].data,
                              .start = noise ? call->ranges.start : NULL,
                              .end = noise ? call->ranges.end : NULL,
                              .probability = noise ? 0 : (double)a->probability,
                              .alpha = (double)a->scale,
                              .inverse = a->inverse,
                              .module = a->module,
                              .rows = call->in[0].dim[0],
                              .width = width_of(&call->in[0])};
    cuda_draw(&drawing, call->stream);
    return true;
}

static bool dropout(struct call *call, struct error *err) {
    (void)err;
    return draw(call, false);
}

static bool noise(struct call *call, struct error *err) {
    (void)err;
    return draw(call, true);
}

static bool copy(struct call *call, struct error *err) {
    (void)err;
    cuda_copy(array_of(&call->out[0]), array_of(&call->in[0]), call->in[0].dim[0], width_of(&call->in[0]),
              call->stream);
    return true;
}

static bool loss(struct call *call, struct error *err) {
    (void)err;
    cuda_loss(call->in[2].data, call->in[0].data, call->in[1].data, call->in[0].dim[0], call->stream);
    return true;
}

static bool zero(struct call *call, struct error *err) {
    uint64_t bytes;
    return dtype_bytes(call->in[0].dtype, (uint64_t)operand_elements(&call->in[0]), &bytes) &&
           cuda_check(cudaMemsetAsync(call->in[0].data, 0, (size_t)bytes, call->stream), "clear memory", err);
}

static bool likeliest(struct call *call, struct error *err) {
    (void)err;
    cuda_likeliest(call->out[0].data, array_of(&call->in[0]), call->in[0].dim[0], width_of(&call->in[0]),
                   cuda_is_hopper(call->device->major, call->device->minor), call->stream);
    return true;
}

const struct cuda_kernel cuda_kernels_rows[] = {
    {OP_EMBEDDING, take_rows, NULL, NULL},
    {OP_GATHER, take_rows, NULL, NULL},
    {OP_SCATTER, scatter, NULL, NULL},
    {OP_LIKELIEST, likeliest, NULL, NULL},
    {OP_NORM, norm, fp8_output_workspace, NULL},
    {OP_NORM_GRAD, norm_grad, norm_grad_workspace, NULL},
    {OP_NORM_GRAD_W, norm_grad_w, NULL, NULL},
    {OP_BIAS_GRAD, bias_grad, NULL, NULL},
    {OP_EMBEDDING_GRAD, embedding_grad, NULL, NULL},
    {OP_ROPE_TABLE, rope_table, NULL, NULL},
    {OP_ROPE, rope, NULL, NULL},
    {OP_GLU, glu, glu_workspace, NULL},
    {OP_GLU_GRAD, glu_grad, glu_workspace, NULL},
    {OP_ADD, add, NULL, NULL},
    {OP_COPY, copy, NULL, NULL},
    {OP_DROPOUT, dropout, NULL, NULL},
    {OP_NOISE, noise, NULL, NULL},
    {OP_LOSS, loss, NULL, NULL},
    {OP_ZERO, zero, NULL, NULL},
    {.run = NULL},
};
