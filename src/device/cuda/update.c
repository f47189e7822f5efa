/* The gradients' norm and the updates; what they are made of is put onto the device when a program is
 * compiled. */
#include <string.h>

#include "base/mem.h"
#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"

static int64_t pieces_of(int64_t elements) { return (elements + cuda_piece - 1) / cuda_piece; }

static size_t norm_workspace(const struct graph *graph, const struct node *node) {
    const struct value *gradients = &graph->values[node->input[0]];
    int64_t n = 1;
    for (int i = 0; i < gradients->rank; i++) n *= gradients->dim[i];
    return cuda_round((size_t)pieces_of(n) * sizeof(double));
}

static bool gradient_norm(struct call *call, struct error *err) {
    int64_t n = operand_elements(&call->in[0]);
    (void)err;
    double *sums = call_scratch(call, (size_t)pieces_of(n) * sizeof *sums);
    cuda_gradient_norm(call->out[0].data, call->in[0].data, call->in[1].data, n, sums, call->stream);
    return true;
}

/* Where the moments of a part's elements from `first` on lie. */
static void place_moments(struct update_piece *piece, enum op_code op, const struct op_part *part,
                          int64_t first) {
    int64_t n = op_part_elements(part), scales = part->slot[1], codes = part->slot[0] + first;
    bool quantised = op == OP_ADAMW8BIT && optimizer_is_quantised(part);
    piece->moment[0] = piece->moment[1] = part->offset + first;
    piece->code[0] = piece->code[1] = -1;
    if (op == OP_MUON) {
        piece->moment[0] = part->slot[0] + first;
        piece->moment[1] = piece->moment[0] + op_padded(n);
    }
    if (op != OP_ADAMW8BIT) return;
    piece->moment[0] = scales + (quantised ? first / optimizer_block : first);
    piece->moment[1] = piece->moment[0] + optimizer_scale_stride(part);
    if (!quantised) return;
    piece->code[0] = codes;
    piece->code[1] = codes + optimizer_code_stride(part);
}

/* Of AdamW in 8 bits, before the pieces. */
static const size_t level_bytes = 2 * optimizer_codes * sizeof(float);

/* Every part cut into pieces that a block takes, but for matrices of Muon. */
static bool piece_table(const struct node *node, void **out, size_t *bytes, int *count, struct error *err) {
    const struct op_parts *parts = node->attributes.parts;
    size_t before = node->op == OP_ADAMW8BIT ? level_bytes : 0;
    int64_t total = 0;
    for (int i = 0; i < parts->count; i++) total += pieces_of(op_part_elements(&parts->items[i]));
    *bytes = before + ((size_t)total + 1) * sizeof(struct update_piece);
    unsigned char *table = mem_calloc(1, *bytes);
    if (!table) return error_no_memory(err, "cuda", *bytes);
    for (int s = 0; before && s < 2; s++) optimizer_map(!s, (float *)(void *)table + s * optimizer_codes);
    struct update_piece *pieces = (void *)(table + before), *at = pieces;
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        int64_t n = op_part_elements(part);
        if (node->op == OP_MUON && part->hidden) continue;
        for (int64_t first = 0; first < n; first += cuda_piece, at++) {
            at->offset = part->offset + first;
            at->count = (int32_t)(n - first < cuda_piece ? n - first : cuda_piece);
            at->group = part->group;
            place_moments(at, node->op, part, first);
        }
    }
    *out = table;
    *count = (int)(at - pieces);
    return true;
}

static bool part_table(const struct node *node, void **out, size_t *bytes, int *count, struct error *err) {
    const struct op_parts *parts = node->attributes.parts;
    *bytes = (size_t)parts->count * sizeof *parts->items;
    *count = parts->count;
    *out = mem_alloc(*bytes);
    if (!*out) return error_no_memory(err, "cuda", *bytes);
    memcpy(*out, parts->items, *bytes);
    return true;
}

static size_t update_workspace(const struct graph *graph, const struct node *node) {
    (void)graph;
    return cuda_round(cuda_scalar_bytes(node->attributes.parts->groups));
}

static struct update update_of(struct call *call, enum update_kind kind) {
    int groups = call->node->attributes.parts->groups;
    return (struct update){.kind = kind,
                           .pieces = call->table,
                           .count = call->table_count,
                           .groups = groups,
                           .norm = call->in[0].data,
                           .hyper = call->in[1].data,
                           .gradients = call->in[4].data,
                           .step = call->in[2].data,
                           .parameters = call->in[3].data,
                           .m = call->in[5].data,
                           .v = call->in[6].data,
                           .scalars = call_scratch(call, cuda_scalar_bytes(groups))};
}

static bool run_update(struct call *call, enum update_kind kind) {
    struct update update = update_of(call, kind);
    cuda_update(&update, call->stream);
    return true;
}

static bool adamw(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_ADAMW);
}
static bool sgd(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_SGD);
}
static bool lion(struct call *call, struct error *err) {
    (void)err;
    return run_update(call, UPDATE_LION);
}
static bool adafactor(struct call *call, struct error *err) {
    (void)err;
    struct update update = update_of(call, UPDATE_ADAFACTOR);
    update.parts = call->table;
    cuda_update(&update, call->stream);
    return true;
}

/* Small parts' moments and the blocks' largest magnitudes lie in one state, both moments' in the other. */
static bool adamw8bit(struct call *call, struct error *err) {
    (void)err;
    struct update update = update_of(call, UPDATE_ADAMW8BIT);
    update.levels = call->table;
    update.pieces = (const void *)((const char *)call->table + level_bytes);
    update.codes = call->in[5].data;
    update.m = update.v = call->in[6].data;
    cuda_update(&update, call->stream);
    return true;
}

