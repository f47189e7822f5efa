/* A stored matrix [rows, columns] of any type, as f32, by row, column and count: what everything that reads
 * weights reads them through. Of most types a row is a run of blocks (rowcodec.h). Of the others the codes,
 * which are what a row of the type's table describes, lie apart from:
 *
 *   nf4    scales   u8 [n / 64], n = rows · columns: scale = level of the code · factor + offset
 *          levels   f32 [256]: what a scale's code means
 *          factors  f32 [n / 64 / 256]
 *          offsets  f32 [1]
 *      or  scales   f32 [n / 64] alone (without double quantisation)
 *          w = scale · nf4 level; blocks are counted over the flattened matrix, element 2 i is the high
 *          nibble
 *   int8   scales   f32 [rows]; w = code · scale / 127
 *   mlx    scales, offsets  f32, f16 or bf16 [rows, columns / group]; w = scale · code + offset; a row of
 *          codes is a stream of bits, the lowest first
 *   mlx-mxfp4  scales  u8 [rows, columns / 32], e; w = 2^(e - 127) · e2m1 level; element 2 i is the low
 *          nibble. e = 255 is infinity, as to MLX
 *
 * Sources: Dettmers et al. 2023 (QLoRA) and bitsandbytes/functional.py; Dettmers et al. 2022 (LLM.int8());
 * MLX's docs, "quantize", and its ops.cpp; OCP Microscaling Formats 1.0. Values equal theirs bit for bit, in
 * f32. */
#ifndef HONE_TENSOR_STORED_H
#define HONE_TENSOR_STORED_H

#include "base/error.h"
#include "tensor/tensor.h"

enum {
    nf4_block = 64,        /* numbers with one scale */
    nf4_outer_block = 256, /* scales with one factor */
    nf4_scale_levels = 256,
};
extern const float nf4_levels[16], e2m1_levels[16];

struct stored_part {
    const void *data; /* any alignment; NULL: there is none */
    enum dtype dtype;
};

struct stored {
    enum dtype dtype;
    int64_t columns;
    const void *codes; /* rows follow one another */
    struct stored_part part[tensor_parts];
};

/* Of a matrix, or of a vector as one row. */
struct stored stored_of(const struct tensor *tensor);

/* Elements [column, column + count) of a row. `column` is a multiple of the type's block, and `count` too but
 * at the end of a row. */
void stored_decode(const struct stored *stored, int64_t row, int64_t column, int64_t count, float *out);

/* The pieces that a matrix is stored in, one after the other, each at a multiple of 64 bytes. */
struct stored_piece {
    const char *suffix; /* what follows the module's path in safetensors files: ".weight", ".SCB"; nf4's
                           offset stands in bitsandbytes' quant_state instead */
    enum dtype dtype;
    int rank; /* 0: there is none */
    int64_t dim[2];
    uint64_t offset, bytes;
};
struct stored_layout {
    struct stored_piece codes, part[tensor_parts];
    uint64_t bytes; /* of all */
};
/* As hone writes them: nf4 with double quantisation, mlx with scales of `scales` (f32, f16 or bf16). False
 * when a row is no whole number of blocks, or on overflow. */
bool stored_layout(struct stored_layout *out, enum dtype dtype, int64_t rows, int64_t columns,
                   enum dtype scales);
/* The view of pieces that lie in one run of bytes. */
struct stored stored_in(const struct stored_layout *layout, const void *bytes);

/* Encoding, some rows at a time: open; rows, in any order and from any threads; finish. */
enum { stored_rows_together = 64 }; /* a range begins at a multiple of this and ends at one or at the end */
struct stored_encoder {
    struct stored_layout layout;
    int64_t rows, columns;
    unsigned char *bytes; /* the caller's, layout.bytes of them */
    float *scales;        /* nf4: before they are quantised themselves */
};
bool stored_encoder_open(struct stored_encoder *out, const struct stored_layout *layout, void *bytes,
                         struct error *err);
void stored_encode(const struct stored_encoder *encoder, int64_t row, int64_t count, const float *source);
/* The pieces are whole after this; releases what the encoder holds. `pool` may be NULL. */
struct pool;
void stored_encoder_finish(struct stored_encoder *encoder, struct pool *pool);

#endif
