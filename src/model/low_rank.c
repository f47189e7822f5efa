#include "model/low_rank.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum {
    exact_side = 1024, /* decomposed in full up to here: half a second */
    panel = 256,       /* rows or columns that are widened to f64 at a time */
    spare = 8,         /* more vectors in a block than are wanted */
    most_blocks = 16,
    first_check = 4 /* blocks before the first look at the residual */
};
static const double residual_wanted = 1e-3; /* of the largest singular value */

/* A matrix seen from its smaller side: `line` i of `side` has `length` numbers. */
struct view {
    const float *w;
    int64_t side, length;
    bool wide; /* lines are the rows of w; else its columns */
};

/* Triplets of a view: x [rank, side] orthonormal, t [rank, length] = x · lines, largest ‖t‖ first; f64. */
struct triplets {
    double *x, *t;
};

static int as_int(int64_t n) { return (int)n; } /* the bounds of a model's configuration are far below 2³¹ */

static bool failed(lapack_int info, struct error *err) {
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR)
        return error_no_memory(err, "adapter", 0);
    return error_set(err, ERROR_INPUT, "adapter",
                     "a weight holds a number that is not finite, and cannot be decomposed");
}

/* Positions [first, first + count) of all lines, as f64: out [side, count], or [count, side] where w is tall:
 * as they lie. */
static void widen(const struct view *v, int64_t first, int64_t count, double *out) {
    int64_t rows = v->wide ? v->side : count, columns = v->wide ? count : v->side;
    const float *from = v->wide ? v->w + first : v->w + first * v->side;
    int64_t stride = v->wide ? v->length : v->side;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) out[r * columns + c] = (double)from[r * stride + c];
}

static int64_t panel_at(const struct view *v, int64_t first) {
    return v->length - first < panel ? v->length - first : panel;
}

/* gram [side, side] = lines · linesᵀ, its lower half. */
static void gram_of(const struct view *v, double *wide, double *gram) {
    int side = as_int(v->side);
    memset(gram, 0, (size_t)(v->side * v->side) * sizeof *gram);
    for (int64_t at = 0; at < v->length; at += panel) {
        int count = as_int(panel_at(v, at));
        widen(v, at, count, wide);
        cblas_dsyrk(CblasRowMajor, CblasLower, v->wide ? CblasNoTrans : CblasTrans, side, count, 1, wide,
                    v->wide ? count : side, 1, gram, side);
    }
}

/* t = x · lines. */
static void project(const struct view *v, int64_t rank, double *wide, struct triplets *out) {
    int side = as_int(v->side), length = as_int(v->length);
    for (int64_t at = 0; at < v->length; at += panel) {
        int count = as_int(panel_at(v, at));
        widen(v, at, count, wide);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, v->wide ? CblasNoTrans : CblasTrans, as_int(rank), count,
                    side, 1, out->x, side, wide, v->wide ? count : side, 0, out->t + at, length);
    }
}

/* LAPACK sorts by rising eigenvalue. */
static void turn_round(double *rows, int64_t count, int64_t size) {
    for (int64_t i = 0; i < count / 2; i++)
        for (int64_t j = 0; j < size; j++) {
            double other = rows[i * size + j];
            rows[i * size + j] = rows[(count - 1 - i) * size + j];
            rows[(count - 1 - i) * size + j] = other;
        }
}

/* From the eigenvectors of the Gram matrix. */
static bool find_exactly(const struct view *v, int64_t rank, struct triplets *out, struct error *err) {
    size_t side = (size_t)v->side;
    double *gram = mem_pages(side * side, sizeof *gram), *wide = mem_pages(side * panel, sizeof *wide);
    double *values = mem_pages(side, sizeof *values);
    lapack_int *support = mem_pages(2 * side, sizeof *support), found = 0, n = as_int(v->side);
    bool ok = (gram && wide && values && support) || error_no_memory(err, "adapter", side * side * 8);
    if (ok) {
        gram_of(v, wide, gram);
        /* The lower half row by row is the upper one column by column. */
        lapack_int info = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', n, gram, n, 0, 0,
                                         n - as_int(rank) + 1, n, 0, &found, values, out->x, n, support);
        ok = info == 0 || failed(info, err);
    }
    if (ok) {
        turn_round(out->x, rank, v->side);
        project(v, rank, wide, out);
    }
    mem_pages_free(gram);
    mem_pages_free(wide);
    mem_pages_free(values);
    mem_pages_free(support);
    return ok;
}

