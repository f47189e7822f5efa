/* How the products of few rows (few.cu) read each stored type: a reader is a row of the table at the end.
 *
 * A warp has `columns` columns of 16 rows of w at a time in shared memory, as they are stored, and a thread
 * turns a run of `run` of them into numbers of type T: bf16 or f16. Layouts: src/tensor/rowcodec*.c,
 * stored.c; the drawings are in block_scales.h. Codes below 128 become numbers without a conversion: the byte
 * is put into the upper half of a f32 whose exponent makes it 128 + code, and
 *
 *   w = scale · (128 + code) + shift,     shift = -scale · (128 + zero) + offset
 *
 * is one fused multiply and add. It is rounded to T anyway: the codec's own rounding does not show. */
#ifndef HONE_DEVICE_CUDA_FEW_READ_CUH
#define HONE_DEVICE_CUDA_FEW_READ_CUH

#include "device/cuda/decode.cuh"
#include "device/cuda/fragments.cuh"

/* Where the columns of one row lie. */
struct stored_columns {
    const uint8_t *codes;            /* in shared memory, the first of the warp's columns */
    const uint8_t *scales, *offsets; /* the same of what lies apart */
    const float *levels;             /* [16] of types with a table */
    const struct weight_view *w;
    int64_t row, first; /* in the matrix: for types that are read from there */
};

/* N words at any address of shared memory. */
template <int N> static __device__ inline void words_at(uint32_t (&out)[N], const uint8_t *at) {
    unsigned skew = (unsigned)(uintptr_t)at & 3;
    const uint32_t *word = (const uint32_t *)(at - skew);
    uint32_t before = word[0];
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t next = word[i + 1];
        out[i] = __funnelshift_r(before, next, 8 * skew);
        before = next;
    }
}
/* The same at a multiple of 4 bytes. */
template <int N> static __device__ inline void whole_words(uint32_t (&out)[N], const uint8_t *at) {
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = ((const uint32_t *)at)[i];
}

static __device__ inline float f16_number(const uint8_t *at) { /* at a multiple of 2 bytes */
    return __half2float(__ushort_as_half(*(const unsigned short *)at));
}

/* 128 + byte j of four, each below 128. */
static __device__ inline float code_of(uint32_t four, int j) {
    return __uint_as_float(__byte_perm(four, 0x43000000u, 0x7044u | (unsigned)j << 8));
}
/* Bits 0 to 3 of x become bit 0 of each byte. */
static __device__ inline uint32_t bit_a_byte(uint32_t x) { return (x & 15) * 0x00204081u & 0x01010101u; }

template <class T> static __device__ inline uint4 rounded(const lanes<8> &x) {
    return make_uint4(two_of<T>(x.v[0], x.v[1]), two_of<T>(x.v[2], x.v[3]), two_of<T>(x.v[4], x.v[5]),
                      two_of<T>(x.v[6], x.v[7]));
}

/* Scale and shift of eight codes. */
struct line {
    float scale, shift;
};
static __device__ inline line line_of(float scale, int zero) { return {scale, -scale * (float)(128 + zero)}; }
static __device__ inline line line_from(float scale, float offset) {
    return {scale, fmaf(-128.0f, scale, offset)};
}

/* Eight codes, a byte each. */
template <class T> static __device__ inline uint4 eight_on(const uint32_t *codes, line l) {
    lanes<8> x;
#pragma unroll
    for (int j = 0; j < 8; j++) x.v[j] = fmaf(code_of(codes[j / 4], j % 4), l.scale, l.shift);
    return rounded<T>(x);
}
/* 32 codes with a line for each `group`. */
template <class T, int group>
static __device__ inline void all_on(uint4 (&to)[4], const uint32_t (&codes)[8], const line *lines) {
#pragma unroll
    for (int e = 0; e < 4; e++) to[e] = eight_on<T>(codes + 2 * e, lines[8 * e / group]);
}

/* 32 codes of four bits: the low ones of 16 bytes, then the high ones. */
static __device__ inline void nibbles_of(uint32_t (&codes)[8], const uint8_t *at) {
    uint32_t words[4];
    words_at(words, at);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        codes[i] = words[i] & 0x0f0f0f0fu;
        codes[4 + i] = words[i] >> 4 & 0x0f0f0f0fu;
    }
}
template <class T>
static __device__ inline void levels_of(uint4 (&to)[4], const uint8_t *nibbles, const float *levels,
                                        float scale) {
    uint32_t words[4];
    words_at(words, nibbles);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        lanes<8> x;
        for (int j = 0; j < 8; j++)
            x.v[j] = scale * levels[words[e % 2 * 2 + j / 4] >> (8 * (j % 4) + 4 * (e / 2)) & 15];
        to[e] = rounded<T>(x);
    }
}

