/* Numbers of 8 bits (e4m3) with a factor for each row, and the copies of weights and adapters that products
 * of them read (fp8.c). 448 is the largest number of e4m3; conversions round to nearest and stop there. */
#include <cuda_fp8.h>

#include "device/cuda/decode.cuh"

static const float largest_e4m3 = 448;

static __device__ inline uint8_t e4m3(float x) {
    return (uint8_t)__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
static __device__ inline float from_e4m3(uint8_t bits) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}
static __device__ inline uint32_t four_e4m3(const float *x) {
    uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(x[0], x[1]), __NV_SATFINITE, __NV_E4M3);
    uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(x[2], x[3]), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

/* A block for a row; the second reading comes out of the first cache. */
static __global__ void rows_of(uint8_t *y, int64_t stride, float *scales, struct array x, int64_t width) {
    int64_t row = blockIdx.x;
    float most = 0;
    COLUMNS(i, 8, width) {
        lanes<8> v = get<8>(x, row * x.stride + i);
        for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(v.v[j]));
    }
    most = block_max(most);
    float scale = most > 0 ? most / largest_e4m3 : 1, inverse = 1 / scale;
    if (!threadIdx.x) scales[row] = scale;
    COLUMNS(i, 8, width) {
        lanes<8> v = get<8>(x, row * x.stride + i);
        for (int j = 0; j < 8; j++) v.v[j] *= inverse;
        *(uint2 *)(y + row * stride + i) = make_uint2(four_e4m3(v.v), four_e4m3(v.v + 4));
    }
}

void cuda_fp8_rows(const struct fp8_rows *y, struct array x, int64_t rows, int64_t width,
                   cudaStream_t stream) {
    if (rows)
        rows_of<<<(unsigned)rows, row_threads(width, 8), 0, stream>>>(y->data, y->stride, y->scales, x,
                                                                      width);
}

/* ---- weights, when they are loaded ---- */

/* *bits: the largest |x| of all, as its bits, whose order is that of the numbers. */
static __global__ void largest(unsigned *bits, const __grid_constant__ struct weight_view w) {
    __shared__ float levels[16];
    float most = 0;
    load_levels(levels, w);
    COLUMNS(i, 1, w.width) most = fmaxf(most, fabsf(numbers_at<1>(w, levels, blockIdx.x, i).v[0]));
    most = block_max(most);
    if (!threadIdx.x) atomicMax(bits, __float_as_uint(most));
}

static __global__ void fill_scales(float *scales, const unsigned *bits, int64_t n) {
    float most = __uint_as_float(*bits);
    EACH(i, n) scales[i] = most > 0 ? most / largest_e4m3 : 1;
}

enum { tile = 32, lines = 8 };

/* Both ways round, over tiles; the second through shared memory. */
static __global__ void both_ways(struct fp8_weight y, const __grid_constant__ struct weight_view w,
                                 int64_t rows) {
    __shared__ uint8_t codes[tile][tile + 1];
    __shared__ float levels[16];
    int64_t row = (int64_t)blockIdx.y * tile, column = (int64_t)blockIdx.x * tile;
    float inverse = 1 / y.scales[0];
    if (threadIdx.y == 0 && threadIdx.x < 16) levels[threadIdx.x] = w.levels[threadIdx.x];
    __syncthreads();
    for (int r = threadIdx.y; r < tile; r += lines) {
        int64_t at = column + threadIdx.x;
        if (row + r >= rows || at >= w.width) continue;
        codes[r][threadIdx.x] = e4m3(numbers_at<1>(w, levels, row + r, at).v[0] * inverse);
        y.codes[(row + r) * y.stride + at] = codes[r][threadIdx.x];
    }
    __syncthreads();
    for (int c = threadIdx.y; c < tile; c += lines)
        if (column + c < w.width && row + threadIdx.x < rows)
            y.transposed[(column + c) * y.transposed_stride + row + threadIdx.x] = codes[threadIdx.x][c];
}

