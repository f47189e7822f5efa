/* Few rows against stored weights (decoding): each row of w is read once, unpacked in registers, and
 * multiplied with all rows of x: in f32, or as integers where w is made of small ones (gemm_few_ints.h).
 * Operands are not rounded to bf16 here: the time is the reading, not the products. Products of the same x
 * are one round of the pool, which would otherwise cost as much as a small product. */
#include <string.h>

#include "device/cpu/gemm_pack.h"

enum {
    task_bytes = 32 << 10, /* the least that a task is worth */
};

/* One product: rows of w, in tasks of task_rows from `first_task` on. */
struct few_part {
    struct gemm_few few, low; /* low.rows == 0: there is no product of low rank */
    const struct gemm *gemm;
    int64_t task_rows, first_task;
};

struct few_run {
    struct few_part parts[gemm_most_together];
    int count;
    const struct gemm_kernel *kernel;
    unsigned features;
};

/* What x is wanted as, beside f32. */
struct few_forms {
    bool ints, quads;
};

static void want_form(const struct gemm_kernel *kernel, enum dtype w_type, struct few_forms *forms) {
    bool quads = kernel->round_quads && gemm_few_quads(w_type);
    forms->quads |= quads;
    forms->ints |= kernel->round && gemm_few_integers(w_type) && !quads;
}

/* Bytes of x as f32, as integers and their factors, and as quads. */
static size_t rows_bytes(int64_t k) {
    int64_t blocks = gemm_ceil(k, 32), one = 32 * (int64_t)(sizeof(float) + sizeof(int16_t)),
            quads = gemm_ceil(k, 128) * (int64_t)sizeof(struct gemm_quad);
    return (size_t)gemm_up(gemm_few_rows * (blocks * (one + 2 * (int64_t)sizeof(float)) + quads), 64);
}

size_t gemm_few_workspace(int64_t k) {
    return rows_bytes(k) + gemm_most_together * rows_bytes(gemm_most_rank);
}

/* Rows [first + s * apart, + count) of each stream. */
static void few_piece(const struct few_run *run, const struct few_part *part, int64_t first, int64_t apart,
                      int streams, int count) {
    enum { room = gemm_few_rows * gemm_few_width + 16 }; /* a whole vector is read at the end of a row */
    _Alignas(64) float sums[room], low[room];
    struct gemm_tile t = {.gemm = part->gemm,
                          .stride = gemm_few_width,
                          .rows = (int)part->gemm->m,
                          .columns = count,
                          .first = true,
                          .last = true,
                          .features = run->features};
    run->kernel->few(&part->few, first, apart, streams, count, sums);
    if (part->low.rows) run->kernel->few(&part->low, first, apart, streams, count, low);
    for (int s = 0; s < streams; s++) {
        t.tile = sums + s * gemm_few_count;
        t.low = part->low.rows ? low + s * gemm_few_count : NULL;
        t.column = first + s * apart;
        run->kernel->finish(&t);
    }
}

static void few_task(void *user, int task, int worker) {
    const struct few_run *run = user;
    const struct few_part *part = &run->parts[run->count - 1];
    (void)worker;
    while (part->first_task > task) part--;
    int64_t first = (task - part->first_task) * part->task_rows,
            end = gemm_min(part->gemm->n, first + part->task_rows), apart = (end - first) / gemm_few_streams,
            rest = first + apart * gemm_few_streams;
    for (int s = 0; s < gemm_few_streams; s++) {
        const char *begin = (const char *)part->few.w + (size_t)(first + s * apart) * part->few.row_bytes;
        for (int at = 0; at < gemm_few_ahead; at += 64) __builtin_prefetch(begin + at);
    }
    for (int64_t j = 0; j < apart; j += gemm_few_count)
        few_piece(run, part, first + j, apart, gemm_few_streams, (int)gemm_min(gemm_few_count, apart - j));
    if (rest < end) few_piece(run, part, rest, 0, 1, (int)(end - rest));
}