/* ---- large matrices ---- */

/* Orthonormal blocks q [blocks · block, side] that span the Krylov space of lines · linesᵀ, and p = q · lines
 * [blocks · block, length]. */
struct krylov {
    const struct view *v;
    int64_t block, blocks, most, rank;
    float *q, *p, *mixed; /* mixed: [most · block, block], products of a new block with all before it */
    float *tau;
};

static bool krylov_open(struct krylov *k, const struct view *v, const struct low_rank *shape,
                        struct error *err) {
    int64_t block = shape->rank + spare, wanted = shape->steps ? shape->steps + 1 : most_blocks;
    if (block > v->side) block = v->side;
    if (wanted > v->side / block) wanted = v->side / block;
    *k = (struct krylov){.v = v, .block = block, .most = wanted, .rank = shape->rank};
    size_t vectors = (size_t)(wanted * block);
    k->q = mem_pages(vectors, (size_t)v->side * sizeof *k->q);
    k->p = mem_pages(vectors, (size_t)v->length * sizeof *k->p);
    k->mixed = mem_pages(vectors, (size_t)block * sizeof *k->mixed);
    k->tau = mem_pages((size_t)block, sizeof *k->tau);
    return (k->q && k->p && k->mixed && k->tau) || error_no_memory(err, "adapter", vectors * 8);
}

static void krylov_close(struct krylov *k) {
    mem_pages_free(k->q);
    mem_pages_free(k->p);
    mem_pages_free(k->mixed);
    mem_pages_free(k->tau);
}

static void draw_first(struct krylov *k) {
    for (int64_t i = 0; i < k->block * k->v->side; i += 2) {
        const uint32_t counter[4] = {(uint32_t)(i / 2), 0, 0, 0xfffffffcu};
        uint32_t words[4];
        double pair[2];
        philox(0, counter, words);
        normal_pair(words, pair);
        for (int64_t j = 0; j < 2 && i + j < k->block * k->v->side; j++) k->q[i + j] = (float)pair[j];
    }
}

/* Makes the newest block orthonormal, and orthogonal to those before it. */
static bool orthonormalise(struct krylov *k, struct error *err) {
    int side = as_int(k->v->side), block = as_int(k->block), before = as_int(k->blocks * k->block);
    float *fresh = k->q + k->blocks * k->block * k->v->side;
    for (int pass = 0; pass < 2; pass++) { /* once leaves what rounding makes of nearly dependent vectors */
        if (before) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, block, before, side, 1, fresh, side, k->q,
                        side, 0, k->mixed, before);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, block, side, before, -1, k->mixed, before,
                        k->q, side, 1, fresh, side);
        }
        lapack_int info = LAPACKE_sgeqrf(LAPACK_COL_MAJOR, side, block, fresh, side, k->tau);
        if (!info) info = LAPACKE_sorgqr(LAPACK_COL_MAJOR, side, block, block, fresh, side, k->tau);
        if (info) return failed(info, err);
    }
    return true;
}

/* y [count, length] = x [count, side] · lines, or back: y [count, side] = x [count, length] · linesᵀ. */
static void multiply(const struct view *v, const float *x, int64_t count, bool back, float *y) {
    int from = as_int(back ? v->length : v->side), to = as_int(back ? v->side : v->length);
    bool transposed = v->wide == back;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, as_int(count), to, from,
                1, x, from, v->w, as_int(v->wide ? v->length : v->side), 0, y, to);
}