void cuda_fp8_weight(const struct fp8_weight *y, const struct matrix *x, int64_t rows, int64_t width,
                     cudaStream_t stream) {
    struct weight_view w = weight_view_of(x, width);
    unsigned *bits = (unsigned *)y->codes; /* not written yet */
    cudaMemsetAsync(bits, 0, sizeof *bits, stream);
    largest<<<(unsigned)rows, row_threads(width, 1), 0, stream>>>(bits, w);
    fill_scales<<<blocks_for(rows > width ? rows : width, 256), 256, 0, stream>>>(
        y->scales, bits, rows > width ? rows : width);
    dim3 tiles((unsigned)((width + tile - 1) / tile), (unsigned)((rows + tile - 1) / tile));
    both_ways<<<tiles, dim3(tile, lines), 0, stream>>>(*y, w, rows);
}

/* ---- the product of low rank, as three times its rank more numbers of each row ---- */

/* A number is two of e4m3, the second what the first leaves: as many bits as bf16 has. */
struct two {
    uint8_t first, second;
};
static __device__ inline struct two split(float x) {
    uint8_t first = e4m3(x);
    return {first, e4m3(x - from_e4m3(first))};
}

/* A power of two by which up is multiplied and low divided, so that both keep away from the ends of e4m3. */
static __global__ void __launch_bounds__(1024)
    balance(float *out, struct array up, int64_t rows, int64_t rank, float factor, const float *scale) {
    float most = 0;
    bool whole = up.stride == rank && rows * rank % 4 == 0;
    for (int64_t i = threadIdx.x * 4; whole && i < rows * rank; i += 4 * blockDim.x) {
        lanes<4> v = get<4>(up, i);
        for (int j = 0; j < 4; j++) most = fmaxf(most, fabsf(v.v[j]));
    }
    for (int64_t i = threadIdx.x; !whole && i < rows * rank; i += blockDim.x)
        most = fmaxf(most, fabsf(get1(up, i / rank * up.stride + i % rank)));
    most = block_max(most) * fabsf(factor) / *scale;
    if (threadIdx.x) return;
    float half = most > 0 ? floorf(log2f(largest_e4m3 / most) / 2) : 0;
    *out = exp2f(fminf(fmaxf(half, -30), 30));
}

/* [first | second | first] of low / (the row's factor · balance), zeros up to `extra`. */
static __global__ void low_tail(uint8_t *to, int64_t stride, const float *scales, struct array low,
                                int64_t rows, int rank, int extra, const float *balance_at) {
    int slots = extra - 2 * rank; /* of a row: one for each number, and for each zero behind them */
    EACH(i, rows * slots) {
        int64_t row = i / slots;
        int c = (int)(i % slots);
        uint8_t *at = to + row * stride;
        if (c >= rank) {
            at[2 * rank + c] = 0;
            continue;
        }
        struct two t = split(get1(low, row * low.stride + c) / (scales[row] * *balance_at));
        at[c] = t.first;
        at[rank + c] = t.second;
        at[2 * rank + c] = t.first;
    }
}

/* [first | first | second] of up · factor · balance / the weight's factor; element (row, c) of up lies at
 * row · along + c · across. */
static __global__ void up_tail(uint8_t *to, int64_t stride, const float *scale, struct array up,
                               int64_t along, int64_t across, float factor, int64_t rows, int rank, int extra,
                               const float *balance_at) {
    int slots = extra - 2 * rank;
    EACH(i, rows * slots) {
        int64_t row = i / slots;
        int c = (int)(i % slots);
        uint8_t *at = to + row * stride;
        if (c >= rank) {
            at[2 * rank + c] = 0;
            continue;
        }
        struct two t = split(get1(up, row * along + c * across) * factor * *balance_at / *scale);
        at[c] = t.first;
        at[rank + c] = t.first;
        at[2 * rank + c] = t.second;
    }
}

void cuda_fp8_tails(const struct fp8_tails *t, cudaStream_t stream) {
    int slots = t->extra - 2 * t->rank;
    /* Of up as it lies: rows of `rank`, or `rank` rows. */
    bool by_rows = t->across == 1;
    balance<<<1, 1024, 0, stream>>>(t->balance, t->up, by_rows ? t->columns : t->rank,
                                    by_rows ? t->rank : t->columns, t->factor, t->w_scales);
    low_tail<<<blocks_for(t->rows * slots, 256), 256, 0, stream>>>(t->x, t->x_stride, t->x_scales, t->low,
                                                                   t->rows, t->rank, t->extra, t->balance);
    up_tail<<<blocks_for(t->columns * slots, 256), 256, 0, stream>>>(
        t->w, t->w_stride, t->w_scales, t->up, t->along, t->across, t->factor, t->columns, t->rank, t->extra,
        t->balance);
}
