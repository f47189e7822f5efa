/* The packed product: for each group of columns of w and each group of k, all threads first decode and pack
 * the panels, then compute pieces (a block of rows × some panels). Each element of y is the sum over k in
 * order, whatever the piece that it falls in: bits depend neither on threads nor on m. */
#include <string.h>

#include "device/cpu/gemm_kernel.h"

enum {
    most_k = 2048,            /* longest group of k, a multiple of every block */
    panel_budget = 4 << 20,   /* bytes of packed panels */
    block_budget = 288 << 10, /* bytes of a block of x rows: a part of the second cache */
    pieces_wanted = 24,       /* so that threads finish together */
    chunk = 256,              /* elements decoded at a time: stays in the first cache */
    worker_bytes = block_budget + gemm_most_rows * (most_k + 16) * 4, /* of one thread's block */
    sums_columns = 1024,                                              /* of y whose partial sums wait apart */
    small_product = 1 << 15, /* multiplications that are not worth waking a thread */
};

struct drive {
    const struct gemm *gemm;
    const struct gemm_kernel *kernel;
    bool round, direct; /* direct: x is read where it lies */
    unsigned features;
    int64_t k0, kc, steps;  /* group of k; steps in units */
    int64_t n0, nc, panels; /* group of columns */
    int64_t panel_bytes, block_stride;
    int64_t row_blocks, piece_panels, pieces_across;
    int64_t key; /* names the group of k, to know a block of x again */
    bool first, last;
    unsigned char *panels_at, *blocks_at;
    int64_t *keys; /* [worker * 8]: which block of x its scratch holds */
    float *sums;
    int64_t sums_stride;
};

void gemm_tasks(const struct gemm *gemm, struct pool *pool, int tasks, pool_task run, void *user) {
    if (gemm->m * gemm->n * gemm->k > small_product) {
        pool_run(pool, tasks, run, user);
        return;
    }
    for (int i = 0; i < tasks; i++) run(user, i, 0);
}

static int64_t group_k(int64_t k) {
    int64_t groups = gemm_max(1, gemm_ceil(k, most_k));
    return gemm_up(gemm_ceil(gemm_max(k, 1), groups), 64);
}

/* An extra line or two keeps panels and rows from falling into the same sets of a cache. */
static int64_t panel_size(const struct gemm_kernel *kernel, int64_t steps) {
    return (steps * kernel->columns + 32) * 4;
}
static int64_t block_row(int64_t steps) { return (gemm_up(steps, 16) | 16) * 4; }

size_t gemm_drive_workspace(const struct gemm_kernel *kernel, int64_t m, int64_t n, int64_t k, int threads) {
    int64_t kc = gemm_up(gemm_min(k, most_k), 64),
            whole = gemm_ceil(n, kernel->columns) * panel_size(kernel, kc);
    int64_t panels = gemm_min(whole, panel_budget), sums = 0;
    int64_t blocks = threads * (int64_t)worker_bytes;
    if (k > most_k) sums = m * gemm_min(gemm_up(n, kernel->columns), sums_columns) * 4;
    int64_t packed = panels + blocks + threads * 64 + sums + 1024;
    return (size_t)packed + gemm_few_workspace(k);
}

static void round_row(float *row, int64_t elements, unsigned features) {
    uint16_t rounded[chunk];
    for (int64_t at = 0; at < elements; at += chunk) {
        int64_t count = gemm_min(chunk, elements - at);
        cpu_row_store(rounded, row + at, DTYPE_BF16, count, features);
        cpu_row_load(row + at, rounded, DTYPE_BF16, count, features);
    }
}

