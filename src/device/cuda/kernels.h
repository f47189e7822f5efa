/* What the .cu files give to the C files of this device: launches, each one or a few kernels on a stream.
 *
 * Data lie in device memory, 16-byte aligned where rows are read in vectors (the store and the arena align to
 * 64 and more). An array is f32 or bf16 unless its comment says "any type". Sums are split by shape alone, so
 * that the same bits come from every run. Errors of a launch are found by its caller (cudaGetLastError). */
#ifndef HONE_DEVICE_CUDA_KERNELS_H
#define HONE_DEVICE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#include "op/optimizer.h"
#include "tensor/dtype.h"

#if defined(__cplusplus)
extern "C" {
#endif

struct array {
    void *data; /* NULL: absent */
    enum dtype type;
    int64_t stride; /* elements from a row to the next */
};

/* ---- types.cu: stored types ---- */

/* True for the types that these kernels decode: the plain ones and GGUF's. */
bool cuda_decodes(enum dtype type);
/* y [rows, width] = x of any type. */
void cuda_decode(struct array y, struct array x, int64_t rows, int64_t width, cudaStream_t stream);
/* y [rows, width] = x[index[row]], x of any type. */
void cuda_take_rows(struct array y, struct array x, const int32_t *index, int64_t rows, int64_t width,
                    cudaStream_t stream);

/* ---- elementwise.cu ---- */

/* dx [tokens, width] = 0, then dx[rows[m]] += dy[m]; rows ascend. */
void cuda_scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count, int64_t tokens,
                  int64_t width, cudaStream_t stream);
void cuda_add(struct array y, struct array a, struct array b, int64_t rows, int64_t width,
              cudaStream_t stream);
void cuda_glu(struct array y, struct array gate, struct array up, int64_t rows, int64_t width,
              cudaStream_t stream);
void cuda_glu_grad(struct array dgate, struct array dup, struct array gate, struct array up, struct array dy,
                   int64_t rows, int64_t width, cudaStream_t stream);
/* random: u32 [4] of INPUT_RANDOM. */
void cuda_dropout(struct array y, struct array x, const int32_t *positions, const uint32_t *examples,
                  const uint32_t *random, double probability, int module, int64_t rows, int64_t width,
                  cudaStream_t stream);
void cuda_rope_table(float *table, const int32_t *positions, const float *frequencies, int64_t rows,
                     int64_t half, cudaStream_t stream);
void cuda_rope(struct array y, struct array x, const float *table, bool inverse, int64_t rows, int64_t heads,
               int64_t head_dim, cudaStream_t stream);

/* to [rows, columns] bf16 = factor · from [from_rows, from_columns], zero beyond that. */
void cuda_tail(void *to, int64_t to_stride, int64_t rows, int64_t columns, struct array from,
               int64_t from_rows, int64_t from_columns, float factor, cudaStream_t stream);

/* ---- norm.cu ---- */

/* w of any type; rstd may be NULL. */
void cuda_norm(struct array y, float *rstd, struct array x, struct array w, float epsilon, int64_t rows,
               int64_t width, cudaStream_t stream);
void cuda_norm_grad(struct array dx, struct array dy, struct array x, struct array w, const float *rstd,
                    struct array addend, int64_t rows, int64_t width, cudaStream_t stream);

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
/* y [m, n] = alpha x w + beta addend, elements of x at i · x_row + k · x_column, of w at k · w_row + j ·
 * w_column: for products that the library refuses. */
struct plain_product {
    struct array x, w, y;
    int64_t m, n, k, x_row, x_column, w_row, w_column;
    float alpha, beta;
    const void *addend; /* as y, or y itself */
};
void cuda_plain_product(const struct plain_product *product, cudaStream_t stream);

/* ---- attention.cu, attention_flash.cu, attention_wgmma.cu ---- */

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
    struct array dy16; /* dy in bf16: itself, or scratch [T, H·d]; absent: not on tensor cores */
};
/* Head widths up to 256. */
void cuda_attention(const struct attention *a, cudaStream_t stream);
void cuda_attention_grad(const struct attention *a, cudaStream_t stream);
/* q, k and v in bf16 with one of these head widths: tensor cores. */
bool cuda_flash_serves(enum dtype type, int head_dim);
bool cuda_flash(const struct attention *a, cudaStream_t stream);
bool cuda_flash_grad(const struct attention *a, cudaStream_t stream);
/* A GPU of capability 9.0, and a module with code for it alone (9.0a). */
bool cuda_is_hopper(int major, int minor);
/* The same on such a GPU for some widths; dy16 is there in the gradient. */
bool cuda_wgmma_serves(enum dtype type, int head_dim);
void cuda_wgmma(const struct attention *a, cudaStream_t stream);
void cuda_wgmma_grad(const struct attention *a, cudaStream_t stream);

struct cache_attention {
    struct array q, k, v, y;
    struct array keys, values; /* [slots, K, context, d]; stride: d */
    const int32_t *segments, *slots, *past;
    struct ranges ranges;
    int64_t tokens, context;
    int heads, kv_heads, head_dim;
    float scale;
};
/* Appends, then attends. */
void cuda_cache_attention(const struct cache_attention *a, cudaStream_t stream);

/* ---- head.cu ---- */

/* Rows of logits f32 [rows, stride] to logp, and, with dlogp, to their gradient in the same place: f32, or
 * bf16 at the row's beginning (then a row has 2 · stride). */
struct logits {
    float *logits;
    int64_t rows, vocabulary, stride;
    const int32_t *targets;
    const float *dlogp; /* NULL: logp alone */
    float *logp;        /* or NULL */
    bool bf16;
    bool clusters; /* the GPU has clusters of blocks, and code for them (cuda_is_hopper) */
};
void cuda_logits(const struct logits *l, cudaStream_t stream);
/* loss += Σ weights · logp */
void cuda_loss(double *loss, const float *logp, const float *weights, int64_t n, cudaStream_t stream);

/* ---- optimizer.cu ---- */

enum { cuda_piece = 4096 }; /* elements that one block takes */
/* sums f64 [⌈n / cuda_piece⌉] is scratch. */
void cuda_gradient_norm(float *norm, const float *gradients, int64_t n, double *sums, cudaStream_t stream);

struct update_piece {
    int64_t offset;
    int32_t count, group;
};
enum update_kind { UPDATE_ADAMW, UPDATE_SGD, UPDATE_LION, UPDATE_ADAFACTOR };
struct update {
    enum update_kind kind;
    const struct update_piece *pieces; /* on the device; AdamW, SGD, Lion */
    const struct op_part *parts;       /* on the device; Adafactor */
    int count, groups;                 /* of pieces or parts */
    const float *norm, *hyper, *gradients;
    int32_t *step;
    float *parameters, *m, *v;
    void *scalars; /* scratch: cuda_scalar_bytes(groups) */
};
size_t cuda_scalar_bytes(int groups);
void cuda_update(const struct update *update, cudaStream_t stream);

#if defined(__cplusplus)
}
#endif

#endif
