/* What the .cu files give to the C files of this device: launches, each one or a few kernels on a stream.
 *
 * Data lie in device memory, 16-byte aligned where rows are read in vectors (the store and the arena align to
 * 64 and more). An array is f32, bf16 or f16 unless its comment says otherwise. Sums are split by shape
 * alone, so that the same bits come from every run. Errors of a launch are found by its caller
 * (cudaGetLastError). */
#ifndef HONE_DEVICE_CUDA_KERNELS_H
#define HONE_DEVICE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#include "op/optimizer.h"
#include "tensor/stored.h"

#if defined(__cplusplus)
extern "C" {
#endif

struct array {
    void *data; /* NULL: absent */
    enum dtype type;
    int64_t stride; /* elements from a row to the next */
};

/* ---- types.cu: stored types ---- */

/* A matrix of any type, with what lies apart from its codes (tensor/stored.h). */
struct matrix {
    struct array codes;
    struct stored_part part[tensor_parts];
    enum dtype_form form; /* with the block, what the type's row says (tensor/dtype.h) */
    int block, bytes;
};

/* y [rows, width] = x. */
void cuda_decode(struct array y, const struct matrix *x, int64_t rows, int64_t width, cudaStream_t stream);
/* y [rows, width] = x[index[row]]. */
void cuda_take_rows(struct array y, const struct matrix *x, const int32_t *index, int64_t rows, int64_t width,
                    cudaStream_t stream);

/* ---- fp8.cu: numbers in e4m3 ---- */

/* Rows with a factor each: x[row] ≈ scales[row] · data[row]. */
struct fp8_rows {
    uint8_t *data;
    int64_t stride;
    float *scales;
};
/* width a multiple of 8 */
void cuda_fp8_rows(const struct fp8_rows *y, struct array x, int64_t rows, int64_t width,
                   cudaStream_t stream);
/* w [n, k] and wᵀ [k, n] with one factor, which stands in each of scales [max(n, k)]. */
struct fp8_weight {
    uint8_t *codes, *transposed;
    float *scales;
    int64_t stride, transposed_stride;
};
void cuda_fp8_weight(const struct fp8_weight *y, const struct matrix *x, int64_t rows, int64_t width,
                     cudaStream_t stream);
/* Puts low [rows, rank] behind rows of x and factor · up behind the rows of w, `extra` numbers each, a
 * multiple of 4: element (column, r) of up at column · along + r · across. largest: [1] of scratch. */
struct fp8_tails {
    uint8_t *x, *w;
    int64_t x_stride, w_stride;
    const float *x_scales, *w_scales;
    unsigned *largest;
    struct array low, up;
    int64_t along, across;
    float factor;
    int64_t rows, columns;
    int rank, extra;
};
void cuda_fp8_tails(const struct fp8_tails *tails, cudaStream_t stream);
/* x [rows]: the parts' rows side by side, times their factors and that of their weight relative to the first;
 * w [columns]: the weights' rows side by side. */
enum { fp8_most_joined = 3 };
struct fp8_part {
    struct array x;
    const uint8_t *w;
    int64_t w_stride;
    const float *w_scale;
    float factor;
    int64_t width; /* a multiple of 16 */
};
struct fp8_join {
    struct fp8_part part[fp8_most_joined];
    int count;
    int64_t rows, columns;
    struct fp8_rows x;
    uint8_t *w;
    int64_t w_stride;
};
void cuda_fp8_join(const struct fp8_join *join, cudaStream_t stream);

/* ---- elementwise.cu ---- */

/* dx [tokens, width] = 0, then dx[rows[m]] += dy[m]; rows ascend. */
void cuda_scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count, int64_t tokens,
                  int64_t width, cudaStream_t stream);
void cuda_add(struct array y, struct array a, struct array b, int64_t rows, int64_t width,
              cudaStream_t stream);
/* codes: y once more, or no data; so below, of dgate and dup. */
void cuda_glu(struct array y, const struct fp8_rows *codes, struct array gate, struct array up, int64_t rows,
              int64_t width, cudaStream_t stream);
