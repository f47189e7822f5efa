/* The packed product: for each group of columns of w and each group of k, all threads first decode and pack
 * the panels, then compute pieces (a block of rows × some panels). Each element of y is the sum over k in
 * order, whatever the piece that it falls in: bits depend neither on threads nor on m. A product of low rank
 * goes on in the same sums: a second part of the panels of the last group of k, where x has been multiplied
 * by β/α. */
#include <string.h>

#include "device/cpu/gemm_pack.h"

enum {
    most_k = 2048,            /* longest group of k, a multiple of every block */
    panel_budget = 4 << 20,   /* bytes of packed panels */
    block_budget = 288 << 10, /* bytes of a block of x rows: a part of the second cache */
    most_strips = 8,          /* tiles of rows in a block */
    pieces_wanted = 24,       /* so that threads finish together */
    main_bytes = block_budget + gemm_most_rows * (most_k + 16) * 4,
    low_bytes = most_strips * gemm_most_rows * (gemm_most_rank + 16) * 4,
    worker_bytes = main_bytes + low_bytes, /* of one thread's block */
    sums_columns = 1024,                   /* of y whose partial sums wait apart */
    slab_rows = 32,                        /* rows of w that one task packs, NN and TN */
    small_product = 1 << 15,               /* multiplications that are not worth waking a thread */
};

/* One of the two products: its operands, and which part of panels and scratch they become. */
struct part {
    struct gemm_weight w;
    struct gemm_activation x;
    bool direct;                /* x is read where it lies */
    int64_t k0, kc, steps;      /* steps: up to whole groups, unless x is read where it lies */
    int64_t panel_at, block_at; /* bytes */
    int64_t block_stride;
};

struct drive {
    const struct gemm *gemm;
    struct gemm_packing packing;
    struct part main, low;  /* low.steps == 0: there is none in this group of k */
    int64_t n0, nc, panels; /* group of columns */
    int64_t panel_bytes;
    int64_t row_blocks, piece_panels, pieces_across;
    int64_t key; /* names the group of k, to know a block of x again */
    bool first, last;
    unsigned char *panels_at, *blocks_at;
    int64_t *keys; /* [worker * 8]: which block of x its scratch holds */
    float *sums;
    int64_t sums_stride;
};

void gemm_tasks(int64_t multiplications, struct pool *pool, int tasks, pool_task run, void *user) {
    if (multiplications > small_product) {
        pool_run(pool, tasks, run, user);
        return;
    }
    for (int i = 0; i < tasks; i++) run(user, i, 0);
}

static int64_t group_k(int64_t k, enum dtype w_type) {
    int64_t groups = gemm_max(1, gemm_ceil(k, most_k)), block = dtype_row(w_type)->block;
    return gemm_up(gemm_ceil(gemm_max(k, 1), groups), gemm_max(block, 64));
}

/* An extra line or two keeps panels and rows from falling into the same sets of a cache. */
static int64_t panel_size(const struct gemm_kernel *kernel, int64_t steps) {
    return (steps * kernel->columns + 32) * 4;
}
static int64_t block_row(int64_t steps) { return (gemm_up(steps, 16) | 16) * 4; }

size_t gemm_drive_workspace(const struct gemm_kernel *kernel, int64_t m, int64_t n, int64_t k, int threads) {
    int64_t steps = gemm_up(gemm_min(k, most_k), 64) + gemm_most_rank,
            whole = gemm_ceil(n, kernel->columns) * panel_size(kernel, steps);
    int64_t panels = gemm_min(whole, panel_budget), sums = 0;
    int64_t blocks = threads * (int64_t)worker_bytes;
    if (k > most_k) sums = m * gemm_min(gemm_up(n, kernel->columns), sums_columns) * 4;
    int64_t packed = panels + blocks + threads * 64 + sums + 1024;
    return (size_t)packed + gemm_few_workspace(k);
}

