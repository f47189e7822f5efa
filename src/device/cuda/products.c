/* Linear products, their gradients, and the head. The library multiplies operands of one type: what is stored
 * otherwise is decoded into the workspace first, whole.
 *
 * A product with an adapter, y = α x wᵀ + β low upᵀ, is one of the library's where it can be: with bf16, the
 * rows of x and w end in room for a few more numbers, and
 *
 *   y = α [x | low] [w | β/α up]ᵀ          dx = α [dy | low] [w ; β/α down]
 *
 * where low, up and down are copied there just before (they are small). So the result is written once, and
 * nothing is read to be added to. Otherwise the product of low rank, with bias and addend, is laid into y by
 * a launch of its own (thin.cu), and the product of full width is added to that. */
#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"
#include "device/cuda/fp8.h"
#include "device/cuda/passes.h"

/* ---- operands in the compute type ---- */

enum { most_pad = 128 }; /* a copy has at most so many more rows and columns */

static size_t type_bytes(enum dtype type) { return type == DTYPE_F32 ? 4 : 2; }

/* The input that a product of low rank is made of, with the one behind it; -1: the operation has none. */
static int low_input(enum op_code op) {
    switch (op) {
    case OP_LINEAR: return 4;
    case OP_LINEAR_GRAD_X:
    case OP_HEAD: return 3;
    case OP_HEAD_GRAD: return 5;
    default: return -1;
    }
}

int64_t cuda_node_rank(const struct graph *graph, const struct node *node) {
    int low = low_input(node->op);
    if (low < 0 || node->input[low] < 0 || node->attributes.fp8 || operand_compute(graph, node) != DTYPE_BF16)
        return 0;
    int64_t rank = (graph->values[node->input[low]].dim[1] + 7) & ~(int64_t)7;
    return rank <= most_pad ? rank : 0;
}

/* A product reads its operands several times: not over the bus. */
static bool is_read_in_place(const struct value *value, enum dtype compute) {
    return value->dtype == compute && !value->offloaded;
}

size_t cuda_copy_bytes(const struct value *value, enum dtype compute) {
    size_t rows = (size_t)value->dim[0] + most_pad,
           width = (size_t)(value->rank > 1 ? value->dim[1] : 1) + most_pad;
    return is_read_in_place(value, compute) ? 0 : cuda_round(rows * width * type_bytes(compute));
}

/* Copies are call->pad wider and longer than the value. The last one of an activation is kept for the nodes
 * that follow: gradients read the same dy two or three times. */
bool cuda_copy_place(struct call *call, int id, const struct operand *in, struct array *copy) {
    bool transient = call->graph->values[id].kind == VALUE_TRANSIENT;
    *copy = (struct array){NULL, call->compute, (in->rank > 1 ? in->dim[1] : 1) + call->pad};
    size_t bytes = (size_t)((in->dim[0] + call->pad) * copy->stride) * type_bytes(call->compute);
    /* Where this node would put it, too: behind the library's room. */
    if (transient && call->used == blas_workspace &&
        call_copy(call, id, call->compute) == call->workspace + blas_workspace) {
        copy->data = call->workspace + call->used;
        call->used += cuda_round(bytes);
        return true;
    }
    copy->data = call_scratch(call, bytes);
    if (transient) call_keep(call, id, call->compute, copy->data, cuda_round(bytes));
    return false;
}

/* Input i as the product reads it. */
struct array cuda_operand(struct call *call, int i) {
    const struct operand *in = &call->in[i];
    struct array copy = array_of(in);
    int id = call->node->input[i];
    if (is_read_in_place(&call->graph->values[id], call->compute) || cuda_copy_place(call, id, in, &copy))
        return copy;
    struct matrix from = matrix_of(in);
    cuda_decode(copy, &from, in->dim[0], in->rank > 1 ? in->dim[1] : 1, call->stream);
    return copy;
}

/* ---- linear ---- */

