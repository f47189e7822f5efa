/* Types whose nibbles choose one of 16 levels.
 *
 *   IQ4_NL  32 numbers:  f16 d | 16 bytes of nibbles                                    w = d level(q)
 *   IQ4_XS  256 numbers: f16 d | u16 upper twos of eight scales | 4 bytes of their nibbles | 8 × 16 bytes of
 *           nibbles                                                                     w = (d (s - 32))
 * level(q) MXFP4   32 numbers:  exponent e | 16 bytes of nibbles                               w = 2^(e -
 * 128) (2 e2m1(q))
 *
 * Element i < 16 of 32 is the low nibble of byte i, element i + 16 the high one. Sources: ggml's
 * ggml-common.h, the `gguf` package's quants.py, OCP Microscaling Formats 1.0 (sections 5.3.3 and 5.4.1). */
#include <math.h>
#include <stdbool.h>

#include "tensor/block_scales.h"
#include "tensor/quantise.h"
#include "tensor/rowcodec_internal.h"

enum { block = 32, half = 16, iq4_nl_bytes = 18, iq4_xs_bytes = 136, mxfp4_bytes = 17 };

static const struct grid nonlinear_grid = {-127, 113, block_nonlinear};

static inline void decode_block(const uint8_t *at, const int8_t *levels, float d, float *out) {
    for (int i = 0; i < half; i++) {
        out[i] = d * (float)levels[at[i] & 15];
        out[i + half] = d * (float)levels[at[i] >> 4];
    }
}

static int nonlinear_code(float level) {
    int code = 0;
    while (code < 15 && (float)block_nonlinear[code] < level) code++;
    return code;
}

static void pack_levels(const float *level, uint8_t *at) {
    for (int i = 0; i < half; i++)
        at[i] = (uint8_t)(nonlinear_code(level[i]) | nonlinear_code(level[i + half]) << 4);
}

void decode_iq4_nl(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i += block, at += iq4_nl_bytes)
        decode_block(at + 2, block_nonlinear, load_f16(at), out + i);
}

/* No level is 0: numbers far below f16's smallest step are better all 0. */
static float nonlinear_try(const float *x, float d, float *level) {
    grid_nearest(&nonlinear_grid, x, block, inverse_or_zero(d), level);
    return grid_error(x, level, block, d, 0);
}

void encode_iq4_nl(const float *source, void *out, int64_t elements) {
    uint8_t *at = out;
    float level[2][block];
    for (int64_t i = 0; i < elements; i += block, at += iq4_nl_bytes) {
        const float d = grid_fit(&nonlinear_grid, source + i, block), nearest = f16_to_f32(f32_to_f16(d)),
                    next = scale_as_f16(d);
        float error = nonlinear_try(source + i, nearest, level[0]);
        bool up = next != nearest && nonlinear_try(source + i, next, level[1]) < error;
        store_f16(at, up ? next : nearest);
        pack_levels(level[up], at + 2);
    }
}

void decode_iq4_xs(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i += superblock, at += iq4_xs_bytes)
        for (int g = 0; g < 8; g++) {
            int s = block_iq4_xs_scale(at, g);
            decode_block(at + 8 + half * g, block_nonlinear, load_f16(at) * (float)s, out + i + block * g);
        }
}

void encode_iq4_xs(const float *source, void *out, int64_t elements) {
    static const struct signed_shape shape = {block, {-127, 113, block_nonlinear}, -32, 31};
    uint8_t *at = out;
    struct signed_block chosen;
    for (int64_t i = 0; i < elements; i += superblock, at += iq4_xs_bytes) {
        quantise_signed(&shape, source + i, &chosen);
        memset(at, 0, 8);
        store_f16(at, chosen.d);
        for (int g = 0; g < 8; g++) {
            int s = chosen.scale[g] + 32;
            at[4 + g / 2] |= (uint8_t)((s & 15) << 4 * (g % 2));
            at[2 + g / 4] |= (uint8_t)(s >> 4 << 2 * (g % 4));
            pack_levels(chosen.level + block * g, at + 8 + half * g);
        }
    }
}

void decode_mxfp4(const void *source, float *out, int64_t elements) {
    const uint8_t *at = source;
    for (int64_t i = 0; i < elements; i += block, at += mxfp4_bytes)
        decode_block(at + 1, block_e2m1_doubled, block_mxfp4_scale(*at), out + i);
}

/* The nearest code for x / scale; ties to the smaller magnitude. */
static int mxfp4_code(float v) {
    static const float middle[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
    int code = 0;
    for (int i = 0; i < 7; i++) code += fabsf(v) > middle[i];
    return code && v < 0 ? code | 8 : code;
}

static float mxfp4_try(const float *x, uint8_t e, uint8_t *codes) {
    float scale = block_mxfp4_scale(e), error = 0; /* its inverse may be infinite */
    for (int i = 0; i < block; i++) {
        codes[i] = (uint8_t)mxfp4_code(x[i] / scale);
        float off = x[i] - scale * (float)block_e2m1_doubled[codes[i]];
        error += off * off;
    }
    return error;
}

/* The largest magnitude lies in [4, 8) · 2^(e - 127), and the highest level is 6: one exponent more may be
 * better. */
void encode_mxfp4(const float *source, void *out, int64_t elements) {
    uint8_t *at = out, codes[2][block];
    for (int64_t i = 0; i < elements; i += block, at += mxfp4_bytes) {
        float widest = 0;
        int exponent = 0;
        for (int j = 0; j < block; j++)
            if (fabsf(source[i + j]) > widest) widest = fabsf(source[i + j]);
        if (widest > 0 && widest < INFINITY) exponent = ilogbf(widest) - 2 + 127;
        exponent = exponent < 0 ? 0 : exponent > 254 ? 254 : exponent;
        bool more = exponent < 254 && mxfp4_try(source + i, (uint8_t)(exponent + 1), codes[1]) <
                                          mxfp4_try(source + i, (uint8_t)exponent, codes[0]);
        if (exponent == 254) mxfp4_try(source + i, 254, codes[0]);
        *at = (uint8_t)(exponent + more);
        for (int j = 0; j < half; j++) at[1 + j] = (uint8_t)(codes[more][j] | codes[more][j + half] << 4);
    }
}