/* Sixteen rows of w (or fewer, then zeros) become sixteen columns of a panel. */
static void pack_rows(const struct drive *d, int64_t row, uint32_t *to) {
    const struct gemm *g = d->gemm;
    const struct gemm_kernel *kernel = d->kernel;
    const int64_t stride = chunk + 16;
    float decoded[16 * (chunk + 16)];
    uint16_t halves[16 * 2 * (chunk / 2 + 16)];
    int64_t rows = gemm_max(0, gemm_min(16, g->n - row)), bytes = gemm_row_bytes(g->w_type, g->ldw);
    bool as_it_lies = rows == 16 && !kernel->pairs && !d->round && g->w_type == DTYPE_F32;
    if (rows < 16) {
        memset(decoded, 0, sizeof decoded);
        memset(halves, 0, sizeof halves);
    }
    for (int64_t k = 0; k < d->kc; k += chunk) {
        int64_t count = gemm_min(chunk, d->kc - k);
        const unsigned char *from =
            (const unsigned char *)g->w + row * bytes + gemm_row_bytes(g->w_type, d->k0 + k);
        for (int64_t r = 0; !as_it_lies && r < rows; r++) {
            cpu_row_load(decoded + r * stride, from + r * bytes, g->w_type, count, d->features);
            if (d->round) round_row(decoded + r * stride, count, d->features);
            if (!kernel->pairs) continue;
            uint16_t *half = halves + r * stride;
            cpu_row_store(half, decoded + r * stride, DTYPE_BF16, count, d->features);
            half[count] = 0;
        }
        int64_t units = kernel->pairs ? gemm_ceil(count, 2) : count;
        uint32_t *place = to + (kernel->pairs ? k / 2 : k) * kernel->columns;
        if (as_it_lies)
            kernel->transpose((const uint32_t *)(const void *)from, g->ldw, place, kernel->columns, units);
        else if (kernel->pairs)
            kernel->transpose((const uint32_t *)(const void *)halves, stride / 2, place, kernel->columns,
                              units);
        else
            kernel->transpose((const uint32_t *)(const void *)decoded, stride, place, kernel->columns, units);
    }
}

static void pack_columns_of_rows(void *user, int task, int worker) {
    const struct drive *d = user;
    (void)worker;
    uint32_t *panel = (uint32_t *)(void *)(d->panels_at + task * d->panel_bytes);
    for (int c = 0; c < d->kernel->columns; c += 16)
        pack_rows(d, d->n0 + task * d->kernel->columns + c, panel + c);
}

enum { slab_rows = 32 }; /* rows of w that one task packs, NN and TN */

static void load_slab_row(const struct drive *d, int64_t k, int64_t column, int64_t count, float *out) {
    const struct gemm *g = d->gemm;
    int64_t row = d->k0 + k;
    if (row >= g->k) {
        memset(out, 0, (size_t)count * sizeof *out);
        return;
    }
    const unsigned char *from = (const unsigned char *)g->w + row * gemm_row_bytes(g->w_type, g->ldw);
    cpu_row_load(out, from + gemm_row_bytes(g->w_type, column), g->w_type, count, d->features);
    if (d->round) round_row(out, count, d->features);
}

/* Rows [k, n] of w are rows of the panels already. */
static void pack_slab(void *user, int task, int worker) {
    const struct drive *d = user;
    const int width = d->kernel->columns;
    (void)worker;
    float even[chunk], odd[chunk];
    uint32_t units[chunk];
    int64_t end = gemm_min(d->kc, (int64_t)(task + 1) * slab_rows);
    for (int64_t c = 0; c < d->nc; c += chunk) {
        int64_t count = gemm_min(chunk, d->nc - c), wide = gemm_up(count, width);
        for (int64_t k = (int64_t)task * slab_rows; k < end; k += d->kernel->pairs ? 2 : 1) {
            const uint32_t *from = (const uint32_t *)(const void *)even;
            load_slab_row(d, k, d->n0 + c, count, even);
            memset(even + count, 0, (size_t)(wide - count) * sizeof *even);
            if (d->kernel->pairs) {
                load_slab_row(d, k + 1, d->n0 + c, count, odd);
                memset(odd + count, 0, (size_t)(wide - count) * sizeof *odd);
                d->kernel->pair(even, odd, units, wide);
                from = units;
            }
            int64_t step = d->kernel->pairs ? k / 2 : k;
            for (int64_t j = 0; j < wide; j += width) {
                unsigned char *panel = d->panels_at + (c + j) / width * d->panel_bytes;
                memcpy(panel + step * width * 4, from + j, (size_t)width * 4);
            }
        }
    }
}