void cuda_glu_grad(struct array dgate, struct array dup, const struct fp8_rows codes[2], struct array gate,
                   struct array up, struct array dy, int64_t rows, int64_t width, cudaStream_t stream);
/* Dropout, or NEFTune's noise where `start` is there; the words are drawn for each element's place. */
struct drawing {
    struct array y, x;
    const int32_t *positions;
    const uint32_t *examples, *random; /* u32 [4] of INPUT_RANDOM */
    const int32_t *start, *end;        /* of each token's segment; NULL: dropout */
    double probability, alpha;
    bool inverse;
    int module;
    int64_t rows, width;
};
void cuda_draw(const struct drawing *drawing, cudaStream_t stream);
/* y = x; an activation's rows. */
void cuda_copy(struct array y, struct array x, int64_t rows, int64_t width, cudaStream_t stream);
void cuda_rope_table(float *table, const int32_t *positions, const float *frequencies, int64_t rows,
                     int64_t half, cudaStream_t stream);
void cuda_rope(struct array y, struct array x, const float *table, bool inverse, int64_t rows, int64_t heads,
               int64_t head_dim, cudaStream_t stream);

/* to [rows, columns] bf16 = factor · from [from_rows, from_columns], zero beyond that. */
void cuda_tail(void *to, int64_t to_stride, int64_t rows, int64_t columns, struct array from,
               int64_t from_rows, int64_t from_columns, float factor, cudaStream_t stream);

/* ---- likeliest.cu ---- */

/* ids[m]: the first of the largest of row m of x [rows, width] f32; NaN is never larger. clusters: the GPU
 * has them (cuda_is_hopper). */
void cuda_likeliest(int32_t *ids, struct array x, int64_t rows, int64_t width, bool clusters,
                    cudaStream_t stream);

/* ---- dora.cu ---- */

/* y = z · m / n + bias + addend, each of the last two absent or not; backward y is dz. */
struct rescale {
    struct array y, z, dy, bias, addend;
    const float *m, *n;
    int64_t rows, width;
};
void cuda_rescale(const struct rescale *rescale, cudaStream_t stream);
/* dz = dy · m / n, dm += Σ dy · z / n (NULL: not wanted); sums [cuda_rescale_bands(rows), width] is scratch.
 */
int64_t cuda_rescale_bands(int64_t rows);
void cuda_rescale_grad(const struct rescale *rescale, float *dm, float *sums, cudaStream_t stream);
/* n [rows] = ‖w + alpha b a‖ of rows; a [rank, width], b [rows, rank]. */
void cuda_row_norms(float *n, const struct matrix *w, const float *a, const float *b, float alpha,
                    int64_t rows, int64_t width, int64_t rank, cudaStream_t stream);

/* ---- norm.cu ---- */

/* w of any type; rstd may be NULL; codes: y or dx once more, or no data. */
void cuda_norm(struct array y, const struct fp8_rows *codes, float *rstd, struct array x, struct array w,
               float epsilon, int64_t rows, int64_t width, cudaStream_t stream);
/* The copy, of another type than dx, may be absent. */
void cuda_norm_grad(struct array dx, const struct fp8_rows *codes, struct array copy, struct array dy,
                    struct array x, struct array w, const float *rstd, struct array addend, int64_t rows,
                    int64_t width, cudaStream_t stream);

/* ---- gradients.cu ---- */

/* sums [width] += Σ_t dy[t] (· x[t] · rstd[t], where x is there) */
void cuda_column_sums(float *sums, struct array dy, struct array x, const float *rstd, int64_t rows,
                      int64_t width, cudaStream_t stream);
/* dw[ids[t]] += dy[t] */
void cuda_embedding_grad(struct array dw, struct array dy, const int32_t *ids, int64_t tokens, int64_t width,
                         cudaStream_t stream);

/* ---- thin.cu ---- */

/* y [rows, columns] = beta low up + bias + addend, each absent or not; element (r, c) of up [rank, columns]
 * at r · along + c · across; bias [columns] and up of any plain type. y may lie on addend. */
struct thin {
    struct array y, low, up, bias, addend;
    float beta;
    int64_t rows, columns, rank, along, across;
};
void cuda_thin(const struct thin *thin, cudaStream_t stream);
/* ---- pass.cu: one reading of wide rows for all the products of low rank that need them ---- */

