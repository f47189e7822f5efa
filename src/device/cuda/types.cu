/* Stored types to f32 or bf16, a thread for eight numbers. Layouts and equations: src/tensor/rowcodec*.c;
 * each product and sum is rounded (compiled with -fmad=false), so that values equal those bit for bit. */
#include "device/cuda/kernel.cuh"
#include "tensor/block_scales.h"

/* What a type's blocks are; tensor/dtype.c has the same, for the host. */
struct block_shape {
    int elements, bytes;
};

static bool shape_of(enum dtype type, struct block_shape *out) {
    const struct {
        enum dtype type;
        struct block_shape shape;
    } rows[] = {
        {DTYPE_F32, {1, 4}},      {DTYPE_F16, {1, 2}},      {DTYPE_BF16, {1, 2}},
        {DTYPE_Q4_0, {32, 18}},   {DTYPE_Q4_1, {32, 20}},   {DTYPE_Q5_0, {32, 22}},
        {DTYPE_Q5_1, {32, 24}},   {DTYPE_Q8_0, {32, 34}},   {DTYPE_Q2_K, {256, 84}},
        {DTYPE_Q3_K, {256, 110}}, {DTYPE_Q4_K, {256, 144}}, {DTYPE_Q5_K, {256, 176}},
        {DTYPE_Q6_K, {256, 210}}, {DTYPE_IQ4_NL, {32, 18}}, {DTYPE_IQ4_XS, {256, 136}},
        {DTYPE_MXFP4, {32, 17}},
    };
    for (const auto &row : rows)
        if (row.type == type) {
            *out = row.shape;
            return true;
        }
    return false;
}

bool cuda_decodes(enum dtype type) {
    struct block_shape ignored;
    return shape_of(type, &ignored);
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

/* y[row] = x[index ? index[row] : row]; the rows of a type with blocks lie one behind the other. */
template <int N>
static __global__ void take(struct array y, struct array x, struct block_shape shape, const int32_t *index,
                            int64_t width) {
    int64_t row = blockIdx.x, source = index ? index[row] : row;
    COLUMNS(i, N, width) {
        lanes<N> out;
        if (shape.elements == 1) {
            out = get<N>(x, source * x.stride + i);
        } else {
            const uint8_t *at = (const uint8_t *)x.data + (source * width + i) / shape.elements * shape.bytes;
            int first = (int)(i % shape.elements);
            for (int j = 0; j < N; j++) out.v[j] = element(x.type, at, first + j);
        }
        put<N>(y, row * y.stride + i, out);
    }
}

void cuda_take_rows(struct array y, struct array x, const int32_t *index, int64_t rows, int64_t width,
                    cudaStream_t stream) {
    struct block_shape shape;
    if (!rows || !shape_of(x.type, &shape)) return;
    if (width % 8 == 0)
        take<8><<<(unsigned)rows, row_threads(width, 8), 0, stream>>>(y, x, shape, index, width);
    else
        take<1><<<(unsigned)rows, row_threads(width, 1), 0, stream>>>(y, x, shape, index, width);
}

void cuda_decode(struct array y, struct array x, int64_t rows, int64_t width, cudaStream_t stream) {
    cuda_take_rows(y, x, NULL, rows, width, stream);
}
