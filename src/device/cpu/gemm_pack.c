#include "device/cpu/gemm_pack.h"

#include <string.h>

#include "tensor/stored_parts.h"

static struct gemm_weight weight_of(const void *codes, enum dtype dtype, int64_t columns, int64_t rows,
                                    const struct stored_part *parts) {
    struct gemm_weight w = {
        {.dtype = dtype, .columns = columns, .codes = codes}, gemm_row_bytes(dtype, columns), rows};
    if (parts) memcpy(w.stored.part, parts, sizeof w.stored.part);
    return w;
}

struct gemm_operands gemm_operands(const struct gemm *g) {
    bool rows_are_outputs = g->form == GEMM_NT;
    return (struct gemm_operands){
        .w = weight_of(g->w, g->w_type, g->ldw, rows_are_outputs ? g->n : g->k, g->w_parts),
        .up = weight_of(g->up, g->up_type, rows_are_outputs ? g->rank : g->n,
                        rows_are_outputs ? g->n : g->rank, g->up_parts),
        .x = {g->x, g->x_type, g->ldx, g->form == GEMM_TN, 1},
        .low = {g->low, g->low_type, g->rank, false, 1},
    };
}

static void round_row(const struct gemm_packing *p, float *row, int64_t elements) {
    uint16_t rounded[gemm_chunk];
    if (p->round == DTYPE_F32) return;
    for (int64_t at = 0; at < elements; at += gemm_chunk) {
        int64_t count = gemm_min(gemm_chunk, elements - at);
        cpu_row_store(rounded, row + at, p->round, count, p->features);
        cpu_row_load(row + at, rounded, p->round, count, p->features);
    }
}

/* Whether `count` elements of rows of w from k on, an even number of them, are units where they lie. */
static bool rows_are_units(const struct gemm_packing *p, const struct gemm_weight *w, int64_t k,
                           int64_t count) {
    if (!p->kernel->pairs) return p->round == DTYPE_F32 && w->stored.dtype == DTYPE_F32;
    return w->stored.dtype == DTYPE_BF16 && k % 2 == 0 && count % 2 == 0 && w->stored.columns % 2 == 0;
}

enum { rows_ahead = 4 }; /* that are asked for before they are decoded */

/* Asks for elements [k, k + count) of a row of w: a processor follows rows by itself, but not pieces of them.
 */
static void fetch_row(const struct gemm_weight *w, int64_t row, int64_t k, int64_t count) {
    if (row >= w->rows) return;
    const char *at = stored_codes(&w->stored, row, k), *end = stored_codes(&w->stored, row, k + count);
    for (; at < end; at += 64) __builtin_prefetch(at);
}

/* Sixteen rows of w (or fewer, then zeros) become sixteen columns of a panel. */
static void pack_sixteen(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row, int64_t k0,
                         int64_t kc, uint32_t *to) {
    const struct gemm_kernel *kernel = p->kernel;
    const int64_t stride = gemm_chunk + 16;
    float decoded[16 * (gemm_chunk + 16)];
    uint16_t halves[16 * 2 * (gemm_chunk / 2 + 16)];
    int64_t rows = gemm_max(0, gemm_min(16, w->rows - row));
    if (rows < 16) {
        memset(decoded, 0, sizeof decoded);
        memset(halves, 0, sizeof halves);
    }
    for (int64_t r = 0; r < rows_ahead; r++) fetch_row(w, row + r, k0, kc);
    for (int64_t k = 0; k < kc; k += gemm_chunk) {
        int64_t count = gemm_min(gemm_chunk, kc - k), units = gemm_units(kernel, count);
        uint32_t *out = to + gemm_units(kernel, k) * kernel->columns;
        if (rows == 16 && rows_are_units(p, w, k0 + k, count)) {
            kernel->transpose((const uint32_t *)(const void *)stored_codes(&w->stored, row, k0 + k),
                              w->stored.columns / (kernel->pairs ? 2 : 1), out, kernel->columns, units);
            continue;
        }
        for (int64_t r = 0; r < rows; r++) {
            uint16_t *half = halves + r * stride;
            if (k == 0 && r + rows_ahead < 16) fetch_row(w, row + r + rows_ahead, k0, kc);
            if (kernel->pairs) {
                cpu_stored_halves(half, &w->stored, row + r, k0 + k, count, p->features);
                half[count] = 0;
            } else {
                cpu_stored_load(decoded + r * stride, &w->stored, row + r, k0 + k, count, p->features);
                round_row(p, decoded + r * stride, count);
            }
        }
        kernel->transpose(kernel->pairs ? (const void *)halves : decoded, kernel->pairs ? stride / 2 : stride,
                          out, kernel->columns, units);
    }
}

