/* What a number is stored as: one row per type, the same for every file format and device.
 *
 * A type is a block of `block` elements in `bytes` bytes; plain types have block 1. A row of a tensor
 * is a whole number of blocks. Trained values and their gradients are f32; quantised types are read as they
 * lie, and written by `convert` alone. */
#ifndef HONE_TENSOR_DTYPE_H
#define HONE_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64, /* only inside the reference device */
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_Q4_0, /* 32 elements: f16 d, 16 bytes of nibbles;           w = d (q - 8) */
    DTYPE_Q4_1, /* 32 elements: f16 d, f16 m, 16 bytes of nibbles;    w = d q + m */
    DTYPE_Q5_0, /* 32 elements: f16 d, 4 bytes of fifth bits, nibbles; w = d (q - 16) */
    DTYPE_Q5_1, /* 32 elements: f16 d, f16 m, fifth bits, nibbles;    w = d q + m */
    DTYPE_Q8_0, /* 32 elements: f16 d, 32 signed bytes;               w = d q */
    /* 256 elements each (rowcodec_k.c): groups of 16 or 32 with a scale, and some a minimum, of few bits */
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    /* levels out of a table of 16 (rowcodec_levels.c) */
    DTYPE_IQ4_NL, /* 32 elements: f16 d, 16 bytes of nibbles;           w = d level(q) */
    DTYPE_IQ4_XS, /* 256 elements: f16 d, eight 6-bit scales, nibbles;   w = d s level(q) */
    DTYPE_MXFP4,  /* 32 elements: exponent e, 16 bytes of nibbles;      w = 2^(e - 127) e2m1(q) */
    /* codes, with scales and offsets apart (stored.h) */
    DTYPE_NF4,  /* bitsandbytes: nibbles, a level of 16 times the scale of 64 numbers */
    DTYPE_INT8, /* bitsandbytes: signed bytes, a scale for each row */
#define DTYPE_MLX(bits) DTYPE_MLX##bits##_G32, DTYPE_MLX##bits##_G64, DTYPE_MLX##bits##_G128
    DTYPE_MLX(2), /* MLX: codes of so many bits; a scale and an offset for each group of a row */
    DTYPE_MLX(3),
    DTYPE_MLX(4),
    DTYPE_MLX(5),
    DTYPE_MLX(6),
    DTYPE_MLX(8),
#undef DTYPE_MLX
    DTYPE_MLX_MXFP4, /* MLX: nibbles, a level of 16 times the power of two of 32 numbers */
    DTYPE_COUNT
};

/* How the numbers of a type are found. */
enum dtype_form {
    FORM_BLOCK,  /* by the codes alone: a row codec (rowcodec.h) */
    FORM_LEVELS, /* the rest with what lies apart (stored.h): nf4, */
    FORM_ROWS,   /* int8, */
    FORM_AFFINE, /* MLX's, */
    FORM_MICRO,  /* MLX's mxfp4 */
};

struct dtype_row {
    const char *name; /* GGUF's name in lower case: "q4_1" */
    uint32_t block;   /* elements in a block; of codes where scales lie apart */
    uint32_t bytes;   /* bytes of a block */
    bool quantised;
    enum dtype_form form;
};

const struct dtype_row *dtype_row(enum dtype dtype);
/* Bytes of `elements` in a row; false when they are no whole number of blocks or would overflow. */
bool dtype_bytes(enum dtype dtype, uint64_t elements, uint64_t *bytes);
bool dtype_from_name(const char *name, enum dtype *out);
/* The type that a flag names. Errors: ERROR_USAGE with every name that there is; `flag` stands before it. */
bool dtype_quantised_from_name(const char *name, const char *flag, enum dtype *out, struct error *err);

/* Conversions of one number; round to nearest, ties to even; NaN stays NaN. */
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
static inline float bf16_to_f32(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } value = {.u = (uint32_t)bits << 16};
    return value.f;
}
static inline uint16_t f32_to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } value = {.f = f};
    if ((value.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(value.u >> 16 | 0x40u);
    return (uint16_t)((value.u + 0x7fffu + (value.u >> 16 & 1u)) >> 16);
}

#endif