static void store_block(const struct drive *d, unsigned char *to, const float *from, int64_t count) {
    if (!d->kernel->pairs) {
        memcpy(to, from, (size_t)count * sizeof *from);
        if (d->round) round_row((float *)(void *)to, count, d->features);
        return;
    }
    cpu_row_store(to, from, DTYPE_BF16, count, d->features);
    if (count & 1) memset(to + 2 * count, 0, 2);
}

/* Rows [row, end) of x over the group of k, as units; x [k, m] is turned. */
static void pack_block(const struct drive *d, int64_t row, int64_t end, unsigned char *to) {
    const struct gemm *g = d->gemm;
    const int64_t size = dtype_row(g->x_type)->bytes, unit = d->kernel->pairs ? 2 : 4;
    const unsigned char *x = g->x;
    float buffer[chunk], turned[16 * 16];
    if (g->form != GEMM_TN) {
        for (int64_t r = row; r < end; r++)
            for (int64_t k = 0; k < d->kc; k += chunk) {
                int64_t count = gemm_min(chunk, d->kc - k);
                cpu_row_load(buffer, x + (r * g->ldx + d->k0 + k) * size, g->x_type, count, d->features);
                store_block(d, to + (r - row) * d->block_stride + k * unit, buffer, count);
            }
        return;
    }
    for (int64_t r = row; r < end; r += 16)
        for (int64_t k = 0; k < d->kc; k += 16) {
            int64_t rows = gemm_min(16, end - r), count = gemm_min(16, d->kc - k);
            for (int64_t kk = 0; kk < count; kk++) {
                cpu_row_load(buffer, x + ((d->k0 + k + kk) * g->ldx + r) * size, g->x_type, rows,
                             d->features);
                for (int64_t i = 0; i < rows; i++) turned[i * 16 + kk] = buffer[i];
            }
            for (int64_t i = 0; i < rows; i++)
                store_block(d, to + (r + i - row) * d->block_stride + k * unit, turned + i * 16, count);
        }
}

static const unsigned char *take_block(const struct drive *d, int64_t block, int64_t row, int64_t end,
                                       int worker, int64_t *stride) {
    const struct gemm *g = d->gemm;
    int64_t size = dtype_row(g->x_type)->bytes;
    if (d->direct) {
        *stride = g->ldx * size;
        return (const unsigned char *)g->x + (row * g->ldx + d->k0) * size;
    }
    unsigned char *scratch = d->blocks_at + worker * (int64_t)worker_bytes;
    int64_t key = d->key * d->row_blocks + block;
    if (d->keys[worker * 8] != key) pack_block(d, row, end, scratch);
    d->keys[worker * 8] = key;
    *stride = d->block_stride;
    return scratch;
}

static void compute_piece(void *user, int task, int worker) {
    const struct drive *d = user;
    const struct gemm *g = d->gemm;
    const struct gemm_kernel *kernel = d->kernel;
    int64_t block = task / d->pieces_across, across = task % d->pieces_across;
    int64_t row = g->m * block / d->row_blocks, end = g->m * (block + 1) / d->row_blocks, stride;
    const unsigned char *a = take_block(d, block, row, end, worker, &stride);
    int64_t strips = gemm_ceil(end - row, kernel->rows);
    _Alignas(64) float tile[gemm_most_rows * gemm_most_columns];
    struct gemm_tile t = {.gemm = g,
                          .tile = tile,
                          .stride = kernel->columns,
                          .first = d->first,
                          .last = d->last,
                          .sums_stride = d->sums_stride,
                          .features = d->features};
    int64_t most = gemm_min(d->panels, (across + 1) * d->piece_panels);
    for (int64_t p = across * d->piece_panels; p < most; p++) {
        t.column = d->n0 + p * kernel->columns;
        t.columns = (int)gemm_min(kernel->columns, d->n0 + d->nc - t.column);
        for (int64_t s = 0; s < strips; s++) {
            int64_t from = (end - row) * s / strips, to = (end - row) * (s + 1) / strips;
            t.rows = (int)(to - from);
            t.row = row + from;
            kernel->tile(t.rows, t.columns, a + from * stride, stride, d->panels_at + p * d->panel_bytes,
                         d->steps, tile);
            t.sums = d->sums ? d->sums + t.row * d->sums_stride + (t.column - d->n0) : NULL;
            kernel->finish(&t);
        }
    }
}