/* The best triplets within the space: of p, whose lines are few. */
static bool find_in_space(const struct krylov *k, struct triplets *out, struct error *err) {
    int64_t vectors = k->blocks * k->block;
    const struct view inner = {.w = k->p, .side = vectors, .length = k->v->length, .wide = true};
    struct triplets found = {.x = mem_pages((size_t)(k->rank * vectors), sizeof *found.x), .t = out->t};
    bool ok = found.x || error_no_memory(err, "adapter", (uint64_t)vectors * 8);
    ok = ok && find_exactly(&inner, k->rank, &found, err);
    for (int64_t i = 0; ok && i < k->rank; i++)
        for (int64_t s = 0; s < k->v->side; s++) out->x[i * k->v->side + s] = 0;
    for (int64_t i = 0; ok && i < k->rank; i++)
        for (int64_t j = 0; j < vectors; j++)
            for (int64_t s = 0; s < k->v->side; s++)
                out->x[i * k->v->side + s] += found.x[i * vectors + j] * (double)k->q[j * k->v->side + s];
    mem_pages_free(found.x);
    return ok;
}

static double norm_of(const double *t, int64_t length) { return cblas_dnrm2(as_int(length), t, 1); }

/* The largest ‖lines · v - σ x‖ of the triplets, in σ₁; v = t / σ. */
static bool residual_of(const struct krylov *k, const struct triplets *found, double *out,
                        struct error *err) {
    int64_t side = k->v->side, length = k->v->length;
    float *unit = mem_pages((size_t)(k->rank * length), sizeof *unit),
          *image = mem_pages((size_t)(k->rank * side), sizeof *image);
    double first = norm_of(found->t, length), worst = 0;
    bool ok = (unit && image) || error_no_memory(err, "adapter", (uint64_t)(k->rank * length) * 4);
    for (int64_t i = 0; ok && i < k->rank; i++) {
        double sigma = norm_of(found->t + i * length, length);
        for (int64_t j = 0; j < length; j++)
            unit[i * length + j] = sigma > 0 ? (float)(found->t[i * length + j] / sigma) : 0;
    }
    if (ok) multiply(k->v, unit, k->rank, true, image);
    for (int64_t i = 0; ok && i < k->rank; i++) {
        double sigma = norm_of(found->t + i * length, length), squares = 0;
        for (int64_t s = 0; s < side; s++) {
            double d = (double)image[i * side + s] - sigma * found->x[i * side + s];
            squares += d * d;
        }
        if (sqrt(squares) > worst) worst = sqrt(squares);
    }
    *out = first > 0 ? worst / first : 0;
    mem_pages_free(unit);
    mem_pages_free(image);
    return ok;
}

static bool find_by_krylov(const struct view *v, const struct low_rank *shape, struct triplets *out,
                           struct error *err) {
    struct krylov k;
    double residual = INFINITY;
    bool ok = krylov_open(&k, v, shape, err);
    if (ok) draw_first(&k);
    while (ok && k.blocks < k.most && residual > residual_wanted) {
        float *q = k.q + k.blocks * k.block * v->side, *p = k.p + k.blocks * k.block * v->length;
        if (k.blocks) multiply(v, p - k.block * v->length, k.block, true, q);
        ok = orthonormalise(&k, err);
        if (!ok) break;
        multiply(v, q, k.block, false, p);
        k.blocks++;
        if (shape->steps || k.blocks < first_check || k.blocks % 2) continue;
        ok = find_in_space(&k, out, err) && residual_of(&k, out, &residual, err);
    }
    ok = ok && (residual <= residual_wanted || find_in_space(&k, out, err));
    krylov_close(&k);
    return ok;
}

/* ---- the factors ---- */

static bool is_exact(const struct low_rank *shape) {
    int64_t side = shape->rows < shape->columns ? shape->rows : shape->columns;
    return !shape->steps && (side <= exact_side || side <= 8 * shape->rank);
}

/* The sign that makes the largest number of u positive. */
static double sign_of(const double *u, int64_t n) {
    size_t at = cblas_idamax(as_int(n), u, 1);
    return u[at] < 0 ? -1 : 1;
}

