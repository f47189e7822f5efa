/* Linear products, their gradients, and the head. The library multiplies operands of one type: what is stored
 * otherwise is decoded into the workspace first, whole. The product of low rank, bias and addend are laid
 * into y by one launch (thin.cu), and the product of full width is added to that. */
#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"

/* ---- operands in the compute type ---- */

static size_t type_bytes(enum dtype type) { return type == DTYPE_BF16 ? 2 : 4; }

static int64_t planned_elements(const struct value *value) {
    int64_t n = 1;
    for (int i = 0; i < value->rank; i++) n *= value->dim[i];
    return n;
}

/* Room for a decoded copy of input i of a node; 0: it is read where it lies. */
static size_t copy_bytes(const struct graph *graph, const struct node *node, int i, enum dtype compute) {
    const struct value *value = &graph->values[node->input[i]];
    return value->dtype == compute ? 0 : cuda_round((size_t)planned_elements(value) * type_bytes(compute));
}

/* Input i as the product reads it. The last copy of an activation is kept for the nodes that follow:
 * gradients read the same dy two or three times. */
static const void *operand(struct call *call, int i) {
    const struct operand *in = &call->in[i];
    struct converted *last = call->last;
    int id = call->node->input[i];
    if (in->dtype == call->compute) return in->data;
    bool transient = call->graph->values[id].kind == VALUE_TRANSIENT;
    /* Where this node would put it, too: behind the library's room. */
    if (transient && last->value == id && last->type == call->compute && call->used == blas_workspace &&
        last->data == call->workspace + blas_workspace) {
        call->used = (size_t)(last->end - call->workspace);
        return last->data;
    }
    int64_t rows = in->dim[0], width = in->rank > 1 ? in->dim[1] : 1;
    size_t bytes = (size_t)(rows * width) * type_bytes(call->compute);
    struct array copy = {call_scratch(call, bytes), call->compute};
    cuda_decode(copy, array_of(in), rows, width, call->stream);
    if (transient)
        *last =
            (struct converted){id, call->compute, copy.data, (unsigned char *)copy.data + cuda_round(bytes)};
    return copy.data;
}

/* ---- linear ---- */

/* What y holds before the product is added to it: true when it holds something. */
static bool lay(struct call *call, const struct thin *thin) {
    if (!thin->low.data && !thin->bias.data && !thin->addend.data) return false;
    bool there = !thin->low.data && !thin->bias.data && thin->addend.data == thin->y.data &&
                 thin->addend.type == thin->y.type;
    if (!there) cuda_thin(thin, call->stream);
    return true;
}

static size_t two_operands(const struct graph *graph, const struct node *node) {
    enum dtype compute = operand_compute(graph, node);
    return blas_workspace + copy_bytes(graph, node, 0, compute) + copy_bytes(graph, node, 1, compute);
}

static bool linear(struct call *call, struct error *err) {
    const struct operand *x = &call->in[0], *w = &call->in[1], *up = &call->in[5], *y = &call->out[0];
    int64_t in = w->dim[1], out = w->dim[0];
    void *library = call_scratch(call, blas_workspace);
    if (!x->dim[0]) return true;
    struct thin thin = {.y = array_of(y),
                        .low = array_of(&call->in[4]),
                        .up = array_of(up),
                        .bias = array_of(&call->in[2]),
                        .addend = array_of(&call->in[3]),
                        .beta = call->node->attributes.beta,
                        .rows = x->dim[0],
                        .columns = out,
                        .rank = up->dim[1],
                        .along = 1,
                        .across = up->dim[1]};
    struct product product = {.type = call->compute,
                              .x = operand(call, 0),
                              .w = operand(call, 1),
                              .y = array_of(y),
                              .m = x->dim[0],
                              .n = out,
                              .k = in,
                              .ldx = in,
                              .ldw = in,
                              .ldy = out,
                              .w_transposed = true,
                              .alpha = call->node->attributes.alpha};
    product.beta = lay(call, &thin) ? 1 : 0;
    return blas_product(call->device->blas, &product, library, call->stream, err);
}

static bool linear_grad_x(struct call *call, struct error *err) {
    const struct operand *dy = &call->in[0], *w = &call->in[1], *down = &call->in[4], *dx = &call->out[0];
    int64_t in = w->dim[1], out = w->dim[0];
    void *library = call_scratch(call, blas_workspace);
    if (!dy->dim[0]) return true;
    struct thin thin = {.y = array_of(dx),
                        .low = array_of(&call->in[3]),
                        .up = array_of(down),
                        .addend = array_of(&call->in[2]),
                        .beta = call->node->attributes.beta,
                        .rows = dy->dim[0],
                        .columns = in,
                        .rank = down->dim[0],
                        .along = in,
                        .across = 1};
    struct product product = {.type = call->compute,
                              .x = operand(call, 0),
                              .w = operand(call, 1),
                              .y = array_of(dx),
                              .m = dy->dim[0],
                              .n = in,
                              .k = out,
                              .ldx = out,
                              .ldw = in,
                              .ldy = in,
                              .alpha = call->node->attributes.alpha};
    product.beta = lay(call, &thin) ? 1 : 0;
    return blas_product(call->device->blas, &product, library, call->stream, err);
}