/* Rows of x as f32 in `to`, with what is missing to whole blocks and rows as zeros; where they lie if that is
 * how they are. */
static const float *take_floats(const struct gemm_activation *x, int64_t m, int64_t k, int rows, int64_t wide,
                                float *to, unsigned features) {
    const int64_t size = dtype_row(x->dtype)->bytes;
    if (x->dtype == DTYPE_F32 && rows == m && wide == k && x->ld == k) return x->data;
    memset(to, 0, (size_t)(rows * wide) * sizeof *to);
    for (int64_t r = 0; r < m; r++)
        cpu_row_load(to + r * wide, (const char *)x->data + r * x->ld * size, x->dtype, k, features);
    return to;
}

/* x in the forms that are wanted, in `to`. */
static struct gemm_few take_x(const struct gemm_kernel *kernel, const struct gemm_activation *x, int64_t m,
                              int64_t k, struct few_forms forms, float *to, unsigned features) {
    int64_t wide = gemm_up(k, 32);
    int rows = m == 1 ? 1 : m == 2 ? 2 : m <= 4 ? 4 : 8;
    struct gemm_few few = {.ldx = wide, .k = k, .rows = rows, .features = features};
    few.x = take_floats(x, m, k, rows, wide, to, features);
    to += rows * wide;
    if (forms.quads) {
        struct gemm_quad *quads = (struct gemm_quad *)(void *)to;
        kernel->round_quads(&few, quads);
        few.quads = quads;
        to = (float *)(void *)(quads + gemm_ceil(k, 128) * rows);
    }
    if (forms.ints) {
        int16_t *ints = (int16_t *)(void *)(to + gemm_up(rows, 4) * wide / 16);
        kernel->round(&few, ints, to);
        few.ints = ints;
        few.factors = to;
    }
    return few;
}

static struct gemm_few take_w(const struct gemm_weight *w, struct gemm_few few) {
    few.stored = w->stored;
    few.w = w->stored.codes;
    few.row_bytes = (size_t)w->row_bytes;
    few.w_type = w->stored.dtype;
    return few;
}

void gemm_run_few(const struct gemm_kernel *kernel, const struct gemm *gemms, int count, struct pool *pool,
                  void *workspace, unsigned features) {
    struct few_run run = {.kernel = kernel, .count = count, .features = features};
    const int64_t m = gemms->m, k = gemms->k;
    struct few_forms forms = {0};
    if (m <= 0) return;
    for (int i = 0; i < count && !gemms->exact; i++) want_form(kernel, gemms[i].w_type, &forms);
    struct gemm_operands first = gemm_operands(gemms);
    struct gemm_few x = take_x(kernel, &first.x, m, k, forms, workspace, features);
    unsigned char *at = (unsigned char *)workspace + rows_bytes(k);
    int64_t tasks = 0, outputs = 0;
    for (int i = 0; i < count; i++, at += rows_bytes(gemm_most_rank)) {
        const struct gemm *g = &gemms[i];
        struct few_part *part = &run.parts[i];
        struct gemm_operands operands = gemm_operands(g);
        *part = (struct few_part){.few = take_w(&operands.w, x), .gemm = g, .first_task = tasks};
        if (g->rank) {
            struct few_forms up = {0};
            if (!g->exact) want_form(kernel, g->up_type, &up);
            struct gemm_few low =
                take_x(kernel, &operands.low, m, g->rank, up, (float *)(void *)at, features);
            part->low = take_w(&operands.up, low);
        }
        /* As few as keep threads busy: each begins with lines that nobody has asked for. */
        int64_t least = task_bytes / gemm_max(1, operands.w.row_bytes),
                share = gemm_ceil(g->n, (int64_t)pool_threads(pool) * (m > 2 ? 2 : 1));
        part->task_rows = gemm_up(gemm_max(gemm_max(least, share), 8), 8);
        tasks += gemm_ceil(g->n, part->task_rows);
        outputs += g->n;
    }
    gemm_tasks(m * outputs * k, pool, (int)tasks, few_task, &run);
}