/* Zeros for the steps of a panel behind the last of w. */
static void fill_panel(const struct drive *d, const struct part *part, int64_t panel) {
    int64_t step = d->packing.kernel->columns * 4, units = gemm_units(d->packing.kernel, part->kc);
    unsigned char *to = d->panels_at + panel * d->panel_bytes + part->panel_at;
    memset(to + units * step, 0, (size_t)((part->steps - units) * step));
}

static void pack_panel(const struct drive *d, const struct part *part, int64_t panel) {
    unsigned char *to = d->panels_at + panel * d->panel_bytes + part->panel_at;
    gemm_pack_rows(&d->packing, &part->w, d->n0 + panel * d->packing.kernel->columns, part->k0, part->kc,
                   (uint32_t *)(void *)to);
    fill_panel(d, part, panel);
}

static void pack_panel_task(void *user, int task, int worker) {
    const struct drive *d = user;
    (void)worker;
    pack_panel(d, &d->main, task);
    if (d->low.steps) pack_panel(d, &d->low, task);
}

static int64_t slabs(const struct part *part) { return part->steps ? gemm_ceil(part->kc, slab_rows) : 0; }

static void pack_slab_task(void *user, int task, int worker) {
    const struct drive *d = user;
    const struct part *part = task < slabs(&d->main) ? &d->main : &d->low;
    (void)worker;
    int64_t k = (part == &d->main ? task : task - slabs(&d->main)) * slab_rows,
            step = gemm_units(d->packing.kernel, k);
    unsigned char *to = d->panels_at + part->panel_at + step * d->packing.kernel->columns * 4;
    gemm_pack_slab(&d->packing, &part->w, part->k0 + k, part->k0 + gemm_min(part->kc, k + slab_rows), d->n0,
                   d->nc, to, d->panel_bytes);
    for (int64_t p = 0; k + slab_rows >= part->kc && p < d->panels; p++) fill_panel(d, part, p);
}

/* The rows of x from `row` on, which begin the block in the scratch, as units. */
static struct gemm_rows block_rows(const struct part *part, const unsigned char *scratch, int64_t row) {
    const struct gemm_activation *x = &part->x;
    int64_t size = dtype_row(x->dtype)->bytes;
    struct gemm_rows packed = {scratch + part->block_at, part->block_stride, part->steps},
                     there = {x->data, x->ld * size, part->steps};
    if (!part->steps || !part->direct) return packed;
    there.at = (const char *)x->data + (row * x->ld + part->k0) * size;
    return there;
}

static const void *row_at(const struct gemm_rows *rows, int64_t row) {
    return (const char *)rows->at + row * rows->stride;
}

static void pack_blocks(const struct drive *d, int64_t block, int64_t row, int64_t end, int worker) {
    unsigned char *scratch = d->blocks_at + worker * (int64_t)worker_bytes;
    const struct part *parts[] = {&d->main, &d->low};
    /* The groups of k may have other counts of blocks, so that these name none. */
    int64_t key = d->key * d->gemm->m + block;
    if (d->keys[worker * 8] == key) return;
    d->keys[worker * 8] = key;
    for (int i = 0; i < 2; i++)
        if (parts[i]->steps && !parts[i]->direct)
            gemm_pack_block(&d->packing, &parts[i]->x, row, end, parts[i]->k0, parts[i]->kc,
                            scratch + parts[i]->block_at, parts[i]->block_stride);
}

static void fetch_rows(const void *data, enum dtype dtype, const struct gemm_tile *t, int write) {
    const int64_t size = dtype_row(dtype)->bytes, line = 64, row = t->gemm->ldy * size;
    const char *at = (const char *)data + t->row * row + t->column * size;
    for (int i = 0; i < t->rows; i++, at += row)
        for (int64_t j = 0; j < t->columns * size; j += line) {
            if (write)
                __builtin_prefetch(at + j, 1);
            else
                __builtin_prefetch(at + j);
        }
}

