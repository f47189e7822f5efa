/* Inside the row codecs: conversions of one number at any address, and the types that have files of their
 * own. */
#ifndef HONE_TENSOR_ROWCODEC_INTERNAL_H
#define HONE_TENSOR_ROWCODEC_INTERNAL_H

#include <math.h>
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

/* A scale as f16 holds it. Below 2^-14 f16 has steps of 2^-24 alone, and the nearest may be 0, or so far
 * below that the largest number of a block lies beyond its highest level: then the next one up. */
static inline float scale_as_f16(float scale) {
    float nearest = f16_to_f32(f32_to_f16(scale));
    if (!(fabsf(scale) - fabsf(nearest) > fabsf(scale) / 256)) return nearest;
    return nearest + copysignf(0x1p-24f, scale);
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
