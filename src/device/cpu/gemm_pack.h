/* Packing the operands of a product: w into panels, x into blocks of rows (layouts: gemm_kernel.h). */
#ifndef HONE_DEVICE_CPU_GEMM_PACK_H
#define HONE_DEVICE_CPU_GEMM_PACK_H

#include "device/cpu/gemm_kernel.h"

enum { gemm_chunk = 256 }; /* elements decoded at a time: stays in the first cache */

struct gemm_packing {
    const struct gemm_kernel *kernel;
    enum dtype round; /* f32: as they are */
    unsigned features;
};

/* Stored rows of w: n of them for NT, k for NN and TN. */
struct gemm_weight {
    struct stored stored;
    int64_t row_bytes, rows;
};

/* Rows of x; `turned`: stored [k, m]. */
struct gemm_activation {
    const void *data;
    enum dtype dtype;
    int64_t ld;
    bool turned;
    float factor; /* of each number, unless it is turned */
};

/* The operands of a product, and of the one of low rank beside it. */
struct gemm_operands {
    struct gemm_weight w, up;
    struct gemm_activation x, low;
};
struct gemm_operands gemm_operands(const struct gemm *gemm);

/* NT: rows [row, row + panel's columns) of w, elements [k0, k0 + kc), become a panel; rows past the last are
 * zeros. */
void gemm_pack_rows(const struct gemm_packing *packing, const struct gemm_weight *w, int64_t row, int64_t k0,
                    int64_t kc, uint32_t *panel);

/* NN and TN: rows [row, end) of w, columns [n0, n0 + nc), become steps of the panels from `panels` on,
 * `panel_bytes` apart; the first of them is step 0. */
void gemm_pack_slab(const struct gemm_packing *packing, const struct gemm_weight *w, int64_t row, int64_t end,
                    int64_t n0, int64_t nc, unsigned char *panels, int64_t panel_bytes);

/* Rows [row, end) of x, elements [k0, k0 + kc), as units, `stride` bytes apart; zeros up to whole groups of
 * units. */
void gemm_pack_block(const struct gemm_packing *packing, const struct gemm_activation *x, int64_t row,
                     int64_t end, int64_t k0, int64_t kc, unsigned char *to, int64_t stride);

/* Whether the kernel can read rows of x where they lie, `k` elements each. */
bool gemm_reads_direct(const struct gemm_packing *packing, const struct gemm_activation *x, int64_t k);

#endif