/* Rows that lie a multiple of 2 KiB apart would share a few sets of the first cache. */
static bool reads_direct(const struct drive *d) {
    const struct gemm *g = d->gemm;
    if (g->form == GEMM_TN || d->round || g->x_type != (d->kernel->pairs ? DTYPE_BF16 : DTYPE_F32))
        return false;
    if (d->kernel->pairs && g->k % 2) return false;
    return g->ldx * (int64_t)dtype_row(g->x_type)->bytes % 2048 != 0 || g->k <= 64;
}

static void run_group(struct drive *d, struct pool *pool) {
    const struct gemm *g = d->gemm;
    int64_t steps = d->steps = d->kernel->pairs ? gemm_ceil(d->kc, 2) : d->kc;
    d->panel_bytes = panel_size(d->kernel, steps);
    d->block_stride = block_row(steps);
    int64_t rows =
        gemm_min(8, gemm_max(1, block_budget / (d->block_stride * d->kernel->rows))) * d->kernel->rows;
    d->row_blocks = gemm_ceil(g->m, rows);
    d->piece_panels = gemm_max(1, gemm_min(d->panels, d->panels * d->row_blocks / pieces_wanted));
    d->pieces_across = gemm_ceil(d->panels, d->piece_panels);
    if (g->form == GEMM_NT)
        gemm_tasks(g, pool, (int)d->panels, pack_columns_of_rows, d);
    else
        gemm_tasks(g, pool, (int)gemm_ceil(d->kc, slab_rows), pack_slab, d);
    gemm_tasks(g, pool, (int)(d->row_blocks * d->pieces_across), compute_piece, d);
}

static void run_packed(struct drive *d, struct pool *pool, void *workspace) {
    const struct gemm *g = d->gemm;
    int64_t kc = group_k(g->k), groups = gemm_max(1, gemm_ceil(g->k, kc)), threads = pool_threads(pool);
    int64_t most_steps = d->kernel->pairs ? gemm_ceil(kc, 2) : kc;
    int64_t across = gemm_max(1, panel_budget / panel_size(d->kernel, most_steps)) * d->kernel->columns;
    across = gemm_min(across, gemm_up(g->n, d->kernel->columns));
    if (groups > 1 && g->y_type != DTYPE_F32) across = gemm_min(across, sums_columns);
    d->keys = workspace;
    d->blocks_at = (unsigned char *)workspace + threads * 64;
    d->panels_at = d->blocks_at + threads * (int64_t)worker_bytes;
    if (groups > 1 && g->y_type != DTYPE_F32)
        d->sums =
            (float *)(void *)(d->panels_at +
                              gemm_up(across / d->kernel->columns * panel_size(d->kernel, most_steps), 64));
    d->sums_stride = across;
    d->direct = reads_direct(d);
    for (int64_t t = 0; t < threads; t++) d->keys[t * 8] = -1;
    for (d->n0 = 0; d->n0 < g->n; d->n0 += across) {
        d->nc = gemm_min(across, g->n - d->n0);
        d->panels = gemm_ceil(d->nc, d->kernel->columns);
        for (d->key = 0; d->key < groups; d->key++) {
            d->k0 = d->key * kc;
            d->kc = gemm_min(kc, g->k - d->k0);
            d->first = d->key == 0;
            d->last = d->key == groups - 1;
            run_group(d, pool);
        }
    }
}

void gemm_drive(const struct gemm_kernel *kernel, bool round, const struct gemm *gemm, struct pool *pool,
                void *workspace, unsigned features) {
    if (gemm->m <= 0 || gemm->n <= 0) return;
    if (gemm->form == GEMM_NT && gemm->m <= gemm_few_rows) {
        gemm_run_few(kernel, gemm, pool, workspace, features);
    } else if (gemm->form == GEMM_TN && gemm_min(gemm->m, gemm->n) <= gemm_narrow_width) {
        gemm_run_narrow(kernel, gemm, pool, features);
    } else {
        struct drive drive = {.gemm = gemm, .kernel = kernel, .round = round, .features = features};
        run_packed(&drive, pool, workspace);
    }
}