enum { pass_ranks = 16, pass_most = 3 };
/* What the rows v [rows, width] are; stored as bf16 where nothing else is said. The width is a multiple of
 * 8. */
enum pass_kind {
    PASS_ROWS,    /* in[0], bf16, or f32 where there are sums across; its copy in bf16 goes to out[0], which
                     may be absent */
    PASS_NORM,    /* in[0] · rstd · weight, of f32; not written */
    PASS_GLU,     /* silu(in[0]) · in[1], written to out[0] */
    PASS_GLU_GRAD /* dgate and dup, written to out[0] and out[1], and silu(gate) · up; of gate, up, dy. out[i]
                     may lie on in[i] */
};
/* Products along the rows, sums[t, r] = Σ_c v[t, c] f[c, r], and across them, sums[c, r] = Σ_t v[t, c]
 * f[t, r], in parts of the sum. */
struct pass_factor {
    struct array numbers; /* f32 or bf16, (i, r) at i · numbers.stride + r · column; absent: zeros */
    int64_t column;
    int rank;    /* up to pass_ranks */
    float *sums; /* [parts, rows or width, pass_ranks]; NULL: not wanted */
};
/* along and across: of PASS_ROWS `alongs` and `acrosses` of one v, where both are there as many; of PASS_NORM
 * `acrosses`; of PASS_GLU one along; of PASS_GLU_GRAD along of dgate and dup, across of all three. */
struct pass {
    enum pass_kind kind;
    struct array in[3], out[2], weight; /* [width] */
    const float *rstd;                  /* [rows] */
    int64_t rows, width;
    int alongs, acrosses;
    struct pass_factor along[pass_most], across[pass_most];
};
void cuda_pass(const struct pass *pass, cudaStream_t stream);
/* Into how many parts the sums along and across are split. */
int64_t cuda_pass_along_parts(const struct pass *pass);
int64_t cuda_pass_across_parts(const struct pass *pass);
/* y(i, r) = factor · Σ_parts sums[part, i, r] (+ y), y(i, r) at i · row + r · column. */
struct pass_sum {
    const float *sums;
    int64_t parts, rows;
    int rank;
    struct array y;
    int64_t row, column;
    float factor;
    bool adds;
};
void cuda_pass_sums(const struct pass_sum *sums, int count, cudaStream_t stream); /* up to pass_most + 1 */

/* ---- few.cu ---- */

enum { cuda_few_rows = 8 }; /* of x that one reading of w serves */
/* When the launch may begin: after the one before it; before that has ended, where w is there already (the
 * store has it, and the program does not write it); or beside it, where that is such a product as well, of
 * the same x. */
enum few_start { FEW_IN_TURN, FEW_EARLY, FEW_BESIDE };
/* y = alpha x wᵀ + what `thin` says; x [rows, width], w [columns, width]; operands are rounded to `compute`.
 * In f32, and where rows are no whole vectors, at most cuda_few_rows rows. One launch may make several of one
 * x. */
enum { few_most = 3 };
struct few_part {
    struct thin thin;
    struct matrix w;
};
struct few_product {
    struct few_part part[few_most];
    int parts;
    struct array x;
    struct array norm; /* [width]: x · norm / the root mean square of x's row is multiplied; absent: x */
    float epsilon;
    struct array gated; /* silu(part 0) · part 1, which are not written; absent: each goes to its y */
    int64_t width;
    float alpha;
    enum dtype compute;
    enum few_start start;
    int processors;     /* of the GPU */
    size_t shared_most; /* bytes of its shared memory for a block */
};
/* Whether this product is one launch: several parts, a norm, gate and up need operands that tensor cores
 * take, w of one type, and room for x. */
bool cuda_few_serves(const struct few_product *few);
void cuda_few(const struct few_product *few, cudaStream_t stream);

/* y [m, n] = alpha x w + beta addend, elements of x at i · x_row + k · x_column, of w at k · w_row + j ·
 * w_column: for products that the library refuses. */
