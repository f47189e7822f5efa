/* Numbers of a stored matrix one vector at a time, for the kernels that read weights as they lie. Layouts and
 * equations: src/tensor/rowcodec*.c, stored.c; each product and sum is rounded (compiled with -fmad=false),
 * so that values equal those bit for bit. */
#ifndef HONE_DEVICE_CUDA_DECODE_CUH
#define HONE_DEVICE_CUDA_DECODE_CUH

#include "device/cuda/kernel.cuh"
#include "tensor/block_scales.h"

/* A matrix as a kernel is given it, with the levels of nf4 or MLX's mxfp4. */
struct weight_view {
    struct matrix matrix;
    int64_t width;
    float levels[16];
};

static inline struct weight_view weight_view_of(const struct matrix *matrix, int64_t width) {
    struct weight_view out = {.matrix = *matrix, .width = width};
    memcpy(out.levels, matrix->form == FORM_MICRO ? e2m1_levels : nf4_levels, sizeof out.levels);
    return out;
}

static __device__ inline float f16_at(const uint8_t *at) {
    return __half2float(__ushort_as_half((unsigned short)(at[0] | at[1] << 8)));
}

/* w = d (q - zero), or d q + m */
template <bool minimum, bool fifth> static __device__ inline float nibble_type(const uint8_t *at, int i) {
    const int head = minimum ? 4 : 2, zero = minimum ? 0 : fifth ? 16 : 8;
    const uint8_t *nibbles = at + head + (fifth ? 4 : 0);
    int q = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
    if (fifth) q |= (at[head + i / 8] >> i % 8 & 1) << 4;
    float w = f16_at(at) * (float)(q - zero);
    return minimum ? w + f16_at(at + 2) : w;
}

static __device__ inline float affine(float d, float m, int scale, int minimum, int q) {
    float s = d * (float)scale, n = m * (float)minimum, w = s * (float)q;
    return w - n;
}

static __device__ inline float sixes(const uint8_t *at, int i, int q) {
    struct block_six six = block_six(at + 4, i / 32);
    return affine(f16_at(at), f16_at(at + 2), six.scale, six.minimum, q);
}

static __device__ inline float level_of(const int8_t *levels, float d, const uint8_t *nibbles, int i) {
    return d * (float)levels[i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4];
}

/* Element i of the block at `at`. */
static __device__ inline float element(enum dtype type, const uint8_t *at, int i) {
    switch (type) {
    case DTYPE_Q4_0: return nibble_type<false, false>(at, i);
    case DTYPE_Q4_1: return nibble_type<true, false>(at, i);
    case DTYPE_Q5_0: return nibble_type<false, true>(at, i);
    case DTYPE_Q5_1: return nibble_type<true, true>(at, i);
    case DTYPE_Q8_0: return f16_at(at) * (float)(int8_t)at[2 + i];
    case DTYPE_Q2_K:
        return affine(f16_at(at + 80), f16_at(at + 82), at[i / 16] & 15, at[i / 16] >> 4,
                      block_two(at + 16, i));
    case DTYPE_Q3_K:
        return f16_at(at + 108) * (float)block_q3_k_scale(at + 96, i / 16) *
               (float)((block_two(at + 32, i) | block_bit(at, i) << 2) - 4);
    case DTYPE_Q4_K: return sixes(at, i, block_nibble(at + 16, i, 32));
    case DTYPE_Q5_K: return sixes(at, i, block_nibble(at + 48, i, 32) | block_bit(at + 16, i) << 4);
    case DTYPE_Q6_K:
        return f16_at(at + 208) * (float)(int8_t)at[192 + i / 16] *
               (float)((block_nibble(at, i, 64) | block_two(at + 128, i) << 4) - 32);
    case DTYPE_IQ4_NL: return level_of(block_nonlinear, f16_at(at), at + 2, i);
    case DTYPE_IQ4_XS:
        return level_of(block_nonlinear, f16_at(at) * (float)block_iq4_xs_scale(at, i / 32),
                        at + 8 + 16 * (i / 32), i % 32);
    case DTYPE_MXFP4: return level_of(block_e2m1_doubled, block_mxfp4_scale(*at), at + 1, i);
    default: return 0; /* plain types do not come here */
    }
}

/* The levels of a type with a table, to shared memory, where lanes read different ones at once. Every thread
 * of a block calls this before numbers_at. */
static __device__ inline void load_levels(float (&levels)[16], const struct weight_view &w) {
    const int8_t *table = w.matrix.codes.type == DTYPE_MXFP4 ? block_e2m1_doubled : block_nonlinear;
    int i = threadIdx.x;
    if (i < 16) levels[i] = w.matrix.form == FORM_BLOCK ? (float)table[i] : w.levels[i];
    __syncthreads();
}

static __device__ inline float part_number(const struct weight_view &w, enum tensor_part part,
                                           int64_t index) {
    const struct stored_part &of = w.matrix.part[part];
    return get1({(void *)of.data, of.dtype, 0}, index);
}

