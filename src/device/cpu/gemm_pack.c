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
        .x = {g->x, g->x_type, g->ldx, g->form == GEMM_TN},
        .low = {g->low, g->low_type, g->rank, false},
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

/* Sixteen rows of w (or fewer, then zeros) become sixteen columns of a panel. */
static void pack_sixteen(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row, int64_t k0,
                         int64_t kc, uint32_t *to) {
    const struct gemm_kernel *kernel = p->kernel;
    const int64_t stride = gemm_chunk + 16;
    float decoded[16 * (gemm_chunk + 16)];
    uint16_t halves[16 * 2 * (gemm_chunk / 2 + 16)];
    int64_t rows = gemm_max(0, gemm_min(16, w->rows - row));
    bool as_it_lies = rows == 16 && !kernel->pairs && p->round == DTYPE_F32 && w->stored.dtype == DTYPE_F32;
    if (rows < 16) {
        memset(decoded, 0, sizeof decoded);
        memset(halves, 0, sizeof halves);
    }
    for (int64_t k = 0; k < kc; k += gemm_chunk) {
        int64_t count = gemm_min(gemm_chunk, kc - k);
        for (int64_t r = 0; !as_it_lies && r < rows; r++) {
            cpu_stored_load(decoded + r * stride, &w->stored, row + r, k0 + k, count, p->features);
            round_row(p, decoded + r * stride, count);
            if (!kernel->pairs) continue;
            uint16_t *half = halves + r * stride;
            cpu_row_store(half, decoded + r * stride, DTYPE_BF16, count, p->features);
            half[count] = 0;
        }
        const void *source = as_it_lies      ? (const void *)stored_codes(&w->stored, row, k0 + k)
                             : kernel->pairs ? (const void *)halves
                                             : decoded;
        int64_t units = gemm_units(kernel, count), apart = as_it_lies      ? w->stored.columns
                                                           : kernel->pairs ? stride / 2
                                                                           : stride;
        kernel->transpose(source, apart, to + gemm_units(kernel, k) * kernel->columns, kernel->columns,
                          units);
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

/* Rows [k, n] of w are rows of the panels already. */
void gemm_pack_slab(const struct gemm_packing *p, const struct gemm_weight *w, int64_t row, int64_t end,
                    int64_t n0, int64_t nc, unsigned char *panels, int64_t panel_bytes) {
    const int width = p->kernel->columns, pair = p->kernel->pairs ? 2 : 1;
    float even[gemm_chunk], odd[gemm_chunk];
    uint32_t units[gemm_chunk];
    for (int64_t c = 0; c < nc; c += gemm_chunk) {
        int64_t count = gemm_min(gemm_chunk, nc - c), wide = gemm_up(count, width);
        for (int64_t k = row; k < end; k += pair) {
            const uint32_t *from = (const uint32_t *)(const void *)even;
            load_slab_row(p, w, k, n0 + c, count, even);
            memset(even + count, 0, (size_t)(wide - count) * sizeof *even);
            if (pair == 2) {
                load_slab_row(p, w, k + 1, n0 + c, count, odd);
                memset(odd + count, 0, (size_t)(wide - count) * sizeof *odd);
                p->kernel->pair(even, odd, units, wide);
                from = units;
            }
            int64_t step = (k - row) / pair;
            for (int64_t j = 0; j < wide; j += width) {
                unsigned char *panel = panels + (c + j) / width * panel_bytes;
                memcpy(panel + step * width * 4, from + j, (size_t)width * 4);
            }
        }
    }
}

static void store_units(const struct gemm_packing *p, unsigned char *to, const float *from, int64_t count) {
    if (!p->kernel->pairs) {
        memcpy(to, from, (size_t)count * sizeof *from);
        round_row(p, (float *)(void *)to, count);
        return;
    }
    cpu_row_store(to, from, DTYPE_BF16, count, p->features);
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

/* Sixteen units of k of some rows of m at a time are made as rows of k, then turned. */
static void pack_turned(const struct gemm_packing *p, const struct gemm_activation *x, int64_t row,
                        int64_t end, int64_t k0, int64_t kc, unsigned char *to, int64_t stride) {
    enum { wide = 64 };
    const int pair = p->kernel->pairs ? 2 : 1;
    float even[wide] = {0}, odd[wide] = {0};
    uint32_t units[16 * wide];
    for (int64_t r = row; r < end; r += wide)
        for (int64_t k = 0; k < kc; k += 16 * pair) {
            int64_t rows = gemm_min(wide, end - r);
            for (int u = 0; u < 16; u++) {
                int64_t at = k0 + k + u * pair;
                load_turned(p, x, at, k0 + kc, r, rows, even);
                if (pair == 1) {
                    memcpy(units + u * wide, even, sizeof even);
                    continue;
                }
                load_turned(p, x, at + 1, k0 + kc, r, rows, odd);
                p->kernel->pair(even, odd, units + u * wide, wide);
            }
            uint32_t *out = (uint32_t *)(void *)(to + (r - row) * stride) + k / pair;
            p->kernel->transpose(units, wide, out, stride / 4, rows);
        }
}

void gemm_pack_block(const struct gemm_packing *p, const struct gemm_activation *x, int64_t row, int64_t end,
                     int64_t k0, int64_t kc, unsigned char *to, int64_t stride) {
    if (x->turned) {
        pack_turned(p, x, row, end, k0, kc, to, stride);
        return;
    }
    const int64_t size = dtype_row(x->dtype)->bytes, unit = p->kernel->pairs ? 2 : 4;
    float buffer[gemm_chunk];
    for (int64_t r = row; r < end; r++)
        for (int64_t k = 0; k < kc; k += gemm_chunk) {
            int64_t count = gemm_min(gemm_chunk, kc - k);
            const char *from = (const char *)x->data + (r * x->ld + k0 + k) * size;
            cpu_row_load(buffer, from, x->dtype, count, p->features);
            store_units(p, to + (r - row) * stride + k * unit, buffer, count);
        }
}

/* Rows that lie a multiple of 2 KiB apart would share a few sets of the first cache. */
bool gemm_reads_direct(const struct gemm_packing *p, const struct gemm_activation *x, int64_t k) {
    if (x->turned || p->round != DTYPE_F32 || x->dtype != (p->kernel->pairs ? DTYPE_BF16 : DTYPE_F32))
        return false;
    if (p->kernel->pairs && k % 2) return false;
    return x->ld * (int64_t)dtype_row(x->dtype)->bytes % 2048 != 0 || k <= 64;
}