/* Asks for what `finish` will read and write, which a tile's sums leave time for. */
static void fetch_tile(const struct gemm_tile *t) {
    const struct gemm *g = t->gemm;
    fetch_rows(g->y, g->y_type, t, 1);
    if (g->addend && g->addend != g->y) fetch_rows(g->addend, g->addend_type, t, 0);
}

static void compute_piece(void *user, int task, int worker) {
    const struct drive *d = user;
    const struct gemm *g = d->gemm;
    const struct gemm_kernel *kernel = d->packing.kernel;
    _Alignas(64) float tile[gemm_most_rows * gemm_most_columns];
    unsigned char *scratch = d->blocks_at + worker * (int64_t)worker_bytes;
    int64_t block = task / d->pieces_across, across = task % d->pieces_across;
    int64_t row = g->m * block / d->row_blocks, end = g->m * (block + 1) / d->row_blocks;
    pack_blocks(d, block, row, end, worker);
    const struct gemm_rows x[2] = {block_rows(&d->main, scratch, row), block_rows(&d->low, scratch, row)};
    int64_t strips = gemm_ceil(end - row, kernel->rows);
    struct gemm_tile t = {.gemm = g,
                          .tile = tile,
                          .stride = kernel->columns,
                          .first = d->first,
                          .last = d->last,
                          .sums_stride = d->sums_stride,
                          .features = d->packing.features};
    int64_t most = gemm_min(d->panels, (across + 1) * d->piece_panels);
    for (int64_t p = across * d->piece_panels; p < most; p++) {
        const unsigned char *panel = d->panels_at + p * d->panel_bytes;
        t.column = d->n0 + p * kernel->columns;
        t.columns = (int)gemm_min(kernel->columns, d->n0 + d->nc - t.column);
        for (int64_t s = 0; s < strips; s++) {
            int64_t from = (end - row) * s / strips, to = (end - row) * (s + 1) / strips;
            t.rows = (int)(to - from);
            t.row = row + from;
            const struct gemm_rows strip[2] = {{row_at(&x[0], from), x[0].stride, x[0].steps},
                                               {row_at(&x[1], from), x[1].stride, x[1].steps}};
            fetch_tile(&t);
            kernel->tile(t.rows, t.columns, strip, panel, tile);
            t.sums = d->sums ? d->sums + t.row * d->sums_stride + (t.column - d->n0) : NULL;
            kernel->finish(&t);
        }
    }
    if (kernel->leave) kernel->leave();
}

static int64_t part_steps(const struct gemm_kernel *kernel, const struct part *part) {
    int64_t units = gemm_units(kernel, part->kc);
    return part->direct ? units : gemm_up(units, kernel->group);
}

static void run_group(struct drive *d, struct pool *pool) {
    const struct gemm *g = d->gemm;
    const struct gemm_kernel *kernel = d->packing.kernel;
    struct part *main = &d->main, *low = &d->low;
    main->steps = part_steps(kernel, main);
    low->steps = d->last ? part_steps(kernel, low) : 0;
    main->block_stride = block_row(main->steps);
    low->block_stride = block_row(low->steps);
    low->panel_at = main->steps * kernel->columns * 4;
    low->block_at = main_bytes;
    d->panel_bytes = panel_size(kernel, main->steps + low->steps);
    int64_t strips = gemm_max(1, block_budget / (main->block_stride * kernel->rows));
    d->row_blocks = gemm_ceil(g->m, gemm_min(most_strips, strips) * kernel->rows);
    /* Each thread that has a piece of a block of x converts the block: not for more pieces than it takes. */
    int64_t wanted = main->direct ? pieces_wanted : gemm_min(pieces_wanted, 2 * pool_threads(pool)),
            across = gemm_min(d->panels, gemm_ceil(wanted, d->row_blocks));
    d->piece_panels = gemm_ceil(d->panels, across);
    d->pieces_across = gemm_ceil(d->panels, d->piece_panels);
    const int64_t work = g->m * g->n * g->k;
    if (g->form == GEMM_NT)
        gemm_tasks(work, pool, (int)d->panels, pack_panel_task, d);
    else
        gemm_tasks(work, pool, (int)(slabs(main) + slabs(low)), pack_slab_task, d);
    gemm_tasks(work, pool, (int)(d->row_blocks * d->pieces_across), compute_piece, d);
}

