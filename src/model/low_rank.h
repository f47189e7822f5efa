/* The part of low rank of a matrix: its largest singular triplets, or the first columns of its QR
 * decomposition, as the two factors of an adapter. The decompositions of small matrices are LAPACK's.
 *
 * A matrix is f32, row by row. What is computed depends on the matrix and the arguments alone: neither on
 * threads nor on a seed. */
#ifndef HONE_MODEL_LOW_RANK_H
#define HONE_MODEL_LOW_RANK_H

#include <stdint.h>

#include "base/error.h"

struct low_rank {
    int64_t rows, columns, rank; /* rank ≤ both */
    /* How exactly singular triplets are found. 0: a smaller side of up to 1024 (or 8 · rank) in full, from
     * the eigenvectors of the Gram matrix in f64; a larger one by a block Krylov method (Musco and Musco
     * 2015) until ‖W v - σ u‖ ≤ 1e-3 σ₁ for each, in at most 16 blocks of rank + 8. Else: so many blocks
     * behind the first, whatever that gives: at least as good as as many iterations of a randomised SVD
     * (PEFT's pissa_niter_N), and cheaper than all of it. */
    int steps;
};

/* w ≈ scale · b a, the nearest that there is of this rank: with the singular value decomposition
 * w = u diag(σ) v: a [rank, columns] = √(σ / scale) v, b [rows, rank] = u √(σ / scale). The largest number of
 * each column of u is positive. Errors: ERROR_INPUT where w holds a number that is not finite. */
bool low_rank_svd(const struct low_rank *shape, const float *w, double scale, float *b, float *a,
                  struct error *err);

/* w = q r: a = the first `rank` rows of r, b = the first columns of q, with LAPACK's (and so PyTorch's)
 * signs. */
bool low_rank_qr(const struct low_rank *shape, const float *w, float *b, float *a, struct error *err);

/* What either takes beside w, a and b, at most: bytes, and floating-point operations. */
uint64_t low_rank_bytes(const struct low_rank *shape);
double low_rank_flops(const struct low_rank *shape);

#endif
