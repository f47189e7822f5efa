/* GGUF's types of 256 numbers whose groups have scales of a few bits ("k-quants"): 16 groups of 16 (Q2_K,
 * Q3_K, Q6_K) or 8 of 32 (Q4_K, Q5_K).
 *
 *   Q2_K  16 bytes of scale (low nibble) and minimum | 64 of twos | f16 d | f16 m        w = (d s) q - (m n)
 *   Q3_K  32 bytes of third bits | 64 of twos | 12 of 6-bit scales | f16 d               w = (d s) (q - 4)
 *   Q4_K  f16 d | f16 m | 12 bytes of 6-bit scales and minima | 128 of nibbles           w = (d s) q - (m n)
 *   Q5_K  the same, with 32 bytes of fifth bits before the nibbles
 *   Q6_K  128 bytes of nibbles | 64 of upper twos | 16 signed bytes of scale | f16 d     w = (d s) (q - 32)
 *
 * Each product and sum is rounded, in f32, so that values equal those of the `gguf` Python package bit for
 * bit. Sources: ggml's ggml-common.h (block layouts), the package's quants.py. */
#include "tensor/block_scales.h"
#include "tensor/quantise.h"
#include "tensor/rowcodec_internal.h"

/* What the codes of a block say, whatever the layout. */
struct codes {
    float d, m;
    int scale[most_groups], minimum[most_groups];
    int8_t q[superblock]; /* with the type's offset taken off */
};

static inline void set_two(uint8_t *at, int i, int two) {
    at[32 * (i / 128) + i % 32] |= (uint8_t)(two << 2 * (i / 32 % 4));
}
static inline void set_bit(uint8_t *at, int i, int bit) { at[i % 32] |= (uint8_t)(bit << i / 32); }
static inline void set_nibble(uint8_t *at, int i, int n, int nibble) {
    at[n * (i / (2 * n)) + i % n] |= (uint8_t)(nibble << 4 * (i / n % 2));
}

static void unpack_q2_k(const uint8_t *at, struct codes *c) {
    c->d = load_f16(at + 80);
    c->m = load_f16(at + 82);
    for (int g = 0; g < 16; g++) {
        c->scale[g] = at[g] & 15;
        c->minimum[g] = at[g] >> 4;
    }
    for (int i = 0; i < superblock; i++) c->q[i] = (int8_t)block_two(at + 16, i);
}

static void pack_q2_k(const struct codes *c, uint8_t *at) {
    for (int g = 0; g < 16; g++) at[g] = (uint8_t)(c->scale[g] | c->minimum[g] << 4);
    for (int i = 0; i < superblock; i++) set_two(at + 16, i, c->q[i]);
    store_f16(at + 80, c->d);
    store_f16(at + 82, c->m);
}

static void unpack_q3_k(const uint8_t *at, struct codes *c) {
    c->d = load_f16(at + 108);
    for (int g = 0; g < 16; g++) c->scale[g] = block_q3_k_scale(at + 96, g);
    for (int i = 0; i < superblock; i++)
        c->q[i] = (int8_t)((block_two(at + 32, i) | block_bit(at, i) << 2) - 4);
}

static void pack_q3_k(const struct codes *c, uint8_t *at) {
    for (int g = 0; g < 16; g++) {
        int s = c->scale[g] + 32;
        at[96 + g % 8] |= (uint8_t)((s & 15) << 4 * (g / 8));
        at[96 + 8 + g % 4] |= (uint8_t)(s >> 4 << 2 * (g / 4));
    }
    for (int i = 0; i < superblock; i++) {
        set_two(at + 32, i, (c->q[i] + 4) & 3);
        set_bit(at, i, (c->q[i] + 4) >> 2);
    }
    store_f16(at + 108, c->d);
}

static void unpack_sixes(const uint8_t *at, struct codes *c) {
    for (int g = 0; g < 8; g++) {
        struct block_six six = block_six(at, g);
        c->scale[g] = six.scale;
        c->minimum[g] = six.minimum;
    }
}

static void pack_sixes(const struct codes *c, uint8_t *at) {
    for (int g = 0; g < 4; g++) {
        at[g] = (uint8_t)(c->scale[g] | c->scale[g + 4] >> 4 << 6);
        at[g + 4] = (uint8_t)(c->minimum[g] | c->minimum[g + 4] >> 4 << 6);
        at[g + 8] = (uint8_t)((c->scale[g + 4] & 15) | (c->minimum[g + 4] & 15) << 4);
    }
}

static void unpack_affine(const uint8_t *at, struct codes *c) {
    c->d = load_f16(at);
    c->m = load_f16(at + 2);
    unpack_sixes(at + 4, c);
}

static void pack_affine(const struct codes *c, uint8_t *at) {
    store_f16(at, c->d);
    store_f16(at + 2, c->m);
    pack_sixes(c, at + 4);
}

static void unpack_q4_k(const uint8_t *at, struct codes *c) {
    unpack_affine(at, c);
    for (int i = 0; i < superblock; i++) c->q[i] = (int8_t)block_nibble(at + 16, i, 32);
}

static void pack_q4_k(const struct codes *c, uint8_t *at) {
    pack_affine(c, at);
    for (int i = 0; i < superblock; i++) set_nibble(at + 16, i, 32, c->q[i]);
}

