/* What an instruction set brings to a matrix product, and what the shared driver (gemm_drive.c) makes of it.
 *
 * A product is x·w with w packed into panels: `columns` outputs wide, [steps][columns] units of 32 bits,
 * where a unit is one f32 or a pair of bf16 that are neighbours along k. Rows of x are read as they lie, or
 * from a converted copy with the same unit. A tile of rows × columns stays in registers for a whole group of
 * k. */
#ifndef HONE_DEVICE_CPU_GEMM_KERNEL_H
#define HONE_DEVICE_CPU_GEMM_KERNEL_H

#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"

enum {
    gemm_most_rows = 32,    /* of any tile */
    gemm_most_columns = 32, /* of any panel */
    gemm_few_rows = 8,      /* NT products with no more rows go the decoding way */
    gemm_few_streams = 4,   /* places of w that it reads at once, far apart: a processor's own prefetching
                               follows   each, and does not where neighbouring rows alternate */
    gemm_few_count = 32,    /* rows of each stream at once */
    gemm_few_ahead = 2048,  /* bytes of a stream that are asked for ahead */
    gemm_few_width = gemm_few_streams * gemm_few_count,
    gemm_narrow_width = 64, /* TN products with no more rows or columns are not packed */
    gemm_narrow_k = 128,    /* at once */
    gemm_narrow_pairs = 96, /* columns of the wide side at once, where they are pairs */
};

/* A finished tile and where it goes. */
struct gemm_tile {
    const struct gemm *gemm;
    const float *tile; /* [rows][stride] */
    const float *low;  /* the same of the product of low rank, or NULL */
    int64_t stride, row, column;
    int rows, columns;
    bool first, last; /* group of k */
    float *sums; /* where partial sums wait when y cannot hold them; NULL: in y. Row stride sums_stride */
    int64_t sums_stride;
    unsigned features;
};

/* Four neighbouring blocks of 32 integers, each 256 high + low; [0] has elements 0..15 of the four blocks,
 * [1] 16..31. Of each block: its factor, the factor times the sum of its integers, the factor, 0. */
struct gemm_quad {
    uint8_t low[2][64];
    int8_t high[2][64];
    float factors[16];
};

/* Few rows of x against rows of w in their stored type. */
struct gemm_few {
    struct stored stored;   /* w */
    const unsigned char *w; /* its codes */
    size_t row_bytes;
    enum dtype w_type;
    unsigned features;
    const float *x; /* [rows, ldx] f32; zeros from k to the next multiple of 32, which is ldx */
    int64_t ldx, k;
    int rows; /* 1, 2, 4 or 8 */
    /* Where gemm_few_integers(w_type) and the kernel has `round`; else NULL. Of each block of 32 along k:
     * each row's integers; its factor, and the factor times the sum of its integers (zeros behind the last
     * row). */
    const int16_t *ints;  /* [k / 32][rows][32] */
    const float *factors; /* [k / 32][rows, as a multiple of 4][2] */
    /* Instead of both where gemm_few_quads(w_type) and the kernel has `round_quads`: [k / 128, up][rows]. */
    const struct gemm_quad *quads;
};

/* Types whose products with few rows are sums of integers. */
static inline bool gemm_few_integers(enum dtype dtype) {
    return dtype == DTYPE_Q4_0 || dtype == DTYPE_Q4_1 || dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1 ||
           dtype == DTYPE_Q8_0;
}

/* Those of them that some kernels take four blocks of at once. */
static inline bool gemm_few_quads(enum dtype dtype) { return dtype == DTYPE_Q4_0 || dtype == DTYPE_Q4_1; }

/* Some rows of x: `stride` bytes apart, `steps` units of each. */
struct gemm_rows {
    const void *at;
    int64_t stride, steps;
};

