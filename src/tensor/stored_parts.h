/* The single numbers that plain and vector decoders of stored matrices alike look up: scales and offsets. */
#ifndef HONE_TENSOR_STORED_PARTS_H
#define HONE_TENSOR_STORED_PARTS_H

#include <string.h>

#include "tensor/block_scales.h"
#include "tensor/stored.h"

/* Of f32, f16 or bf16, at any address. */
static inline float stored_number(const struct stored_part *part, int64_t index) {
    const unsigned char *at = part->data;
    uint16_t half;
    float number;
    if (part->dtype == DTYPE_F32) {
        memcpy(&number, at + 4 * index, sizeof number);
        return number;
    }
    memcpy(&half, at + 2 * index, sizeof half);
    return part->dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* Product and sum are rounded separately, as bitsandbytes rounds them. */
static inline float stored_nf4_scale(const struct stored *stored, int64_t block) {
    const struct stored_part *scales = &stored->part[PART_SCALES];
    if (scales->dtype == DTYPE_F32) return stored_number(scales, block);
    uint8_t code = ((const uint8_t *)scales->data)[block];
    float level = stored_number(&stored->part[PART_LEVELS], code),
          factor = stored_number(&stored->part[PART_FACTORS], block / nf4_outer_block);
    return level * factor + stored_number(&stored->part[PART_OFFSETS], 0);
}

/* w = code · scale · this: f32's 1 / 127, as bitsandbytes multiplies. */
static const float stored_int8_unit = 7.874015718698502e-3f;

/* Codes of a row of a type whose scales lie apart, from `column` on; MLX's begin at a whole byte there, since
 * columns come in groups. */
static inline const unsigned char *stored_codes(const struct stored *stored, int64_t row, int64_t column) {
    const struct dtype_row *type = dtype_row(stored->dtype);
    return (const unsigned char *)stored->codes +
           (row * stored->columns + column) / type->block * type->bytes;
}

/* mxfp4: of the block that `column` lies in. */
enum { stored_micro_block = 32 };
static inline float stored_micro_scale(const struct stored *stored, int64_t row, int64_t column) {
    const uint8_t *scales = stored->part[PART_SCALES].data;
    return block_e8m0_scale(scales[(row * stored->columns + column) / stored_micro_block]);
}

/* Of MLX's types. */
static inline int stored_code_bits(enum dtype dtype) {
    const struct dtype_row *type = dtype_row(dtype);
    return (int)(type->bytes * 8 / type->block);
}

#endif