static bool linear_grad_w(struct call *call, struct error *err) {
    const struct operand *x = &call->in[0], *dw = &call->in[2];
    void *library = call_scratch(call, blas_workspace);
    if (!x->dim[0]) return true;
    int64_t in = dw->dim[1], out = dw->dim[0];
    const void *left = operand(call, 1), *right = operand(call, 0);
    struct product product = {.type = call->compute,
                              .x = left,
                              .w = right,
                              .y = array_of(dw),
                              .m = out,
                              .n = in,
                              .k = x->dim[0],
                              .ldx = out,
                              .ldw = in,
                              .ldy = in,
                              .x_transposed = true,
                              .alpha = call->node->attributes.alpha,
                              .beta = 1};
    return blas_product(call->device->blas, &product, library, call->stream, err);
}

/* ---- head ---- */

/* Logits of some rows at a time, in at most this many bytes: w is read twice for each piece. */
static const int64_t logit_budget = (int64_t)512 << 20;
enum { least_rows = 128 };

static int64_t logit_stride(int64_t vocabulary) { return (vocabulary + 63) & ~(int64_t)63; }

static int64_t piece_rows(int64_t rows, int64_t vocabulary) {
    int64_t most = logit_budget / (logit_stride(vocabulary) * 4) / least_rows * least_rows;
    if (most < least_rows) most = least_rows;
    return rows < most ? rows : most;
}

static size_t head_workspace(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    return two_operands(graph, node) +
           cuda_round((size_t)(piece_rows(x->dim[0], w->dim[0]) * logit_stride(w->dim[0])) * sizeof(float));
}

struct head {
    struct product logits, dx;
    struct logits rows;
    int64_t size_x, size_dx; /* bytes of a row */
};

static bool head_piece(struct call *call, const struct head *head, int64_t first, int64_t rows, void *library,
                       struct error *err) {
    struct product logits = head->logits, dx = head->dx;
    struct logits piece = head->rows;
    logits.x = (const char *)logits.x + first * head->size_x;
    logits.m = dx.m = piece.rows = rows;
    piece.targets += first;
    if (piece.logp) piece.logp += first;
    if (piece.dlogp) piece.dlogp += first;
    if (!blas_product(call->device->blas, &logits, library, call->stream, err)) return false;
    cuda_logits(&piece, call->stream);
    if (!dx.y.data) return true;
    dx.y.data = (char *)dx.y.data + first * head->size_dx;
    return blas_product(call->device->blas, &dx, library, call->stream, err);
}

static bool head_rows(struct call *call, bool gradient, struct error *err) {
    const struct operand *x = &call->in[0], *w = &call->in[1], *dx = &call->out[1];
    int64_t rows = x->dim[0], width = w->dim[1], vocabulary = w->dim[0], stride = logit_stride(vocabulary);
    void *library = call_scratch(call, blas_workspace);
    if (!rows) return true;
    const void *left = operand(call, 0), *right = operand(call, 1);
    int64_t piece = piece_rows(rows, vocabulary);
    float *room = call_scratch(call, (size_t)(piece * stride) * sizeof *room);
    bool half = call->compute == DTYPE_BF16;
    struct head head = {
        .logits = {.type = call->compute,
                   .x = left,
                   .w = right,
                   .y = {room, DTYPE_F32},
                   .n = vocabulary,
                   .k = width,
                   .ldx = width,
                   .ldw = width,
                   .ldy = stride,
                   .w_transposed = true,
                   .alpha = 1},
        .dx = {.type = call->compute,
               .x = room,
               .w = right,
               .y = gradient ? array_of(dx) : (struct array){NULL, DTYPE_F32},
               .n = width,
               .k = vocabulary,
               .ldx = half ? 2 * stride : stride,
               .ldw = width,
               .ldy = width,
               .alpha = 1},
        .rows = {.logits = room,
                 .vocabulary = vocabulary,
                 .stride = stride,
                 .targets = call->in[2].data,
                 .dlogp = gradient ? call->in[3].data : NULL,
                 .logp = call->out[0].data,
                 .bf16 = half},
        .size_x = width * (int64_t)type_bytes(call->compute),
        .size_dx = gradient ? width * (int64_t)type_bytes(dx->dtype) : 0,
    };
    bool ok = true;
    for (int64_t first = 0; ok && first < rows; first += piece)
        ok = head_piece(call, &head, first, rows - first < piece ? rows - first : piece, library, err);
    return ok;
}

static bool head_forward(struct call *call, struct error *err) { return head_rows(call, false, err); }
static bool head_grad(struct call *call, struct error *err) { return head_rows(call, true, err); }

const struct cuda_kernel cuda_kernels_products[] = {
    {OP_LINEAR, linear, two_operands, NULL},
    {OP_LINEAR_GRAD_X, linear_grad_x, two_operands, NULL},
    {OP_LINEAR_GRAD_W, linear_grad_w, two_operands, NULL},
    {OP_HEAD, head_forward, head_workspace, NULL},
    {OP_HEAD_GRAD, head_grad, head_workspace, NULL},
    {.run = NULL},
};
