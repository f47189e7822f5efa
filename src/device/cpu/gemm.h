/* Matrix products on the CPU: a table of implementations, best first; the first that this CPU can run
 * (and that the mask leaves) is taken for a compute type. `doctor` prints the choice and why not the others.
 *
 * One product is cut into pieces by shape; a piece is computed by one thread, with its sum in a fixed
 * order: the same bits on 1, 2, 3, 4 … threads. */
#ifndef HONE_DEVICE_CPU_GEMM_H
#define HONE_DEVICE_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/thread.h"
#include "tensor/stored.h"

/* Which operand order a product has.
 *   GEMM_NT  y[m,n] = α x[m,k] · w[n,k]ᵀ + …   forward
 *   GEMM_NN  y[m,n] = α x[m,k] · w[k,n] + …     gradient of the input
 *   GEMM_TN  y[m,n] = α x[k,m]ᵀ · w[k,n] + …     gradient of a weight; w is an activation there */
enum gemm_form { GEMM_NT, GEMM_NN, GEMM_TN };

enum { gemm_most_rank = 128, gemm_most_together = 4 };

struct gemm {
    enum gemm_form form;
    int64_t m, n, k;
    const void *x; /* f32 or bf16, rows contiguous, row stride in elements ldx */
    enum dtype x_type;
    int64_t ldx;
    const void *w; /* any stored type for NT and NN (rows as stored: n rows of k, or k rows of n); f32 or bf16
                      for TN */
    enum dtype w_type;
    int64_t ldw;                       /* elements between rows */
    const struct stored_part *w_parts; /* [tensor_parts], of a type whose scales lie apart; else NULL */
    void *y;                           /* f32 or bf16 */
    enum dtype y_type;
    int64_t ldy;
    float alpha;
    const void *addend; /* [m,n] added, may be y itself; NULL: none. Row stride ldy */
    enum dtype addend_type;
    const float *bias; /* [n] added to each row, or NULL */
    bool exact;        /* x is not rounded to integers, which few rows beside a weight of integers are */
    /* NT and NN: β low·up is added, a product of the same form with `rank` in the place of k; α is not 0. */
    int64_t rank;    /* at most gemm_most_rank; 0: none */
    const void *low; /* f32 or bf16 [m, rank], rows contiguous */
    enum dtype low_type;
    const void *up; /* [n, rank] for NT, [rank, n] for NN, rows contiguous */
    enum dtype up_type;
    const struct stored_part *up_parts; /* as w_parts: a frozen weight that is narrow enough is folded too */
    float beta;
};

struct gemm_kernel; /* gemm_kernel.h */

struct cpu_gemm {
    const char *name;   /* "avx512bf16", "avx512", "avx2", "c" */
    enum dtype compute; /* f32, bf16 or f16: what products are rounded to before they are multiplied (sums are
                           f32) */
    unsigned needs;     /* CPU features */
    /* Runs products over the pool: one, or up to gemm_most_together NT products of the same x. Must be
     * correct for every shape, m or k = 0 included (y = addend + bias). */
    void (*run)(const struct gemm *gemms, int count, struct pool *pool, void *workspace, unsigned features);
    /* Scratch bytes enough for any product of at most these sizes, and for others of its x beside it. */
    size_t (*workspace)(enum gemm_form form, int64_t m, int64_t n, int64_t k, enum dtype w_type, int threads);
    const struct gemm_kernel *kernel; /* the tiles that it is made of, for who multiplies blocks of its own */
    /* For estimates (fixed.c): decoding and packing w takes as long as this many rows of the product, and
     * handing an operation to the threads as long as this many flops of theirs. */
    double pack_rows, handover;
};

/* The table, best first for each compute type. */
extern const struct cpu_gemm cpu_gemms[];
extern const int cpu_gemm_count;
const struct cpu_gemm *cpu_gemm_select(enum dtype compute, unsigned features);

/* Scratch bytes enough for a product on whichever implementation runs. */
size_t cpu_product_workspace(enum gemm_form form, int64_t m, int64_t n, int64_t k, enum dtype w_type,
                             int threads);

#endif
