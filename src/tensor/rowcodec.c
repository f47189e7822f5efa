/* The five GGUF block types share one frame, so there is one decoder and one encoder for the four nibble
 * types, specialised by constants:
 *
 *   f16 d | f16 m (types with a minimum) | 4 bytes of fifth bits (5-bit types) | 16 bytes of nibbles
 *
 * Element i < 16 is the low nibble of byte i, element i + 16 the high one; fifth bits are bit i of a
 * little-endian u32. Products and sums are rounded separately, in f32, so that values equal those of the
 * `gguf` Python package bit for bit. Sources: ggml's ggml-common.h (block layouts), ggml-quants.c. */
#include <math.h>
#include <string.h>

#include "tensor/rowcodec_internal.h"

enum { block = 32, half = 16 };

/* w = d (q - zero), or d q + m */
static inline void decode_nibbles(const void *source, float *out, int64_t elements, bool minimum,
                                  bool fifth) {
    const uint8_t *at = source;
    const int zero = minimum ? 0 : fifth ? 16 : 8;
    for (int64_t start = 0; start < elements; start += block) {
        float d = load_f16(at), m = minimum ? load_f16(at + 2) : 0.0f;
        uint32_t high = 0;
        at += minimum ? 4 : 2;
        if (fifth) {
            memcpy(&high, at, sizeof high);
            at += sizeof high;
        }
        for (int i = 0; i < half; i++) {
            int low_q = (at[i] & 15) | (int)(high >> i & 1u) << 4;
            int high_q = at[i] >> 4 | (int)(high >> (i + half) & 1u) << 4;
            float w0 = d * (float)(low_q - zero), w1 = d * (float)(high_q - zero);
            out[start + i] = minimum ? w0 + m : w0;
            out[start + i + half] = minimum ? w1 + m : w1;
        }
        at += half;
    }
}

/* Truncates towards zero inside [0, most]; NaN gives 0. */
static inline uint32_t quantum(float value, int most) {
    if (!(value > 0.0f)) return 0;
    return value >= (float)most ? (uint32_t)most : (uint32_t)value;
}

/* With a minimum: d = (max - min) / most, q = (x - min) / d rounded half up. Without: d = -x / 2^(bits-1)
 * for the x of largest magnitude (the first of them), so that x itself becomes q = 0. */
static inline void encode_nibbles(const float *source, void *out, int64_t elements, bool minimum,
                                  bool fifth) {
    uint8_t *at = out;
    const int most = fifth ? 31 : 15, zero = fifth ? 16 : 8;
    for (int64_t start = 0; start < elements; start += block) {
        const float *x = source + start;
        float low = x[0], high = x[0], widest = x[0];
        for (int i = 1; i < block; i++) {
            if (x[i] < low) low = x[i];
            if (x[i] > high) high = x[i];
            if (fabsf(x[i]) > fabsf(widest)) widest = x[i];
        }
        float d = minimum ? (high - low) / (float)most : widest / (float)-zero;
        float id = inverse_or_zero(d), base = minimum ? low : 0.0f,
              round = minimum ? 0.5f : (float)zero + 0.5f;
        uint32_t bits = 0;
        store_f16(at, d);
        if (minimum) store_f16(at + 2, low);
        at += minimum ? 4 : 2;
        uint8_t *nibbles = at + (fifth ? 4 : 0);
        for (int i = 0; i < half; i++) {
            uint32_t q0 = quantum((x[i] - base) * id + round, most);
            uint32_t q1 = quantum((x[i + half] - base) * id + round, most);
            nibbles[i] = (uint8_t)((q0 & 15u) | (q1 & 15u) << 4);
            bits |= q0 >> 4 << i | q1 >> 4 << (i + half);
        }
        if (fifth) memcpy(at, &bits, sizeof bits);
        at = nibbles + half;
    }
}

#define NIBBLE_TYPE(name, minimum, fifth)                                         \
    static void decode_##name(const void *source, float *out, int64_t elements) { \
        decode_nibbles(source, out, elements, minimum, fifth);                    \
    }                                                                             \
    static void encode_##name(const float *source, void *out, int64_t elements) { \
        encode_nibbles(source, out, elements, minimum, fifth);                    \
    }