struct plain_product {
    struct array x, w, y;
    int64_t m, n, k, x_row, x_column, w_row, w_column;
    float alpha, beta;
    const void *addend; /* as y, or y itself */
};
void cuda_plain_product(const struct plain_product *product, cudaStream_t stream);

/* ---- attention.cu, attention_flash.cu, attention_wgmma.cu, attention_grad_wgmma.cu,
 * attention_cache.cu ---- */

/* Of each token: the first token of its segment, the one past its last, its segment. */
struct ranges {
    const int32_t *start, *end, *segment;
};

struct attention {
    struct array q, k, v, y; /* [T, H·d], [T, K·d] */
    float *lse;              /* [T, H] or NULL */
    struct array dy, dq, dk, dv;
    struct ranges ranges;
    int64_t tokens;
    int heads, kv_heads, head_dim;
    float scale;
    float *delta;      /* [T, H] scratch of the gradient */
    struct array dy16; /* dy in q's type: itself, or scratch [T, H·d]; absent: not on tensor cores */
    float *dq_sums;    /* scratch of cuda_wgmma_grad: dq in the making */
    int *counters;  /* scratch of these two: blocks or tiles begun; how many have added to each tile of dq */
    int processors; /* of the GPU */
};
/* Head widths up to 256. */
void cuda_attention(const struct attention *a, cudaStream_t stream);
void cuda_attention_grad(const struct attention *a, cudaStream_t stream);
/* q, k and v in bf16 or f16 with one of these head widths: tensor cores. */
bool cuda_flash_serves(enum dtype type, int head_dim);
void cuda_flash(const struct attention *a, cudaStream_t stream);
void cuda_flash_grad(const struct attention *a, cudaStream_t stream);
/* A GPU of capability 9.0, and a module with code for it alone (9.0a). */
bool cuda_is_hopper(int major, int minor);
/* The same on such a GPU for some widths; counters are there, and in the gradient dy16 and dq_sums. */
bool cuda_wgmma_serves(enum dtype type, int head_dim);
/* False, of both: the arrays lie askew for it, nothing was started. */
bool cuda_wgmma(const struct attention *a, cudaStream_t stream);
bool cuda_wgmma_grad(const struct attention *a, cudaStream_t stream);
/* What dq_sums and counters take in the gradient. */
size_t cuda_wgmma_sums_bytes(int64_t tokens, int heads, int head_dim);
size_t cuda_wgmma_counters_bytes(int64_t tokens, int heads, int head_dim);

struct cache_attention {
    struct array q, k, v, y;
    struct array keys, values; /* [slots, K, context, d]; stride: d */
    const int32_t *segments, *slots, *past;
    struct ranges ranges;
    int64_t tokens, segment_count, context;
    int heads, kv_heads, head_dim;
    float scale;
    int piece, pieces;   /* keys of a piece, and how many there are at most: cuda_cache_pieces */
    float *parts;        /* scratch [T, H, pieces, d + 2] of cuda_cache_decode */
    const float *angles; /* cuda_cache_decode: q and k are still to be turned by these cosines and sines, [T,
                            d] of cuda_rope_table; NULL: they are */
    bool clusters;       /* the GPU has clusters of blocks, and code for them (cuda_is_hopper) */
};
void cuda_cache_append(const struct cache_attention *a, cudaStream_t stream);
/* After that: any type, head widths up to 256. */
void cuda_cache_attention(const struct cache_attention *a, cudaStream_t stream);
/* After that: q and the cache in bf16 or both in f16, and a width that cuda_flash_serves. */
void cuda_flash_cache(const struct cache_attention *a, cudaStream_t stream);
/* Appends and attends, where each segment is one token; head widths up to 256 that are multiples of 8. */
void cuda_cache_decode(const struct cache_attention *a, cudaStream_t stream);
void cuda_cache_pieces(int64_t context, int *piece, int *pieces);

/* ---- head.cu ---- */

/* Rows of logits f32 [rows, stride] to logp, and, with dlogp, to their gradient in the same place: f32, or
 * bf16 or f16 at the row's beginning (then a row has 2 · stride). */