/* The scale of a block that is stored as a code. */
static __device__ inline float nf4_scale_of(const struct weight_view &w, int64_t block, int code) {
    return part_number(w, PART_LEVELS, code) * part_number(w, PART_FACTORS, block / nf4_outer_block) +
           part_number(w, PART_OFFSETS, 0);
}

static __device__ inline float nf4_scale(const struct weight_view &w, int64_t block) {
    const struct stored_part &scales = w.matrix.part[PART_SCALES];
    if (scales.dtype == DTYPE_F32) return ((const float *)scales.data)[block];
    return nf4_scale_of(w, block, ((const uint8_t *)scales.data)[block]);
}

/* From element `at` of the flattened matrix on, which one scale serves. */
template <int N>
static __device__ inline lanes<N> nf4_numbers(const struct weight_view &w, const float *levels, int64_t at) {
    lanes<N> out;
    const uint8_t *codes = (const uint8_t *)w.matrix.codes.data + at / 2;
    float scale = nf4_scale(w, at / nf4_block);
    if constexpr (N == 8) {
        uint32_t eight = *(const uint32_t *)codes;
        for (int j = 0; j < 8; j++) out.v[j] = levels[eight >> (8 * (j / 2) + (j % 2 ? 0 : 4)) & 15] * scale;
    } else {
        out.v[0] = levels[at % 2 ? *codes & 15 : *codes >> 4] * scale;
    }
    return out;
}

template <int N>
static __device__ inline lanes<N> int8_numbers(const struct weight_view &w, int64_t row, int64_t column) {
    lanes<N> out;
    const int8_t *codes = (const int8_t *)w.matrix.codes.data + row * w.width + column;
    const float unit = 7.874015718698502e-3f; /* stored_int8_unit of stored_parts.h */
    float scale = part_number(w, PART_SCALES, row);
    if constexpr (N == 8) {
        uint2 eight = *(const uint2 *)codes;
        for (int j = 0; j < 8; j++)
            out.v[j] = (float)(int8_t)((j < 4 ? eight.x : eight.y) >> 8 * (j % 4)) * scale * unit;
    } else {
        out.v[0] = (float)*codes * scale * unit;
    }
    return out;
}

/* Codes are a stream of bits, eight of which begin at a whole byte. */
template <int N>
static __device__ inline lanes<N> affine_numbers(const struct weight_view &w, int64_t row, int64_t column) {
    lanes<N> out;
    int bits = w.matrix.bytes * 8 / w.matrix.block, mask = (1 << bits) - 1, first = (int)(column % 8);
    const uint8_t *codes = (const uint8_t *)w.matrix.codes.data + (row * w.width + column) / 8 * bits;
    int64_t group = (row * w.width + column) / w.matrix.block;
    float scale = part_number(w, PART_SCALES, group), offset = part_number(w, PART_OFFSETS, group);
    uint64_t eight = 0;
    for (int b = 0; b < bits; b++) eight |= (uint64_t)codes[b] << 8 * b;
    for (int j = 0; j < N; j++)
        out.v[j] = scale * (float)(int)(eight >> (first + j) * bits & (unsigned)mask) + offset;
    return out;
}

template <int N>
static __device__ inline lanes<N> micro_numbers(const struct weight_view &w, const float *levels, int64_t row,
                                                int64_t column) {
    lanes<N> out;
    int64_t at = row * w.width + column;
    const uint8_t *codes = (const uint8_t *)w.matrix.codes.data + at / 2;
    float scale = block_e8m0_scale(((const uint8_t *)w.matrix.part[PART_SCALES].data)[at / w.matrix.block]);
    if constexpr (N == 8) {
        uint32_t eight = *(const uint32_t *)codes;
        for (int j = 0; j < 8; j++) out.v[j] = levels[eight >> 4 * j & 15] * scale;
    } else {
        out.v[0] = levels[*codes >> at % 2 * 4 & 15] * scale;
    }
    return out;
}

/* N numbers of a row, `column` a multiple of N, which is 1, or 8 where 8 divides the width. */
template <int N>
static __device__ inline lanes<N> numbers_at(const struct weight_view &w, const float *levels, int64_t row,
                                             int64_t column) {
    const struct array &codes = w.matrix.codes;
    switch (w.matrix.form) {
    case FORM_LEVELS: return nf4_numbers<N>(w, levels, row * w.width + column);
    case FORM_ROWS: return int8_numbers<N>(w, row, column);
    case FORM_AFFINE: return affine_numbers<N>(w, row, column);
    case FORM_MICRO: return micro_numbers<N>(w, levels, row, column);
    default: break;
    }
    if (w.matrix.block == 1) return get<N>(codes, row * codes.stride + column);
    lanes<N> out;
    const uint8_t *at =
        (const uint8_t *)codes.data + (row * w.width + column) / w.matrix.block * w.matrix.bytes;
    int first = (int)(column % w.matrix.block);
    for (int j = 0; j < N; j++) out.v[j] = element(codes.type, at, first + j);
    return out;
}

#endif