struct gemm_kernel {
    int rows, columns;
    bool pairs; /* units are pairs of bf16 */
    int group;  /* steps that are multiplied at once: others are filled up, which takes time */
    /* out[rows][kernel columns] = x[0] b + x[1] b', where b' are the steps of the panel behind those of
     * x[0]; x[1].steps may be 0. `columns` that are wanted. */
    void (*tile)(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out);
    /* out += a b, whole vectors of out's rows, which are out_stride floats apart. NULL when units are f32. */
    void (*tile_add)(int rows, int columns, const void *a, int64_t stride, const void *b, int64_t steps,
                     float *out, int64_t out_stride);
    /* A thread calls it behind the last tile of a task. NULL: tiles leave nothing behind. */
    void (*leave)(void);
    /* to[i][0..16) = from[0..16)[i], i < count; strides in units. */
    void (*transpose)(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride, int64_t count);
    void (*finish)(const struct gemm_tile *tile);
    /* to[j] = even[j], odd[j] rounded to bf16. NULL when units are f32. */
    void (*pair)(const float *even, const float *odd, uint32_t *to, int64_t count);
    /* The same of numbers that are bf16 already, into panels `apart` units apart; `count` is a multiple of
     * 16. */
    void (*weave)(const uint16_t *even, const uint16_t *odd, uint32_t *to, int64_t count, int64_t apart);
    /* sums[i][j] += Σ a[k][i] b[k][j]; rows <= 16, columns <= 64; sums has row stride 64. */
    void (*narrow)(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t k,
                   float *sums);
    /* The same of numbers rounded to bf16: a by this, b already. k <= gemm_narrow_k, columns <=
     * gemm_narrow_pairs, which is the row stride of sums; all of its rows up to the next multiple of 16 may
     * be written. NULL when units are f32. */
    void (*narrow_pairs)(int rows, int columns, const float *a, int64_t lda, const uint16_t *b, int64_t ldb,
                         int64_t k, float *sums);
    /* sums[i * gemm_few_width + s * gemm_few_count + j] = x[i] · w[first + s * apart + j], j < count, for
     * each stream s < streams, which is 1 or gemm_few_streams. */
    void (*few)(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                float *sums);
    /* Rounds few->x to blocks of 16-bit integers. NULL: `few` reads x as it is for every type. */
    void (*round)(const struct gemm_few *few, int16_t *ints, float *factors);
    void (*round_quads)(const struct gemm_few *few, struct gemm_quad *quads); /* NULL: as other integers */
};

extern const struct gemm_kernel gemm_kernel_c;
#if defined(__x86_64__)
extern const struct gemm_kernel gemm_kernel_avx2, gemm_kernel_avx512, gemm_kernel_avx512bf16, gemm_kernel_amx;
void gemm_few_avx512(const struct gemm_few *few, int64_t first, int64_t apart, int streams, int count,
                     float *sums);
void gemm_round_avx512(const struct gemm_few *few, int16_t *ints, float *factors);
void gemm_round_quads_avx512(const struct gemm_few *few, struct gemm_quad *quads);
void gemm_narrow_avx512(int rows, int columns, const float *a, int64_t lda, const float *b, int64_t ldb,
                        int64_t k, float *sums);
void gemm_narrow_avx512bf16(int rows, int columns, const float *a, int64_t lda, const uint16_t *b,
                            int64_t ldb, int64_t k, float *sums);
#endif

/* `round`: what operands are rounded to although units are f32; f32: nothing. */
void gemm_drive(const struct gemm_kernel *kernel, enum dtype round, const struct gemm *gemms, int count,
                struct pool *pool, void *workspace, unsigned features);
size_t gemm_drive_workspace(const struct gemm_kernel *kernel, int64_t m, int64_t n, int64_t k, int threads);

/* The ways beside the packed one (gemm_few.c, gemm_narrow.c). */
void gemm_run_few(const struct gemm_kernel *kernel, const struct gemm *gemms, int count, struct pool *pool,
                  void *workspace, unsigned features);
size_t gemm_few_workspace(int64_t k);
void gemm_run_narrow(const struct gemm_kernel *kernel, const struct gemm *gemm, struct pool *pool,
                     unsigned features);

/* Runs tasks on the pool, or here when the product is too small to wake threads for. */
void gemm_tasks(int64_t multiplications, struct pool *pool, int tasks, pool_task run, void *user);

static inline int64_t gemm_row_bytes(enum dtype dtype, int64_t elements) {
    const struct dtype_row *row = dtype_row(dtype);
    return elements / row->block * row->bytes;
}
static inline int64_t gemm_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t gemm_up(int64_t a, int64_t b) { return gemm_ceil(a, b) * b; }
/* Units of `k` neighbouring elements. */
static inline int64_t gemm_units(const struct gemm_kernel *kernel, int64_t k) {
    return kernel->pairs ? gemm_ceil(k, 2) : k;
}
static inline int64_t gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t gemm_max(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
