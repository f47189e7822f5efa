/* The types that have vector decoders, and in which pieces they are decoded. */
#ifndef HONE_DEVICE_CPU_BLOCK_TYPES_H
#define HONE_DEVICE_CPU_BLOCK_TYPES_H

#include "tensor/dtype.h"

/* Groups of 32 numbers in a block; 1 for plain types, of which 32 are taken as a block. */
static inline int block_groups(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_Q2_K:
    case DTYPE_Q3_K:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
    case DTYPE_Q6_K:
    case DTYPE_IQ4_XS: return 8;
    default: return 1;
    }
}

/* The types that have vector decoders, with the bytes of a block (of 32 numbers for plain types). Beside few
 * rows of x they are decoded, or their integers are multiplied as they are. */
#define BLOCK_TYPES_DECODED(TYPE)   \
    TYPE(f32, DTYPE_F32, 128)       \
    TYPE(f16, DTYPE_F16, 64)        \
    TYPE(bf16, DTYPE_BF16, 64)      \
    TYPE(q2_k, DTYPE_Q2_K, 84)      \
    TYPE(q3_k, DTYPE_Q3_K, 110)     \
    TYPE(q4_k, DTYPE_Q4_K, 144)     \
    TYPE(q5_k, DTYPE_Q5_K, 176)     \
    TYPE(q6_k, DTYPE_Q6_K, 210)     \
    TYPE(iq4_nl, DTYPE_IQ4_NL, 18)  \
    TYPE(iq4_xs, DTYPE_IQ4_XS, 136) \
    TYPE(mxfp4, DTYPE_MXFP4, 17)
#define BLOCK_TYPES(TYPE)      \
    BLOCK_TYPES_DECODED(TYPE)  \
    TYPE(q4_0, DTYPE_Q4_0, 18) \
    TYPE(q4_1, DTYPE_Q4_1, 20) \
    TYPE(q5_0, DTYPE_Q5_0, 22) \
    TYPE(q5_1, DTYPE_Q5_1, 24) \
    TYPE(q8_0, DTYPE_Q8_0, 34)

#endif