void cuda_lay(struct call *call, const struct thin *thin, struct product *p) {
    p->beta = thin->low.data || thin->bias.data || thin->addend.data ? 1 : 0;
    bool plain = !thin->low.data && !thin->bias.data && thin->addend.type == thin->y.type &&
                 thin->addend.stride == thin->y.stride;
    if (plain)
        p->addend = thin->addend.data; /* where it lies, y or elsewhere */
    else if (p->beta > 0)
        cuda_thin(thin, call->stream);
}

size_t cuda_two_operands(const struct graph *graph, const struct node *node) {
    enum dtype compute = operand_compute(graph, node);
    if (node->attributes.fp8) return fp8_workspace(graph, node);
    return blas_workspace + cuda_copy_bytes(&graph->values[node->input[0]], compute) +
           cuda_copy_bytes(&graph->values[node->input[1]], compute);
}

static size_t linear_workspace(const struct graph *graph, const struct node *node) {
    size_t product = cuda_two_operands(graph, node), pass = passes_workspace(graph, node);
    return product > pass ? product : pass;
}

/* Element `numbers` of an array on. */
static void *behind(const struct array *array, int64_t numbers) {
    return (char *)array->data + numbers * (int64_t)type_bytes(array->type);
}

/* Puts the adapter's numbers behind those of x and w; false where there is no room. */
static bool join(struct call *call, struct product *p, struct array x, struct array w,
                 const struct thin *thin) {
    int64_t rank = cuda_node_rank(call->graph, call->node);
    if (!rank || !thin->low.data || p->alpha == 0 || x.stride < p->k + rank) return false;
    if (w.stride < (p->w_transposed ? p->k : p->n) + rank) return false; /* nor has it more rows, then */
    float factor = thin->beta / p->alpha;
    cuda_tail(behind(&x, p->k), x.stride, p->m, rank, thin->low, p->m, thin->rank, 1, call->stream);
    if (p->w_transposed)
        cuda_tail(behind(&w, p->k), w.stride, p->n, rank, thin->up, p->n, thin->rank, factor, call->stream);
    else
        cuda_tail(behind(&w, p->k * w.stride), w.stride, rank, p->n, thin->up, thin->rank, p->n, factor,
                  call->stream);
    p->k += rank;
    return true;
}

/* y = α x w + what `thin` says. */
static bool full_and_thin(struct call *call, struct product *p, struct thin *thin, struct error *err) {
    if (call->node->attributes.fp8) return fp8_product(call, p, thin, err);
    void *library = call_scratch(call, blas_workspace);
    if (!p->m) return true;
    struct array x = cuda_operand(call, 0), w = cuda_operand(call, 1);
    p->type = call->compute;
    p->x = x.data;
    p->w = w.data;
    p->ldx = x.stride;
    p->ldw = w.stride;
    p->alpha = call->node->attributes.alpha;
    thin->y = p->y;
    thin->beta = call->node->attributes.beta;
    thin->rows = p->m;
    thin->columns = p->n;
    if (join(call, p, x, w, thin)) thin->low.data = NULL;
    cuda_lay(call, thin, p);
    return blas_product(call->device->blas, p, library, call->stream, err);
}

static bool is_state(const struct graph *graph, int value) {
    return value >= 0 && graph->values[value].kind == VALUE_STATE;
}

/* Projections of one input stand side by side and need not wait for one another. */
static enum few_start few_start(const struct call *call) {
    const struct node *node = call->node;
    if (!is_state(call->graph, node->input[1])) return FEW_IN_TURN;
    *call->few = node->input[0];
    return call->few_before == node->input[0] ? FEW_BESIDE : FEW_EARLY;
}

static struct thin thin_of(const struct call *call) {
    const struct operand *up = &call->in[5];
    return (struct thin){.y = array_of(&call->out[0]),
                         .low = array_of(&call->in[4]),
                         .up = array_of(up),
                         .bias = array_of(&call->in[2]),
                         .addend = array_of(&call->in[3]),
                         .beta = call->node->attributes.beta,
                         .rows = call->in[0].dim[0],
                         .columns = call->in[1].dim[0],
                         .rank = up->dim[1],
                         .along = 1,
                         .across = up->stride};
}