NIBBLE_TYPE(q4_0, false, false)
NIBBLE_TYPE(q4_1, true, false)
NIBBLE_TYPE(q5_0, false, true)
NIBBLE_TYPE(q5_1, true, true)

static void decode_q8_0(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t start = 0; start < elements; start += block, at += 2 + block) {
        float d = load_f16(at);
        for (int i = 0; i < block; i++) out[start + i] = d * (float)(int8_t)at[2 + i];
    }
}

static void encode_q8_0(const float *source, void *out, int64_t elements) {
    uint8_t *at = out;
    for (int64_t start = 0; start < elements; start += block, at += 2 + block) {
        const float *x = source + start;
        float widest = 0.0f;
        for (int i = 0; i < block; i++)
            if (fabsf(x[i]) > widest) widest = fabsf(x[i]);
        float d = widest / 127.0f, id = inverse_or_zero(d);
        store_f16(at, d);
        for (int i = 0; i < block; i++) {
            float q = roundf(x[i] * id); /* halves away from zero */
            at[2 + i] = (uint8_t)(int8_t)(q >= 127.0f    ? 127.0f
                                          : q > -128.0f  ? q
                                          : q <= -128.0f ? -128.0f
                                                         : 0.0f);
        }
    }
}

static void decode_f32(const void *source, float *out, int64_t elements) {
    memcpy(out, source, (size_t)elements * sizeof *out);
}

static void encode_f32(const float *source, void *out, int64_t elements) {
    memcpy(out, source, (size_t)elements * sizeof *source);
}

static void decode_f16(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i++) out[i] = load_f16(at + 2 * i);
}

static void encode_f16(const float *source, void *out, int64_t elements) {
    uint8_t *at = out;
    for (int64_t i = 0; i < elements; i++) store_f16(at + 2 * i, source[i]);
}

static void decode_bf16(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i++) {
        uint16_t bits;
        memcpy(&bits, at + 2 * i, sizeof bits);
        out[i] = bf16_to_f32(bits);
    }
}

static void encode_bf16(const float *source, void *out, int64_t elements) {
    uint8_t *at = out;
    for (int64_t i = 0; i < elements; i++) {
        uint16_t bits = f32_to_bf16(source[i]);
        memcpy(at + 2 * i, &bits, sizeof bits);
    }
}

static void decode_f64(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i++) {
        double value;
        memcpy(&value, at + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

static void encode_f64(const float *source, void *out, int64_t elements) {
    uint8_t *at = out;
    for (int64_t i = 0; i < elements; i++) {
        double value = source[i];
        memcpy(at + 8 * i, &value, sizeof value);
    }
}

#define CODEC(name) \
    { decode_##name, encode_##name }
static const struct rowcodec codecs[DTYPE_COUNT] = {
    [DTYPE_F32] = CODEC(f32),       [DTYPE_F16] = CODEC(f16),     [DTYPE_BF16] = CODEC(bf16),
    [DTYPE_F64] = CODEC(f64),       [DTYPE_Q4_0] = CODEC(q4_0),   [DTYPE_Q4_1] = CODEC(q4_1),
    [DTYPE_Q5_0] = CODEC(q5_0),     [DTYPE_Q5_1] = CODEC(q5_1),   [DTYPE_Q8_0] = CODEC(q8_0),
    [DTYPE_Q2_K] = CODEC(q2_k),     [DTYPE_Q3_K] = CODEC(q3_k),   [DTYPE_Q4_K] = CODEC(q4_k),
    [DTYPE_Q5_K] = CODEC(q5_k),     [DTYPE_Q6_K] = CODEC(q6_k),   [DTYPE_IQ4_NL] = CODEC(iq4_nl),
    [DTYPE_IQ4_XS] = CODEC(iq4_xs), [DTYPE_MXFP4] = CODEC(mxfp4),
};

const struct rowcodec *rowcodec(enum dtype dtype) { return codecs[dtype].decode ? &codecs[dtype] : NULL; }