static void set_operands(struct drive *d) {
    const struct gemm *g = d->gemm;
    struct gemm_operands operands = gemm_operands(g);
    d->main.w = operands.w;
    d->main.x = operands.x;
    d->main.direct = gemm_reads_direct(&d->packing, &d->main.x, g->k);
    d->low.w = operands.up;
    d->low.x = operands.low;
    d->low.kc = g->rank;
    d->low.x.factor = g->rank ? g->beta / g->alpha : 1;
    d->low.direct = gemm_units(d->packing.kernel, g->rank) % d->packing.kernel->group == 0 &&
                    gemm_reads_direct(&d->packing, &d->low.x, g->rank);
}

static void run_packed(struct drive *d, struct pool *pool, void *workspace) {
    const struct gemm *g = d->gemm;
    const struct gemm_kernel *kernel = d->packing.kernel;
    int64_t kc = group_k(g->k, g->w_type), groups = gemm_max(1, gemm_ceil(g->k, kc)),
            threads = pool_threads(pool);
    int64_t panel = panel_size(kernel, gemm_units(kernel, kc) + gemm_up(g->rank, kernel->group));
    int64_t block = gemm_max(dtype_row(g->w_type)->block, gemm_most_columns);
    int64_t across = panel_budget / panel * kernel->columns / block * block;
    across = gemm_min(gemm_max(across, block), gemm_up(g->n, kernel->columns));
    bool apart = groups > 1 && g->y_type != DTYPE_F32;
    if (apart) across = gemm_min(across, sums_columns);
    set_operands(d);
    d->keys = workspace;
    d->blocks_at = (unsigned char *)workspace + threads * 64;
    d->panels_at = d->blocks_at + threads * (int64_t)worker_bytes;
    if (apart) d->sums = (float *)(void *)(d->panels_at + gemm_up(across / kernel->columns * panel, 64));
    d->sums_stride = across;
    for (int64_t t = 0; t < threads; t++) d->keys[t * 8] = -1;
    for (d->n0 = 0; d->n0 < g->n; d->n0 += across) {
        d->nc = gemm_min(across, g->n - d->n0);
        d->panels = gemm_ceil(d->nc, kernel->columns);
        for (d->key = 0; d->key < groups; d->key++) {
            d->main.k0 = d->key * kc;
            d->main.kc = gemm_min(kc, g->k - d->main.k0);
            d->first = d->key == 0;
            d->last = d->key == groups - 1;
            run_group(d, pool);
        }
    }
}

void gemm_drive(const struct gemm_kernel *kernel, enum dtype round, const struct gemm *gemms, int count,
                struct pool *pool, void *workspace, unsigned features) {
    if (gemms->form == GEMM_NT && gemms->m <= gemm_few_rows) {
        gemm_run_few(kernel, gemms, count, pool, workspace, features);
        return;
    }
    for (const struct gemm *gemm = gemms; gemm < gemms + count; gemm++) {
        if (gemm->m <= 0 || gemm->n <= 0) continue;
        if (gemm->form == GEMM_TN && gemm_min(gemm->m, gemm->n) <= gemm_narrow_width) {
            gemm_run_narrow(kernel, gemm, pool, features);
        } else {
            struct drive drive = {.gemm = gemm, .packing = {kernel, round, features}};
            run_packed(&drive, pool, workspace);
        }
    }
}