/* ---- Muon: one matrix after the other ---- */

/* Scratch of one matrix: X, the next X, its Gram matrix, the polynomial of that, sums. */
struct muon_room {
    int64_t rows, columns, least; /* least: the shorter side */
    size_t x, gram, sums;         /* bytes */
};

static struct muon_room muon_room_of(const struct op_part *part) {
    int64_t least = part->rows < part->columns ? part->rows : part->columns, n = op_part_elements(part);
    return (struct muon_room){.rows = part->rows,
                              .columns = part->columns,
                              .least = least,
                              .x = cuda_round((size_t)n * sizeof(float)),
                              .gram = cuda_round((size_t)(least * least) * sizeof(float)),
                              .sums = cuda_round((size_t)pieces_of(n) * sizeof(double))};
}

static size_t muon_workspace(const struct graph *graph, const struct node *node) {
    const struct op_parts *parts = node->attributes.parts;
    size_t most = 0;
    for (int i = 0; i < parts->count; i++) {
        struct muon_room room = muon_room_of(&parts->items[i]);
        size_t need = blas_workspace + 2 * room.x + 2 * room.gram + room.sums;
        if (parts->items[i].hidden && need > most) most = need;
    }
    return update_workspace(graph, node) + most;
}

/* next = (a I + b G + c G²) X, G = X Xᵀ; of a matrix with more rows than columns X (a I + b G + c G²), G = Xᵀ
 * X, which is the same. */
static bool muon_round(struct call *call, const struct muon_room *room, float *x, float *next, float *gram,
                       void *library, struct error *err) {
    bool tall = room->rows > room->columns;
    int64_t least = room->least, most = tall ? room->rows : room->columns;
    float *sum = gram + room->gram / sizeof *gram;
    struct product products[] = {
        {.x = x,
         .w = x,
         .y = {gram, DTYPE_F32, least},
         .m = least,
         .n = least,
         .k = most,
         .ldx = room->columns,
         .ldw = room->columns,
         .x_transposed = tall,
         .w_transposed = !tall,
         .alpha = 1},
        {.x = gram,
         .w = gram,
         .y = {sum, DTYPE_F32, least},
         .m = least,
         .n = least,
         .k = least,
         .ldx = least,
         .ldw = least,
         .w_transposed = true,
         .addend = gram,
         .alpha = (float)MUON_C,
         .beta = (float)MUON_B},
        {.x = tall ? x : sum,
         .w = tall ? sum : x,
         .y = {next, DTYPE_F32, room->columns},
         .m = room->rows,
         .n = room->columns,
         .k = least,
         .ldx = least, /* the columns of X where it is tall */
         .ldw = room->columns,
         .addend = x,
         .alpha = 1,
         .beta = (float)MUON_A},
    };
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof products / sizeof *products; i++) {
        products[i].type = DTYPE_F32;
        ok = blas_product(call->device->blas, &products[i], library, call->stream, err);
    }
    return ok;
}

static bool muon_part(struct call *call, const struct update *update, const struct op_part *part,
                      struct error *err) {
    const struct muon_room room = muon_room_of(part);
    const float *hyper = call->hyper + part->group * HYPER_COLUMNS;
    size_t used = call->used;
    void *library = call_scratch(call, blas_workspace);
    float *x = call_scratch(call, room.x), *next = call_scratch(call, room.x),
          *gram = call_scratch(call, 2 * room.gram);
    struct muon muon = {.update = *update,
                        .offset = part->offset,
                        .moment = part->slot[0],
                        .elements = op_part_elements(part),
                        .group = part->group,
                        .ratio = muon_ratio((enum muon_adjust)hyper[HYPER_ADJUST], part->rows, part->columns),
                        .x = x,
                        .sums = call_scratch(call, room.sums)};
    bool ok = true;
    cuda_muon_begin(&muon, call->stream);
    for (int round = 0; ok && round < (int)hyper[HYPER_ROUNDS]; round++) {
        ok = muon_round(call, &room, muon.x, next, gram, library, err);
        float *free = muon.x;
        muon.x = next;
        next = free;
    }
    if (ok) cuda_muon_end(&muon, call->stream);
    call->used = used;
    return ok;
}

static bool muon(struct call *call, struct error *err) {
    const struct op_parts *parts = call->node->attributes.parts;
    struct update update = update_of(call, UPDATE_MUON);
    bool ok = call->hyper || error_set(err, ERROR_INTERNAL, "cuda", "no numbers of the step are bound");
    update.v = update.m;
    if (ok) cuda_update(&update, call->stream);
    for (int i = 0; ok && i < parts->count; i++)
        if (parts->items[i].hidden && op_part_elements(&parts->items[i]))
            ok = muon_part(call, &update, &parts->items[i], err);
    return ok;
}

static bool average(struct call *call, struct error *err) {
    (void)err;
    cuda_average(call->in[4].data, call->in[3].data, call->in[0].data, call->in[1].data, call->in[2].data,
                 operand_elements(&call->in[3]), call->stream);
    return true;
}

const struct cuda_kernel cuda_kernels_optimizer[] = {
    {OP_GRADIENT_NORM, gradient_norm, norm_workspace, NULL},
    {OP_ADAMW, adamw, update_workspace, piece_table},
    {OP_SGD, sgd, update_workspace, piece_table},
    {OP_LION, lion, update_workspace, piece_table},
    {OP_ADAFACTOR, adafactor, update_workspace, part_table},
    {OP_ADAMW8BIT, adamw8bit, update_workspace, piece_table},
    {OP_MUON, muon, muon_workspace, piece_table},
    {OP_AVERAGE, average, NULL, NULL},
    {.run = NULL},
};
