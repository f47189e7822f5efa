/* Rows of e4m3 with a factor each, for the kernels that write them: fp8.cu's own, and those that have a row
 * at hand which a product reads next. */
#ifndef HONE_DEVICE_CUDA_FP8_CUH
#define HONE_DEVICE_CUDA_FP8_CUH

#include <cuda_fp8.h>

#include "device/cuda/kernel.cuh"

/* The largest number of e4m3; conversions round to nearest and stop there. */
static const float largest_e4m3 = 448;

__device__ inline uint32_t four_e4m3(const float *x) {
    uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(x[0], x[1]), __NV_SATFINITE, __NV_E4M3);
    uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(x[2], x[3]), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

template <int N> __device__ inline float largest_of(const lanes<N> &x, float most) {
    for (int j = 0; j < N; j++) most = fmaxf(most, fabsf(x.v[j]));
    return most;
}

__device__ inline void put_e4m3(uint8_t *to, lanes<8> x, float factor) {
    for (int j = 0; j < 8; j++) x.v[j] *= factor;
    *(uint2 *)to = make_uint2(four_e4m3(x.v), four_e4m3(x.v + 4));
}

/* to = x[row] · factor */
__device__ inline void code_columns(uint8_t *to, const struct array &x, int64_t row, int64_t width,
                                    float factor) {
    COLUMNS(i, 8, width) put_e4m3(to + i, get<8>(x, row * x.stride + i), factor);
}

/* Sets a row's factor; what its numbers are to be multiplied by. most: the largest that the thread has seen.
 */
__device__ inline float scale_row(const struct fp8_rows &y, int64_t row, float most) {
    most = block_max(most);
    float scale = most > 0 ? most / largest_e4m3 : 1;
    if (!threadIdx.x) y.scales[row] = scale;
    return 1 / scale;
}

/* y[row] = x[row], by the block that has written x[row] or only read it, each thread the same columns. */
__device__ inline void code_row(const struct fp8_rows &y, const struct array &x, int64_t row, int64_t width,
                                float most) {
    code_columns(y.data + row * y.stride, x, row, width, scale_row(y, row, most));
}

/* The columns of a row, 8 at a time, of which each thread has at most V vectors: v counts them. */
#define KEPT_COLUMNS(i, v, V, width)           \
    _Pragma("unroll") for (int v = 0; v < (V); \
                           v++) if (int64_t i = ((int64_t)v * blockDim.x + threadIdx.x) * 8; i < (width))
/* kernel<V> for each row. */
enum { most_kept = 4, most_threads = 512 };
#define KEPT_ROWS(rows, width, kernel, ...)                                               \
    ((width) <= 8 * most_threads                                                          \
         ? kernel<1><<<(unsigned)(rows), row_threads(width, 8), 0, stream>>>(__VA_ARGS__) \
     : (width) <= 16 * most_threads                                                       \
         ? kernel<2><<<(unsigned)(rows), most_threads, 0, stream>>>(__VA_ARGS__)          \
         : kernel<most_kept><<<(unsigned)(rows), most_threads, 0, stream>>>(__VA_ARGS__))
static inline bool is_kept(const struct fp8_rows *codes, const struct array &y, int64_t width) {
    return codes->data && y.type == DTYPE_BF16 && width <= 8 * most_kept * most_threads;
}

/* A row on its way to bf16 and e4m3: kept by its block until its largest number is known. */
template <int V> struct kept_row {
    uint4 bits[V];
    float most = 0;

    __device__ inline void put(int v, const struct array &y, int64_t at, const lanes<8> &x) {
        bits[v] = to_bf16(x);
        *(uint4 *)((__nv_bfloat16 *)y.data + at) = bits[v];
        most = largest_of(x, most);
    }
    __device__ inline void code(const struct fp8_rows &y, int64_t row, int64_t width) {
        float factor = scale_row(y, row, most);
        KEPT_COLUMNS(i, v, V, width) put_e4m3(y.data + row * y.stride + i, from_bf16(bits[v]), factor);
    }
};

#endif