/* What is decoded anew for each larger product costs more than that, and so do two readings from the cache.
 */
bool cuda_is_few(const struct call *call) {
    enum { decoded = 64, plain = 16 };
    const struct operand *x = &call->in[0], *w = &call->in[1];
    bool tensor_cores = call->compute != DTYPE_F32 && w->dim[1] % 8 == 0 && x->stride % 8 == 0;
    int64_t most = !tensor_cores || w->dtype == DTYPE_F32 ? cuda_few_rows
                   : dtype_row(w->dtype)->quantised       ? decoded
                   : w->dtype == call->compute            ? plain
                                                          : cuda_few_rows;
    return x->dim[0] <= most && !call->node->attributes.fp8;
}

struct few_product cuda_few_product(const struct call *calls, int parts) {
    const struct call *first = &calls[0];
    struct few_product f = {.parts = parts,
                            .x = array_of(&first->in[0]),
                            .width = first->in[1].dim[1],
                            .alpha = first->node->attributes.alpha,
                            .compute = first->compute,
                            .processors = first->device->processors,
                            .shared_most = first->device->shared_most};
    for (int p = 0; p < parts; p++)
        f.part[p] = (struct few_part){.thin = thin_of(&calls[p]), .w = matrix_of(&calls[p].in[1])};
    return f;
}

static bool linear(struct call *call, struct error *err) {
    const struct operand *w = &call->in[1];
    struct thin thin = thin_of(call);
    if (cuda_is_few(call)) { /* the weight is read as it is stored */
        struct few_product few = cuda_few_product(call, 1);
        few.start = few_start(call);
        cuda_few(&few, call->stream);
        return true;
    }
    struct product product = {.y = array_of(&call->out[0]),
                              .m = call->in[0].dim[0],
                              .n = w->dim[0],
                              .k = w->dim[1],
                              .w_transposed = true};
    return full_and_thin(call, &product, &thin, err);
}

static bool linear_grad_x(struct call *call, struct error *err) {
    const struct operand *w = &call->in[1], *down = &call->in[4];
    struct thin thin = {.low = array_of(&call->in[3]),
                        .up = array_of(down),
                        .addend = array_of(&call->in[2]),
                        .rank = down->dim[0],
                        .along = down->stride,
                        .across = 1};
    struct product product = {
        .y = array_of(&call->out[0]), .m = call->in[0].dim[0], .n = w->dim[1], .k = w->dim[0]};
    return full_and_thin(call, &product, &thin, err);
}

static bool linear_grad_w(struct call *call, struct error *err) {
    const struct operand *rows = &call->in[0], *dw = &call->in[2];
    void *library = call_scratch(call, blas_workspace);
    if (!rows->dim[0]) return true;
    struct array dy = cuda_operand(call, 1), x = cuda_operand(call, 0);
    struct product product = {.type = call->compute,
                              .x = dy.data,
                              .w = x.data,
                              .y = array_of(dw),
                              .m = dw->dim[0],
                              .n = dw->dim[1],
                              .k = rows->dim[0],
                              .ldx = dy.stride,
                              .ldw = x.stride,
                              .x_transposed = true,
                              .alpha = call->node->attributes.alpha,
                              .beta = 1};
    return blas_product(call->device->blas, &product, library, call->stream, err);
}

/* ---- head ---- */

enum { least_rows = 128 };

int64_t cuda_head_rows(int64_t rows, int64_t vocabulary, int64_t bytes, int64_t step) {
    static const int64_t budget = (int64_t)512 << 20;
    int64_t most = budget / (cuda_head_stride(vocabulary) * bytes) / step * step;
    if (most < step) most = step;
    return rows < most ? rows : most;
}