void gemm_pack_rows(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row, int64_t k0,
                    int64_t kc, uint32_t *panel) {
    for (int c = 0; c < p->kernel->columns; c += 16) pack_sixteen(p, w, row + c, k0, kc, panel + c);
}

static void load_slab_row(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row,
                          int64_t column, int64_t count, float *out) {
    if (row >= w->rows) {
        memset(out, 0, (size_t)count * sizeof *out);
        return;
    }
    cpu_stored_load(out, &w->stored, row, column, count, p->features);
    round_row(p, out, count);
}

/* `count` elements of row k of w as units of f32, zeros from there to `wide`, into panels. A line is copied
 * at a time: calls for a few would cost more than they copy. */
static void slab_floats(const struct gemm_packing *p, const struct gemm_weight *w, int64_t k, int64_t column,
                        int64_t count, int64_t wide, unsigned char *to, int64_t panel_bytes) {
    enum { line = 16 }; /* units; every panel is some of them wide */
    const int width = p->kernel->columns;
    float units[gemm_chunk];
    load_slab_row(p, w, k, column, count, units);
    memset(units + count, 0, (size_t)(wide - count) * sizeof *units);
    for (int64_t j = 0; j < wide; j += width, to += panel_bytes)
        for (int i = 0; i < width; i += line) memcpy(to + 4 * i, units + j + i, line * sizeof *units);
}

/* The same of rows k and k + 1 as pairs. */
static void slab_pairs(const struct gemm_packing *p, const struct gemm_weight *w, int64_t k, int64_t column,
                       int64_t count, int64_t wide, unsigned char *to, int64_t panel_bytes) {
    uint16_t halves[2][gemm_chunk];
    for (int i = 0; i < 2; i++) {
        int64_t there = k + i < w->rows ? count : 0;
        if (there) cpu_stored_halves(halves[i], &w->stored, k + i, column, count, p->features);
        memset(halves[i] + there, 0, (size_t)(wide - there) * sizeof **halves);
    }
    p->kernel->weave(halves[0], halves[1], (uint32_t *)(void *)to, wide, panel_bytes / 4);
}

/* Rows [k, n] of w are rows of the panels already. */
void gemm_pack_slab(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row, int64_t end,
                    int64_t n0, int64_t nc, unsigned char *panels, int64_t panel_bytes) {
    const int width = p->kernel->columns, pair = p->kernel->pairs ? 2 : 1;
    for (int64_t c = 0; c < nc; c += gemm_chunk) {
        int64_t count = gemm_min(gemm_chunk, nc - c), wide = gemm_up(count, width);
        unsigned char *to = panels + c / width * panel_bytes;
        for (int64_t k = row; k < end; k += pair, to += width * 4) {
            for (int i = 0; c == 0 && i < pair; i++) fetch_row(w, k + i + rows_ahead, n0, nc);
            (pair == 2 ? slab_pairs : slab_floats)(p, w, k, n0 + c, count, wide, to, panel_bytes);
        }
    }
}

static void store_units(const struct gemm_packing *p, unsigned char *to, const float *from, int64_t count) {
    if (!p->kernel->pairs) {
        memcpy(to, from, (size_t)count * sizeof *from);
        round_row(p, (float *)(void *)to, count);
        return;
    }
    cpu_row_halves((uint16_t *)(void *)to, from, count, p->features);
    if (count & 1) memset(to + 2 * count, 0, 2);
}

/* A row of x, stored [k, m], as f32; zeros past the last. */
static void load_turned(const struct gemm_packing *p, const struct gemm_activation *x, int64_t k,
                        int64_t last, int64_t row, int64_t rows, float *out) {
    const char *from = (const char *)x->data + (k * x->ld + row) * (int64_t)dtype_row(x->dtype)->bytes;
    if (k < last)
        cpu_row_load(out, from, x->dtype, rows, p->features);
    else
        memset(out, 0, (size_t)rows * sizeof *out);
    round_row(p, out, rows);
}

