/* The head on Hopper where w is frozen and has no adapter: some rows at a time, without their logits in
 * memory (head_wgmma.cu). */
#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"

enum { pair_rows = 256, least_vocabulary = 2048 }; /* rows that go together; at least so many columns */

/* What stands for logits is bf16. */
static int64_t piece_rows(int64_t rows, int64_t vocabulary) {
    return cuda_head_rows(rows, vocabulary, 2, pair_rows);
}

/* Whether a node is computed so where the GPU can. */
static bool is_wide(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    bool grad = node->op == OP_HEAD_GRAD, trains = grad && node->input[4] >= 0;
    return operand_compute(graph, node) == DTYPE_BF16 && !trains && node->input[grad ? 5 : 3] < 0 &&
           x->dim[0] >= pair_rows / 2 && w->dim[0] >= least_vocabulary && w->dim[1] % 8 == 0;
}

size_t cuda_wide_head_workspace(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    int64_t rows = piece_rows(x->dim[0], w->dim[0]);
    if (!is_wide(graph, node)) return 0;
    size_t scratch = cuda_round(cuda_wide_head_scratch(rows, w->dim[0]));
    if (node->op == OP_HEAD) return scratch;
    return scratch + cuda_round((size_t)(rows * cuda_head_stride(w->dim[0])) * 2) +
           cuda_round((size_t)(rows * w->dim[1]) * sizeof(float));
}

bool cuda_wide_head_serves(const struct call *call) {
    return call->in[0].dim[0] >= pair_rows / 2 && is_wide(call->graph, call->node) &&
           cuda_is_hopper(call->device->major, call->device->minor);
}

static bool run_piece(struct call *call, const struct wide_head *head, struct array dx, float *y,
                      void *library, struct error *err) {
    struct product product = {.type = DTYPE_BF16,
                              .x = head->e.data,
                              .w = head->w.data,
                              .y = {y, DTYPE_F32, head->width},
                              .m = head->rows,
                              .n = head->width,
                              .k = head->vocabulary,
                              .ldx = head->e.stride,
                              .ldw = head->w.stride,
                              .alpha = 1};
    if (!cuda_wide_head(head, call->stream))
        return error_set(err, ERROR_FAILED, "cuda", "the driver does not describe the head's operands");
    if (!head->dlogp) return true;
    if (!blas_product(call->device->blas, &product, library, call->stream, err)) return false;
    cuda_wide_head_dx(head, dx, y, call->stream);
    return true;
}

/* What an array holds from row `first` on. */
static struct array rows_from(struct array array, int64_t first) {
    if (array.data)
        array.data = (char *)array.data + first * array.stride * (array.type == DTYPE_F32 ? 4 : 2);
    return array;
}

bool cuda_wide_head_run(struct call *call, struct error *err) {
    bool gradient = call->node->op == OP_HEAD_GRAD;
    const struct operand *w = &call->in[1];
    int64_t rows = call->in[0].dim[0], piece = piece_rows(rows, w->dim[0]);
    void *library = call_scratch(call, blas_workspace);
    struct array x = cuda_operand(call, 0),
                 dx = gradient ? array_of(&call->out[1]) : (struct array){NULL, DTYPE_F32, 0};
    struct wide_head head = {.x = x,
                             .w = cuda_operand(call, 1),
                             .width = w->dim[1],
                             .vocabulary = w->dim[0],
                             .processors = call->device->processors};
    float *y = NULL;
    bool ok = true;
    head.scratch = call_scratch(call, cuda_wide_head_scratch(piece, head.vocabulary));
    if (dx.data) {
        int64_t stride = cuda_head_stride(head.vocabulary);
        head.e = (struct array){call_scratch(call, (size_t)(piece * stride) * 2), DTYPE_BF16, stride};
        y = call_scratch(call, (size_t)(piece * head.width) * sizeof *y);
    }
    for (int64_t first = 0; ok && first < rows; first += piece) {
        head.rows = rows - first < piece ? rows - first : piece;
        head.x = rows_from(x, first);
        head.targets = (const int32_t *)call->in[2].data + first;
        head.logp = call->out[0].data ? (float *)call->out[0].data + first : NULL;
        head.dlogp = dx.data ? (const float *)call->in[3].data + first : NULL;
        ok = run_piece(call, &head, rows_from(dx, first), y, library, err);
    }
    return ok;
}