/* ---- readers ----
 *
 * bytes: of `columns` columns; 0: a reader reads the matrix itself. unit: rows are as many bytes, or a
 * multiple. apart: how many parts have scales or offsets of a row. take: the numbers of the run that begins
 * at column i of the warp's. */

template <class T> struct in_t { /* in T */
    static constexpr int run = 16, columns = 64, bytes = 128, unit = 16, apart = 0;
    static __device__ void take(uint4 (&to)[2], const stored_columns &c, int i) {
        const uint4 *at = (const uint4 *)(c.codes + 2 * i);
        to[0] = at[0];
        to[1] = at[1];
    }
};

template <class T> struct in_any { /* any type and width that is a multiple of 8 */
    static constexpr int run = 8, columns = 64, bytes = 0, unit = 16, apart = 0;
    static __device__ void take(uint4 (&to)[1], const stored_columns &c, int i) {
        to[0] = rounded<T>(numbers_at<8>(*c.w, c.levels, c.row, c.first + i));
    }
};

/* Blocks of 32: w = d (q - zero) or d q + m. */
template <class T, bool minimum, bool fifth> struct in_nibbles {
    static constexpr int head = minimum ? 4 : 2, block = head + 16 + 4 * fifth;
    static constexpr int run = 32, columns = 256, bytes = 8 * block, unit = block, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        const uint8_t *at = c.codes + i / 32 * block;
        uint32_t codes[8];
        nibbles_of(codes, at + block - 16);
        if constexpr (fifth) {
            uint32_t bits[1];
            words_at(bits, at + head);
#pragma unroll
            for (int k = 0; k < 8; k++) codes[k] |= bit_a_byte(bits[0] >> 4 * k) << 4;
        }
        float d = f16_number(at);
        line l = minimum ? line_from(d, f16_number(at + 2)) : line_of(d, fifth ? 16 : 8);
        all_on<T, 32>(to, codes, &l);
    }
};

template <class T> struct in_q8_0 {
    static constexpr int run = 32, columns = 128, bytes = 4 * 34, unit = 34, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        const uint8_t *at = c.codes + i / 32 * 34;
        float d = f16_number(at);
        uint32_t words[8];
        words_at(words, at + 2);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++) x.v[j] = d * (float)(int8_t)(words[2 * e + j / 4] >> j % 4 * 8);
            to[e] = rounded<T>(x);
        }
    }
};

/* Blocks of 256. */
template <class T> struct in_q2_k {
    static constexpr int run = 32, columns = 256, bytes = 84, unit = 84, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t codes[8];
        whole_words(codes, c.codes + 16 + i / 128 * 32);
        float d = f16_number(c.codes + 80), m = f16_number(c.codes + 82);
        line lines[2];
        for (int g = 0; g < 2; g++) {
            int both = c.codes[i / 16 + g];
            lines[g] = line_from(d * (float)(both & 15), -m * (float)(both >> 4));
        }
#pragma unroll
        for (int k = 0; k < 8; k++) codes[k] = codes[k] >> i / 32 % 4 * 2 & 0x03030303u;
        all_on<T, 16>(to, codes, lines);
    }
};

template <class T> struct in_q3_k {
    static constexpr int run = 32, columns = 256, bytes = 110, unit = 110, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t codes[8], bits[8];
        words_at(codes, c.codes + 32 + i / 128 * 32);
        words_at(bits, c.codes);
        float d = f16_number(c.codes + 108);
        line lines[2];
        for (int g = 0; g < 2; g++)
            lines[g] = line_of(d * (float)block_q3_k_scale(c.codes + 96, i / 16 + g), 4);
#pragma unroll
        for (int k = 0; k < 8; k++)
            codes[k] = (codes[k] >> i / 32 % 4 * 2 & 0x03030303u) | (bits[k] >> i / 32 & 0x01010101u) << 2;
        all_on<T, 16>(to, codes, lines);
    }
};

/* Q4_K, and Q5_K with its fifth bits. */
template <class T, bool fifth> struct in_sixes {
    static constexpr int run = 32, columns = 256, bytes = fifth ? 176 : 144, unit = bytes, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t codes[8];
        whole_words(codes, c.codes + bytes - 128 + i / 64 * 32);
#pragma unroll
        for (int k = 0; k < 8; k++) codes[k] = codes[k] >> i / 32 % 2 * 4 & 0x0f0f0f0fu;
        if constexpr (fifth) {
            uint32_t bits[8];
            whole_words(bits, c.codes + 16);
#pragma unroll
            for (int k = 0; k < 8; k++) codes[k] |= (bits[k] >> i / 32 & 0x01010101u) << 4;
        }
        struct block_six six = block_six(c.codes + 4, i / 32);
        line l =
            line_from(f16_number(c.codes) * (float)six.scale, -f16_number(c.codes + 2) * (float)six.minimum);
        all_on<T, 32>(to, codes, &l);
    }
};

