/* Muon (op/optimizer_muon.c): one matrix after the other, its products by the device's own. */
#ifndef HONE_DEVICE_CPU_OPTIMIZER_MUON_BODY_H
#define HONE_DEVICE_CPU_OPTIMIZER_MUON_BODY_H

#include "device/cpu/gemm.h"
#include "device/cpu/optimizer_body.h"

/* Where one part's scratch lies, in bytes from the workspace's begin. */
struct muon_room {
    int64_t rows, columns; /* of X: no more rows than columns */
    size_t next, gram, sum, squares, products, bytes;
};

static void muon_lay_out(struct muon_room *room, const struct op_part *part, int threads) {
    bool turned = part->rows > part->columns;
    *room = (struct muon_room){.rows = turned ? part->columns : part->rows,
                               .columns = turned ? part->rows : part->columns};
    int64_t r = room->rows, c = room->columns;
    size_t x = (size_t)op_padded(r * c) * sizeof(float), g = (size_t)op_padded(r * r) * sizeof(float);
    size_t products[] = {cpu_product_workspace(GEMM_NT, r, r, c, DTYPE_F32, threads),
                         cpu_product_workspace(GEMM_NT, r, r, r, DTYPE_F32, threads),
                         cpu_product_workspace(GEMM_NN, r, c, r, DTYPE_F32, threads)};
    room->next = x;
    room->gram = room->next + x;
    room->sum = room->gram + g;
    room->squares = room->sum + g;
    room->products = room->squares + (size_t)op_padded(part->rows) * sizeof(double);
    for (int i = 0; i < 3; i++)
        if (room->products + products[i] > room->bytes) room->bytes = room->products + products[i];
}

struct muon_job {
    const struct update *u;
    const struct op_part *part;
    const float *hyper;
    float *x;        /* [rows, columns] of muon_room */
    double *squares; /* [part's rows] */
    float factor;    /* of x, as the last loop wants it */
    int64_t rows_each;
};

/* X's element of an element of the part, by row and column. */
static inline float *muon_at(const struct muon_job *job, int64_t row, int64_t column) {
    const struct op_part *part = job->part;
    return part->rows > part->columns ? job->x + column * part->rows + row
                                      : job->x + row * part->columns + column;
}

/* Moves the momentum of some rows and puts the update where X is to be. */
static void muon_gather(void *user, int task, int worker) {
    const struct muon_job *job = user;
    const struct op_part *part = job->part;
    const float *g = job->u->gradients + part->offset;
    float *m = job->u->m + part->slot[0], clip = clip_of(job->u, job->hyper);
    float momentum = job->hyper[HYPER_MOMENTUM], fresh = (float)(1 - (double)momentum);
    int64_t last = (task + 1) * job->rows_each;
    (void)worker;
    for (int64_t r = task * job->rows_each; r < (last < part->rows ? last : part->rows); r++) {
        job->squares[r] = 0;
        for (int64_t c = 0; c < part->columns; c++) {
            int64_t i = r * part->columns + c;
            float x = g[i] * clip;
            m[i] += fresh * (x - m[i]);
            float u = job->hyper[HYPER_NESTEROV] > 0 ? x + momentum * (m[i] - x) : m[i];
            *muon_at(job, r, c) = u;
            job->squares[r] += (double)u * (double)u;
        }
    }
}

static void muon_move(void *user, int task, int worker) {
    const struct muon_job *job = user;
    const struct op_part *part = job->part;
    float *p = job->u->parameters + part->offset, keep = keep_of(job->hyper);
    int64_t last = (task + 1) * job->rows_each;
    (void)worker;
    for (int64_t r = task * job->rows_each; r < (last < part->rows ? last : part->rows); r++)
        for (int64_t c = 0; c < part->columns; c++) {
            int64_t i = r * part->columns + c;
            p[i] = p[i] * keep - job->factor * *muon_at(job, r, c);
        }
}

static void muon_product(const struct cpu_call *call, enum gemm_form form, const float *x, const float *w,
                         float *y, int64_t m, int64_t n, int64_t k, float alpha, void *workspace) {
    struct gemm product = {.form = form,
                           .m = m,
                           .n = n,
                           .k = k,
                           .x = x,
                           .ldx = k,
                           .w = w,
                           .ldw = form == GEMM_NT ? k : n,
                           .y = y,
                           .ldy = n,
                           .alpha = alpha};
    call->gemm->run(&product, 1, call->pool, workspace, call->features);
}

/* X = (a I + b G + c G²) X, G = X Xᵀ, some times; returns where the result lies. */
static float *muon_rounds(const struct cpu_call *call, const struct muon_room *room, float *x, int rounds) {
    char *base = call->workspace;
    float *next = (float *)(void *)(base + room->next), *gram = (float *)(void *)(base + room->gram),
          *sum = (float *)(void *)(base + room->sum);
    int64_t r = room->rows, c = room->columns;
    for (int round = 0; round < rounds; round++) {
        muon_product(call, GEMM_NT, x, x, gram, r, r, c, 1, base + room->products);
        muon_product(call, GEMM_NT, gram, gram, sum, r, r, r, (float)MUON_C, base + room->products);
        for (int64_t i = 0; i < r * r; i++)
            sum[i] += (float)MUON_B * gram[i] + (i % (r + 1) ? 0 : (float)MUON_A);
        muon_product(call, GEMM_NN, sum, x, next, r, c, r, 1, base + room->products);
        float *free = x;
        x = next;
        next = free;
    }
    return x;
}

static void muon_part(const struct cpu_call *call, const struct update *u, const struct op_part *part) {
    struct muon_room room;
    muon_lay_out(&room, part, pool_threads(call->pool));
    char *base = call->workspace;
    const float *hyper = u->hyper + part->group * HYPER_COLUMNS;
    int64_t rows_each = optimizer_piece / part->columns + 1, n = op_part_elements(part);
    int tasks = (int)((part->rows + rows_each - 1) / rows_each);
    struct muon_job job = {.u = u,
                           .part = part,
                           .hyper = hyper,
                           .x = call->workspace,
                           .squares = (double *)(void *)(base + room.squares),
                           .rows_each = rows_each};
    pool_run(call->pool, tasks, muon_gather, &job);
    double squares = 0;
    for (int64_t r = 0; r < part->rows; r++) squares += job.squares[r];
    float inverse = (float)(1 / fmax(sqrt(squares), MUON_EPSILON));
    for (int64_t i = 0; i < n; i++) job.x[i] *= inverse;
    job.x = muon_rounds(call, &room, job.x, (int)hyper[HYPER_ROUNDS]);
    job.factor = (float)((double)hyper[HYPER_RATE] *
                         muon_ratio((enum muon_adjust)hyper[HYPER_ADJUST], part->rows, part->columns));
    pool_run(call->pool, tasks, muon_move, &job);
}

static void muon_other_piece(const struct update *u, const struct op_part *part, const float *hyper,
                             int64_t at, int64_t n) {
    struct adamw a = adamw_numbers(u, hyper);
    float *m = u->m + part->slot[0] + (at - part->offset), *v = m + op_padded(op_part_elements(part));
    adamw_span(&a, u->parameters + at, u->gradients + at, m, v, n);
}

static void muon_run(const struct cpu_call *call) {
    struct update u;
    if (!update_begin(&u, call)) return;
    u.piece = muon_other_piece;
    update_pieces(&u, call->pool, call->workspace, true);
    for (int i = 0; i < u.parts->count; i++)
        if (u.parts->items[i].hidden) muon_part(call, &u, &u.parts->items[i]);
}

#endif