static int64_t piece_rows(int64_t rows, int64_t vocabulary) {
    return cuda_head_rows(rows, vocabulary, sizeof(float), least_rows);
}

static size_t head_workspace(const struct graph *graph, const struct node *node) {
    const struct value *x = &graph->values[node->input[0]], *w = &graph->values[node->input[1]];
    int low = low_input(node->op);
    size_t adapter = 0;
    for (int i = low; node->op == OP_HEAD_GRAD && node->input[low] >= 0 && i < low + 2; i++)
        adapter += cuda_copy_bytes(&graph->values[node->input[i]], operand_compute(graph, node));
    size_t logits = cuda_round((size_t)(piece_rows(x->dim[0], w->dim[0]) * cuda_head_stride(w->dim[0])) *
                               sizeof(float)),
           wide = cuda_wide_head_workspace(graph, node);
    return cuda_two_operands(graph, node) + (adapter + logits > wide ? adapter + logits : wide);
}

struct head {
    struct product logits, dx, dw, dlow, dup; /* without y: not wanted */
    struct thin adapter;                      /* what logits are added to; without low: nothing */
    struct logits rows;
    int64_t size_x, size_dx; /* bytes of a row */
};

/* What a piece's gradient goes on to beside dx and dw. */
static bool adapter_piece(struct call *call, const struct head *head, int64_t first, int64_t rows,
                          void *library, struct error *err) {
    struct product dlow = head->dlow, dup = head->dup;
    dlow.m = dup.k = rows;
    dlow.y.data = dlow.y.data ? behind(&dlow.y, first * dlow.y.stride) : NULL;
    dup.w = (const char *)dup.w + first * dup.ldw * (int64_t)type_bytes(dup.type);
    return (!dlow.y.data || blas_product(call->device->blas, &dlow, library, call->stream, err)) &&
           (!dup.y.data || blas_product(call->device->blas, &dup, library, call->stream, err));
}

/* The adapter beside the head: into the logits' product where there is room behind x and w, else laid into
 * the logits; and its gradients, which have the form of dx and dw. */
static void add_adapter(struct call *call, struct head *head, struct array x, struct array w) {
    int at = low_input(call->node->op);
    const struct operand *low = &call->in[at], *up = &call->in[at + 1];
    float beta = call->node->attributes.beta;
    if (!low->data) return;
    struct thin thin = {.low = array_of(low),
                        .up = array_of(up),
                        .y = head->logits.y,
                        .beta = beta,
                        .columns = head->logits.n,
                        .rank = up->dim[1],
                        .along = 1,
                        .across = up->stride};
    head->logits.m = low->dim[0];
    if (!join(call, &head->logits, x, w, &thin)) head->adapter = thin;
    if (call->node->op != OP_HEAD_GRAD) return;
    struct array low16 = cuda_operand(call, at), up16 = cuda_operand(call, at + 1);
    head->dlow = head->dx;
    head->dlow.w = up16.data;
    head->dlow.ldw = up16.stride;
    head->dlow.y = array_of(&call->out[2]);
    head->dup = head->dw;
    head->dup.w = low16.data;
    head->dup.ldw = low16.stride;
    head->dup.y = array_of(&call->in[7]);
    head->dlow.n = head->dup.n = up->dim[1];
    head->dlow.alpha = head->dup.alpha = beta;
}

static bool head_piece(struct call *call, const struct head *head, int64_t first, int64_t rows, void *library,
                       struct error *err) {
    struct product logits = head->logits, dx = head->dx, dw = head->dw;
    struct logits piece = head->rows;
    logits.x = (const char *)logits.x + first * head->size_x;
    logits.m = dx.m = piece.rows = rows;
    piece.targets += first;
    if (piece.logp) piece.logp += first;
    if (piece.dlogp) piece.dlogp += first;
    if (head->adapter.low.data) {
        struct thin thin = head->adapter;
        thin.low.data = behind(&thin.low, first * thin.low.stride);
        thin.rows = rows;
        cuda_thin(&thin, call->stream);
        logits.beta = 1;
    }
    if (!blas_product(call->device->blas, &logits, library, call->stream, err)) return false;
    cuda_logits(&piece, call->stream);
    dx.y.data = dx.y.data ? (char *)dx.y.data + first * head->size_dx : NULL;
    dw.w = logits.x;
    dw.k = rows;
    return (!dx.y.data || blas_product(call->device->blas, &dx, library, call->stream, err)) &&
           (!dw.y.data || blas_product(call->device->blas, &dw, library, call->stream, err)) &&
           adapter_piece(call, head, first, rows, library, err);
}

