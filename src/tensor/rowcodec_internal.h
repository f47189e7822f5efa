/* Inside the row codecs: conversions of one number at any address, and the types that have files of their
 * own. */
#ifndef HONE_TENSOR_ROWCODEC_INTERNAL_H
#define HONE_TENSOR_ROWCODEC_INTERNAL_H

#include <string.h>

#include "tensor/rowcodec.h"

static inline float load_f16(const uint8_t *at) {
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return f16_to_f32(bits);
}

static inline void store_f16(uint8_t *at, float value) {
    uint16_t bits = f32_to_f16(value);
    memcpy(at, &bits, sizeof bits);
}

static inline float inverse_or_zero(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

#define ROWCODEC_PAIR(name)                                               \
    void decode_##name(const void *source, float *out, int64_t elements); \
    void encode_##name(const float *source, void *out, int64_t elements)
ROWCODEC_PAIR(q2_k); /* rowcodec_k.c */
ROWCODEC_PAIR(q3_k);
ROWCODEC_PAIR(q4_k);
ROWCODEC_PAIR(q5_k);
ROWCODEC_PAIR(q6_k);
ROWCODEC_PAIR(iq4_nl); /* rowcodec_levels.c */
ROWCODEC_PAIR(iq4_xs);
ROWCODEC_PAIR(mxfp4);
#undef ROWCODEC_PAIR

#endif