bool low_rank_svd(const struct low_rank *shape, const float *w, double scale, float *b, float *a,
                  struct error *err) {
    bool wide = shape->rows <= shape->columns;
    const struct view v = {w, wide ? shape->rows : shape->columns, wide ? shape->columns : shape->rows, wide};
    struct triplets found = {.x = mem_pages((size_t)(v.side * shape->rank), sizeof *found.x),
                             .t = mem_pages((size_t)(v.length * shape->rank), sizeof *found.t)};
    bool ok = (found.x && found.t) || error_no_memory(err, "adapter", (uint64_t)(v.length * shape->rank) * 8);
    ok = ok && (is_exact(shape) ? find_exactly(&v, shape->rank, &found, err)
                                : find_by_krylov(&v, shape, &found, err));
    for (int64_t i = 0; ok && i < shape->rank; i++) {
        const double *x = found.x + i * v.side, *t = found.t + i * v.length;
        double sigma = norm_of(t, v.length), root = sqrt(sigma / scale);
        double of_t = sigma > 0 ? root / sigma : 0;
        double sign = wide ? sign_of(x, v.side) : sign_of(t, v.length);
        for (int64_t r = 0; r < shape->rows; r++)
            b[r * shape->rank + i] = (float)(sign * (wide ? root * x[r] : of_t * t[r]));
        for (int64_t c = 0; c < shape->columns; c++)
            a[i * shape->columns + c] = (float)(sign * (wide ? of_t * t[c] : root * x[c]));
    }
    mem_pages_free(found.x);
    mem_pages_free(found.t);
    return ok;
}

bool low_rank_qr(const struct low_rank *shape, const float *w, float *b, float *a, struct error *err) {
    int rows = as_int(shape->rows), columns = as_int(shape->columns), rank = as_int(shape->rank);
    float *q = mem_pages((size_t)(shape->rows * shape->rank), sizeof *q),
          *tau = mem_pages((size_t)rank, sizeof *tau);
    bool ok = (q && tau) || error_no_memory(err, "adapter", (uint64_t)(shape->rows * shape->rank) * 4);
    /* The first columns of q depend on the first columns of w alone. */
    for (int64_t r = 0; ok && r < shape->rows; r++)
        for (int64_t c = 0; c < shape->rank; c++) q[c * shape->rows + r] = w[r * shape->columns + c];
    lapack_int info = ok ? LAPACKE_sgeqrf(LAPACK_COL_MAJOR, rows, rank, q, rows, tau) : 0;
    if (ok && !info) info = LAPACKE_sorgqr(LAPACK_COL_MAJOR, rows, rank, rank, q, rows, tau);
    ok = ok && (!info || failed(info, err));
    if (ok) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rank, columns, rows, 1, q, rows, w, columns, 0,
                    a, columns);
        for (int64_t r = 0; r < shape->rank; r++)
            for (int64_t c = 0; c < r; c++) a[r * shape->columns + c] = 0;
        for (int64_t r = 0; r < shape->rows; r++)
            for (int64_t c = 0; c < shape->rank; c++) b[r * shape->rank + c] = q[c * shape->rows + r];
    }
    mem_pages_free(q);
    mem_pages_free(tau);
    return ok;
}

uint64_t low_rank_bytes(const struct low_rank *shape) {
    bool wide = shape->rows <= shape->columns;
    uint64_t side = (uint64_t)(wide ? shape->rows : shape->columns),
             length = (uint64_t)(wide ? shape->columns : shape->rows), rank = (uint64_t)shape->rank;
    uint64_t found = rank * (side + length) * 8;
    if (is_exact(shape)) return found + side * (side + panel + 64) * 8;
    uint64_t block = rank + spare < side ? rank + spare : side, most = side / block,
             wanted = shape->steps ? (uint64_t)shape->steps + 1 : most_blocks;
    uint64_t vectors = block * (wanted < most ? wanted : most);
    return found + vectors * (side + length + block) * 4 + vectors * (vectors + panel + 64 + rank) * 8 +
           rank * (side + length) * 4;
}

double low_rank_flops(const struct low_rank *shape) {
    double rows = (double)shape->rows, columns = (double)shape->columns, rank = (double)shape->rank;
    double side = rows < columns ? rows : columns, length = rows < columns ? columns : rows;
    if (is_exact(shape)) return side * side * length + 3 * side * side * side + 2 * rank * side * length;
    double blocks = shape->steps ? shape->steps + 1 : most_blocks, block = rank + spare;
    if (blocks > side / block) blocks = side / block;
    return 4 * blocks * block * side * length + 4 * blocks * blocks * block * block * side;
}