static bool head_rows(struct call *call, bool gradient, struct error *err) {
    const struct operand *x = &call->in[0], *w = &call->in[1], *dx = &call->out[1];
    int64_t rows = x->dim[0], width = w->dim[1], vocabulary = w->dim[0],
            stride = cuda_head_stride(vocabulary);
    void *library = call_scratch(call, blas_workspace);
    if (!rows) return true;
    struct array left = cuda_operand(call, 0), right = cuda_operand(call, 1);
    int64_t piece = piece_rows(rows, vocabulary);
    float *room = call_scratch(call, (size_t)(piece * stride) * sizeof *room);
    bool half = call->compute != DTYPE_F32;
    struct head head = {
        .logits = {.type = call->compute,
                   .x = left.data,
                   .w = right.data,
                   .y = {room, DTYPE_F32, stride},
                   .n = vocabulary,
                   .k = width,
                   .ldx = left.stride,
                   .ldw = right.stride,
                   .w_transposed = true,
                   .alpha = 1},
        .dx = {.type = call->compute,
               .x = room,
               .w = right.data,
               .y = gradient ? array_of(dx) : (struct array){NULL, DTYPE_F32, 0},
               .n = width,
               .k = vocabulary,
               .ldx = half ? 2 * stride : stride,
               .ldw = right.stride,
               .alpha = 1},
        .dw = {.type = call->compute,
               .x = room,
               .y = gradient ? array_of(&call->in[4]) : (struct array){NULL, DTYPE_F32, 0},
               .m = vocabulary,
               .n = width,
               .ldx = half ? 2 * stride : stride,
               .ldw = left.stride,
               .x_transposed = true,
               .alpha = 1,
               .beta = 1},
        .rows = {.logits = room,
                 .vocabulary = vocabulary,
                 .stride = stride,
                 .targets = call->in[2].data,
                 .dlogp = gradient ? call->in[3].data : NULL,
                 .logp = call->out[0].data,
                 .type = call->compute,
                 .clusters = cuda_is_hopper(call->device->major, call->device->minor)},
        .size_x = left.stride * (int64_t)type_bytes(call->compute),
        .size_dx = gradient && dx->data ? dx->stride * (int64_t)type_bytes(dx->dtype) : 0,
    };
    bool ok = true;
    add_adapter(call, &head, left, right);
    for (int64_t first = 0; ok && first < rows; first += piece)
        ok = head_piece(call, &head, first, rows - first < piece ? rows - first : piece, library, err);
    return ok;
}

static bool head_forward(struct call *call, struct error *err) {
    return cuda_wide_head_serves(call) ? cuda_wide_head_run(call, err) : head_rows(call, false, err);
}
static bool head_grad(struct call *call, struct error *err) {
    return cuda_wide_head_serves(call) ? cuda_wide_head_run(call, err) : head_rows(call, true, err);
}

const struct cuda_kernel cuda_kernels_products[] = {
    {OP_LINEAR, linear, linear_workspace, NULL},
    {OP_LINEAR_GRAD_X, linear_grad_x, linear_workspace, NULL},
    {OP_LINEAR_GRAD_W, linear_grad_w, linear_workspace, NULL},
    {OP_HEAD, head_forward, head_workspace, NULL},
    {OP_HEAD_GRAD, head_grad, head_workspace, NULL},
    {.run = NULL},
};