struct logits {
    float *logits;
    int64_t rows, vocabulary, stride;
    const int32_t *targets;
    const float *dlogp; /* NULL: logp alone */
    float *logp;        /* or NULL */
    enum dtype type;    /* of the gradient */
    bool clusters;      /* the GPU has clusters of blocks, and code for them (cuda_is_hopper) */
};
void cuda_logits(const struct logits *l, cudaStream_t stream);
/* ---- head_wgmma.cu: on GPUs of which cuda_is_hopper is true ---- */

/* Some rows of the head, all bf16: x [rows, width], w [vocabulary, width]; width a multiple of 8, rows of
 * whole 16 bytes. */
struct wide_head {
    struct array x, w, e; /* e [rows, vocabulary], multiplied with w for the gradient; absent: not wanted */
    const int32_t *targets;
    float *logp;        /* may be NULL */
    const float *dlogp; /* NULL: no gradient */
    void *scratch;      /* cuda_wide_head_scratch bytes */
    int64_t rows, width, vocabulary;
    int processors;
};
size_t cuda_wide_head_scratch(int64_t rows, int64_t vocabulary);
/* logp, and e with what turns y = e w into the gradient. False: an operand's place does not serve. */
bool cuda_wide_head(const struct wide_head *head, cudaStream_t stream);
/* y [rows, width], without gaps; dx of any type. */
void cuda_wide_head_dx(const struct wide_head *head, struct array dx, const float *y, cudaStream_t stream);

/* loss += Σ weights · logp */
void cuda_loss(double *loss, const float *logp, const float *weights, int64_t n, cudaStream_t stream);

/* ---- optimizer.cu ---- */

enum { cuda_piece = 4096 }; /* elements that one block takes */
/* sums f64 [⌈n / cuda_piece⌉] is scratch; NaN where there is a loss that is not finite. */
void cuda_gradient_norm(float *norm, const float *gradients, const double *loss, int64_t n, double *sums,
                        cudaStream_t stream);

struct update_piece {
    int64_t offset;    /* of its first element in the block */
    int64_t moment[2]; /* of its first moments in m and v; of its blocks' largest magnitudes where … */
    int64_t code[2];   /* … the moments are codes, which begin here; -1: they are f32 */
    int32_t count, group;
};
enum update_kind { UPDATE_ADAMW, UPDATE_SGD, UPDATE_LION, UPDATE_ADAFACTOR, UPDATE_ADAMW8BIT, UPDATE_MUON };
struct update {
    enum update_kind kind;
    const struct update_piece *pieces; /* on the device; not Adafactor */
    const struct op_part *parts;       /* on the device; Adafactor */
    const float *levels;               /* on the device, [2][optimizer_codes]: of codes with signs, without */
    int count, groups;                 /* of pieces or parts */
    const float *norm, *hyper, *gradients;
    int32_t *step;
    float *parameters, *m, *v;
    uint8_t *codes;
    void *scalars; /* scratch: cuda_scalar_bytes(groups) */
};
size_t cuda_scalar_bytes(int groups);
void cuda_update(const struct update *update, cudaStream_t stream);

/* A matrix of Muon, after cuda_update. x [elements] and sums [⌈elements / cuda_piece⌉] are scratch. */
struct muon {
    struct update update;
    int64_t offset, moment, elements; /* of the block; of the momentum in m */
    int group;
    double ratio; /* muon_ratio of its shape */
    float *x;
    double *sums;
};
/* Moves the momentum; x = the update / its norm. */
void cuda_muon_begin(const struct muon *muon, cudaStream_t stream);
/* Moves the parameters by x, which is now orthogonal. */
void cuda_muon_end(const struct muon *muon, cudaStream_t stream);
/* average += (1 - decay) (parameters - average) after an update, which has moved `step`; hyper: group 0. */
void cuda_average(float *average, const float *parameters, const float *norm, const float *hyper,
                  const int32_t *step, int64_t n, cudaStream_t stream);
/* y = x · factor, or x / factor, of a state of op/scaling.h; y may be x. */
void cuda_scale(float *y, const float *x, const float *scaling, bool inverse, int64_t n, cudaStream_t stream);
void cuda_scale_update(float *scaling, const float *norm, cudaStream_t stream);

#if defined(__cplusplus)
}
#endif

#endif