enum { turned_rows = 64 }; /* of m that are turned at a time */

/* Rows [k, k + 16) of x, or twice as many where units are pairs, from column `row` on, as rows of units. */
static void turned_units(const struct gemm_packing *p, const struct gemm_activation *x, int64_t k,
                         int64_t last, int64_t row, int64_t rows, uint32_t *units) {
    const int pair = p->kernel->pairs ? 2 : 1;
    float even[turned_rows] = {0}, odd[turned_rows] = {0};
    for (int u = 0; u < 16; u++, k += pair, units += turned_rows) {
        const uint16_t *halves = (const uint16_t *)x->data + k * x->ld + row;
        if (pair == 2 && x->dtype == DTYPE_BF16 && rows % 16 == 0 && k + 1 < last) {
            for (int i = 0; i < 2; i++) __builtin_prefetch(halves + i * x->ld + turned_rows, 0, 2);
            p->kernel->weave(halves, halves + x->ld, units, rows, p->kernel->columns);
            continue;
        }
        load_turned(p, x, k, last, row, rows, even);
        if (pair == 1) {
            memcpy(units, even, sizeof even);
            continue;
        }
        load_turned(p, x, k + 1, last, row, rows, odd);
        p->kernel->pair(even, odd, units, turned_rows);
    }
}

/* Sixteen units of k of some rows of m at a time are made as rows of k, then turned. */
static void pack_turned(const struct gemm_packing *p, const struct gemm_activation *x, int64_t row,
                        int64_t end, int64_t k0, int64_t kc, unsigned char *to, int64_t stride) {
    const int pair = p->kernel->pairs ? 2 : 1;
    uint32_t units[16 * turned_rows];
    for (int64_t r = row; r < end; r += turned_rows)
        for (int64_t k = 0; k < kc; k += 16 * pair) {
            int64_t rows = gemm_min(turned_rows, end - r), from_stride = turned_rows;
            const uint32_t *from = units;
            if (pair == 1 && p->round == DTYPE_F32 && x->dtype == DTYPE_F32 && k + 16 <= kc) {
                from = (const uint32_t *)x->data + (k0 + k) * x->ld + r;
                from_stride = x->ld;
            } else {
                turned_units(p, x, k0 + k, k0 + kc, r, rows, units);
            }
            uint32_t *out = (uint32_t *)(void *)(to + (r - row) * stride) + k / pair;
            p->kernel->transpose(from, from_stride, out, stride / 4, rows);
        }
}

void gemm_pack_block(const struct gemm_packing *p, const struct gemm_activation *x, int64_t row, int64_t end,
                     int64_t k0, int64_t kc, unsigned char *to, int64_t stride) {
    if (x->turned) {
        pack_turned(p, x, row, end, k0, kc, to, stride);
        return;
    }
    const int64_t size = dtype_row(x->dtype)->bytes, unit = p->kernel->pairs ? 2 : 4,
                  units = gemm_units(p->kernel, kc), fill = gemm_up(units, p->kernel->group) - units;
    float buffer[gemm_chunk];
    for (int64_t r = row; r < end; r++, to += stride) {
        for (int64_t k = 0; k < kc; k += gemm_chunk) {
            int64_t count = gemm_min(gemm_chunk, kc - k);
            const char *from = (const char *)x->data + (r * x->ld + k0 + k) * size;
            const float *floats = (const float *)(const void *)from;
            if (x->dtype != DTYPE_F32 || x->factor != 1) {
                cpu_row_load(buffer, from, x->dtype, count, p->features);
                for (int64_t i = 0; x->factor != 1 && i < count; i++) buffer[i] *= x->factor;
                floats = buffer;
            }
            store_units(p, to + k * unit, floats, count);
        }
        memset(to + units * 4, 0, (size_t)fill * 4);
    }
}

/* Rows that lie a multiple of 2 KiB apart would share a few sets of the first cache. */
bool gemm_reads_direct(const struct gemm_packing *p, const struct gemm_activation *x, int64_t k) {
    if (x->turned || x->factor != 1 || p->round != DTYPE_F32 ||
        x->dtype != (p->kernel->pairs ? DTYPE_BF16 : DTYPE_F32))
        return false;
    if (p->kernel->pairs && k % 2) return false;
    return x->ld * (int64_t)dtype_row(x->dtype)->bytes % 2048 != 0 || k <= 64;
}