static void unpack_q5_k(const uint8_t *at, struct codes *c) {
    unpack_affine(at, c);
    for (int i = 0; i < superblock; i++)
        c->q[i] = (int8_t)(block_nibble(at + 48, i, 32) | block_bit(at + 16, i) << 4);
}

static void pack_q5_k(const struct codes *c, uint8_t *at) {
    pack_affine(c, at);
    for (int i = 0; i < superblock; i++) {
        set_nibble(at + 48, i, 32, c->q[i] & 15);
        set_bit(at + 16, i, c->q[i] >> 4);
    }
}

static void unpack_q6_k(const uint8_t *at, struct codes *c) {
    c->d = load_f16(at + 208);
    for (int g = 0; g < 16; g++) c->scale[g] = (int8_t)at[192 + g];
    for (int i = 0; i < superblock; i++)
        c->q[i] = (int8_t)((block_nibble(at, i, 64) | block_two(at + 128, i) << 4) - 32);
}

static void pack_q6_k(const struct codes *c, uint8_t *at) {
    for (int i = 0; i < superblock; i++) {
        set_nibble(at, i, 64, (c->q[i] + 32) & 15);
        set_two(at + 128, i, (c->q[i] + 32) >> 4);
    }
    for (int g = 0; g < 16; g++) at[192 + g] = (uint8_t)(int8_t)c->scale[g];
    store_f16(at + 208, c->d);
}

struct layout {
    int64_t bytes;
    void (*unpack)(const uint8_t *at, struct codes *codes);
    void (*pack)(const struct codes *codes, uint8_t *at); /* onto zeros */
};

static inline void decode_affine(const struct layout *layout, int group, const void *source, float *out,
                                 int64_t elements) {
    const uint8_t *at = source;
    struct codes c;
    for (; elements > 0; elements -= superblock, out += superblock, at += layout->bytes) {
        layout->unpack(at, &c);
        for (int i = 0; i < superblock; i++) {
            int g = i / group;
            float s = c.d * (float)c.scale[g], n = c.m * (float)c.minimum[g], w = s * (float)c.q[i];
            out[i] = w - n;
        }
    }
}

static inline void decode_signed(const struct layout *layout, const void *source, float *out,
                                 int64_t elements) {
    const uint8_t *at = source;
    struct codes c;
    for (; elements > 0; elements -= superblock, out += superblock, at += layout->bytes) {
        layout->unpack(at, &c);
        for (int i = 0; i < superblock; i++) out[i] = c.d * (float)c.scale[i / 16] * (float)c.q[i];
    }
}

static void encode_affine(const struct layout *layout, const struct affine_shape *shape, const float *source,
                          void *out, int64_t elements) {
    uint8_t *at = out;
    struct affine_block block;
    for (; elements > 0; elements -= superblock, source += superblock, at += layout->bytes) {
        struct codes c;
        quantise_affine(shape, source, &block);
        c.d = block.d;
        c.m = block.m;
        memcpy(c.scale, block.scale, sizeof c.scale);
        memcpy(c.minimum, block.minimum, sizeof c.minimum);
        for (int i = 0; i < superblock; i++) c.q[i] = (int8_t)block.level[i];
        memset(at, 0, (size_t)layout->bytes);
        layout->pack(&c, at);
    }
}

static void encode_signed(const struct layout *layout, const struct signed_shape *shape, const float *source,
                          void *out, int64_t elements) {
    uint8_t *at = out;
    struct signed_block block;
    for (; elements > 0; elements -= superblock, source += superblock, at += layout->bytes) {
        struct codes c = {.d = 0};
        quantise_signed(shape, source, &block);
        c.d = block.d;
        memcpy(c.scale, block.scale, sizeof c.scale);
        for (int i = 0; i < superblock; i++) c.q[i] = (int8_t)block.level[i];
        memset(at, 0, (size_t)layout->bytes);
        layout->pack(&c, at);
    }
}

#define AFFINE_TYPE(name, bytes, group, most, scale_most)                           \
    static const struct layout layout_##name = {bytes, unpack_##name, pack_##name}; \
    void decode_##name(const void *source, float *out, int64_t elements) {          \
        decode_affine(&layout_##name, group, source, out, elements);                \
    }                                                                               \
    void encode_##name(const float *source, void *out, int64_t elements) {          \
        static const struct affine_shape shape = {group, most, scale_most};         \
        encode_affine(&layout_##name, &shape, source, out, elements);               \
    }
AFFINE_TYPE(q2_k, 84, 16, 3, 15)
AFFINE_TYPE(q4_k, 144, 32, 15, 63)
AFFINE_TYPE(q5_k, 176, 32, 31, 63)

#define SIGNED_TYPE(name, bytes, low, high, scale_low, scale_high)                               \
    static const struct layout layout_##name = {bytes, unpack_##name, pack_##name};              \
    void decode_##name(const void *source, float *out, int64_t elements) {                       \
        decode_signed(&layout_##name, source, out, elements);                                    \
    }                                                                                            \
    void encode_##name(const float *source, void *out, int64_t elements) {                       \
        static const struct signed_shape shape = {16, {low, high, NULL}, scale_low, scale_high}; \
        encode_signed(&layout_##name, &shape, source, out, elements);                            \
    }
SIGNED_TYPE(q3_k, 110, -4, 3, -32, 31)
SIGNED_TYPE(q6_k, 210, -32, 31, -128, 127)