template <class T> struct in_q6_k {
    static constexpr int run = 32, columns = 256, bytes = 210, unit = 210, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t codes[8], twos[8];
        words_at(codes, c.codes + i / 128 * 64 + i % 64);
        words_at(twos, c.codes + 128 + i / 128 * 32);
        float d = f16_number(c.codes + 208);
        line lines[2];
        for (int g = 0; g < 2; g++) lines[g] = line_of(d * (float)(int8_t)c.codes[192 + i / 16 + g], 32);
#pragma unroll
        for (int k = 0; k < 8; k++)
            codes[k] = (codes[k] >> i / 64 % 2 * 4 & 0x0f0f0f0fu) | (twos[k] >> i / 32 % 4 * 2 & 0x03030303u)
                                                                        << 4;
        all_on<T, 16>(to, codes, lines);
    }
};

/* Four bits that name a level. */
template <class T> struct in_iq4_nl {
    static constexpr int run = 32, columns = 256, bytes = 8 * 18, unit = 18, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        const uint8_t *at = c.codes + i / 32 * 18;
        levels_of<T>(to, at + 2, c.levels, f16_number(at));
    }
};
template <class T> struct in_iq4_xs {
    static constexpr int run = 32, columns = 256, bytes = 136, unit = 136, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        levels_of<T>(to, c.codes + 8 + i / 2, c.levels,
                     f16_number(c.codes) * (float)block_iq4_xs_scale(c.codes, i / 32));
    }
};
template <class T> struct in_mxfp4 {
    static constexpr int run = 32, columns = 256, bytes = 8 * 17, unit = 17, apart = 0;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        const uint8_t *at = c.codes + i / 32 * 17;
        levels_of<T>(to, at + 1, c.levels, block_mxfp4_scale(*at));
    }
};

/* The high nibble comes first. */
template <class T> struct in_nf4 {
    static constexpr int run = 32, columns = 256, bytes = 128, unit = 32, apart = 1;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t words[4];
        whole_words(words, c.codes + i / 2);
        const struct stored_part &scales = c.w->matrix.part[PART_SCALES];
        float scale =
            scales.dtype == DTYPE_F32
                ? ((const float *)c.scales)[i / nf4_block]
                : nf4_scale_of(*c.w, (c.row * c.w->width + c.first + i) / nf4_block, c.scales[i / nf4_block]);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++)
                x.v[j] = c.levels[words[e] >> (8 * (j / 2) + (j % 2 ? 0 : 4)) & 15] * scale;
            to[e] = rounded<T>(x);
        }
    }
};

/* MLX's: a byte for each 32 is the scale's exponent; the low nibble comes first. */
template <class T> struct in_micro {
    static constexpr int run = 32, columns = 256, bytes = 128, unit = 16, apart = 1;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t words[4];
        whole_words(words, c.codes + i / 2);
        float scale = block_e8m0_scale(c.scales[i / 32]);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++) x.v[j] = c.levels[words[e] >> 4 * j & 15] * scale;
            to[e] = rounded<T>(x);
        }
    }
};

template <class T> struct in_int8 {
    static constexpr int run = 32, columns = 128, bytes = 128, unit = 32, apart = 1;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        const float unit = 7.874015718698502e-3f; /* stored_int8_unit of stored_parts.h */
        uint32_t words[8];
        whole_words(words, c.codes + i);
        float scale = *(const float *)c.scales;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++)
                x.v[j] = (float)(int8_t)(words[2 * e + j / 4] >> j % 4 * 8) * scale * unit;
            to[e] = rounded<T>(x);
        }
    }
};

/* A stream of codes of so many bits, 32 of which are as many words. */
template <class T, int bits> struct in_affine {
    static constexpr int run = 32, columns = bits == 8 ? 128 : 256, bytes = columns * bits / 8,
                         unit = 4 * bits, apart = 2;
    static __device__ void take(uint4 (&to)[4], const stored_columns &c, int i) {
        uint32_t words[bits + 1];
        int group = i / c.w->matrix.block;
        float scale = get1({(void *)c.scales, c.w->matrix.part[PART_SCALES].dtype, 0}, group);
        float offset = get1({(void *)c.offsets, c.w->matrix.part[PART_OFFSETS].dtype, 0}, group);
        line l = bits == 8 ? line{scale, offset} : line_from(scale, offset);
        whole_words(*(uint32_t(*)[bits])words, c.codes + i / 8 * bits);
        words[bits] = 0;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            lanes<8> x;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                int at = (8 * e + j) * bits;
                uint32_t code =
                    __funnelshift_r(words[at / 32], words[at / 32 + 1], at % 32) & ((1u << bits) - 1);
                float q = bits == 8 ? (float)code : __uint_as_float(code << 16 | 0x43000000u);
                x.v[j] = fmaf(q, l.scale, l.shift);
            }
            to[e] = rounded<T>(x);
        }
    }
};

#endif
