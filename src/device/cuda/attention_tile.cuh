/* What the kernels of attention on tensor cores share (attention_flash.cu, attention_wgmma.cu): copies to
 * shared memory, a thread's rows of a tile, its softmax, its mask, its way to memory. */
#ifndef HONE_DEVICE_CUDA_ATTENTION_TILE_CUH
#define HONE_DEVICE_CUDA_ATTENTION_TILE_CUH

#include <climits>

#include "device/cuda/fragments.cuh"

static __device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
static __device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

constexpr float log2_e = 1.44269504f;

/* A thread's rows, two of each fragment, and where their keys begin. A row past the end sees no key. */
template <int M> struct own_rows {
    int row[M][2], start[M][2];
    int first, last, late; /* of the warp: first and last row, where the last one's keys begin */
    __device__ void
    all_from(int key) { /* the keys of all rows begin there; those past the end still see none */
        late = key;
        for (int m = 0; m < M; m++)
            for (int i = 0; i < 2; i++) start[m][i] = start[m][i] == INT_MAX ? INT_MAX : key;
    }
};
template <int M> static __device__ inline own_rows<M> rows_from(const struct attention &a, int first) {
    own_rows<M> r = {.first = first, .last = first + 16 * M - 1};
    r.late = r.last < a.tokens ? a.ranges.start[r.last] : INT_MAX;
    for (int m = 0; m < M; m++)
        for (int i = 0; i < 2; i++) {
            r.row[m][i] = first + 16 * m + threadIdx.x % 32 / 4 + 8 * i;
            r.start[m][i] = r.row[m][i] < a.tokens ? a.ranges.start[r.row[m][i]] : INT_MAX;
        }
    return r;
}

/* Writes [16 M, D] of fragments to the rows of a thread; `factor` for each of them. */
template <int D, int M>
static __device__ inline void write_tile(const struct array &out, const float (&x)[M][D / 8][4],
                                         const own_rows<M> &r, int64_t tokens, int64_t column,
                                         const float (&factor)[M][2]) {
    int at = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
        for (int n = 0; n < D / 8; n++)
            for (int i = 0; i < 2; i++) {
                if (r.row[m][i] >= tokens) continue;
                float low = x[m][n][2 * i] * factor[m][i], high = x[m][n][2 * i + 1] * factor[m][i];
                int64_t to = r.row[m][i] * out.stride + column + n * 8 + at;
                if (out.type == DTYPE_F32)
                    *(float2 *)((float *)out.data + to) = make_float2(low, high);
                else
                    *(uint32_t *)((number16 *)out.data + to) =
                        out.type == DTYPE_BF16 ? two_bf16(low, high) : two_f16(low, high);
            }
}

template <int M> struct ones {
    float v[M][2];
    __device__ ones() {
        for (int m = 0; m < M; m++) v[m][0] = v[m][1] = 1;
    }
};

/* Scores of a tile of keys become weights; `keep`: by which what was summed before is scaled to the new
 * maximum. c: scale · log2 e. */
template <int M, int N>
static __device__ inline void soften(float (&s)[M][N][4], float (&most)[M][2], float (&sum)[M][2],
                                     float (&keep)[M][2], float c) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = most[m][r];
#pragma unroll
            for (int n = 0; n < N; n++) top = fmaxf(top, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
            top = quad_max(top);
            float shift = top == -INFINITY ? 0 : top * c;
            keep[m][r] = exp2_of(fmaf(most[m][r], c, -shift));
            most[m][r] = top;
            sum[m][r] *= keep[m][r];
#pragma unroll
            for (int n = 0; n < N; n++)
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[m][n][e] = exp2_of(fmaf(s[m][n][e], c, -shift));
                    sum[m][r] += s[m][n][e];
                }
        }
}
template <int M, int N>
static __device__ inline void scale_rows(float (&x)[M][N][4], const float (&factor)[M][2]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
            for (int e = 0; e < 4; e++) x[m][n][e] *= factor[m][e / 2];
}

/* After the last tile: the factor of a thread's sums, and what its rows' softmax comes to. */
template <int M>
static __device__ inline void finish_rows(const struct attention &a, const own_rows<M> &mine, int h,
                                          float (&factor)[M][2], const float (&most)[M][2],
                                          const float (&sum)[M][2]) {
#pragma unroll
    for (int m = 0; m < M; m++)
        for (int r = 0; r < 2; r++) {
            float all = quad_sum(sum[m][r]);
            factor[m][r] = 1 / all;
            if (a.lse && threadIdx.x % 4 == 0 && mine.row[m][r] < a.tokens)
                a.lse[(int64_t)mine.row[m][r] * a.heads + h] = most[m][r] * a.scale + logf(all);
        }
}

/* Scores of keys that a row does not see become -∞. */
template <int M, int N>
static __device__ inline void hide(float (&s)[M][N][4], const own_rows<M> &mine, int j0) {
#pragma unroll
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int e = 0; e < 4; e++) {
                int j = j0 + n * 8 + threadIdx.x % 4 * 2 + e % 2;
                bool hidden = (j > mine.row[m][e / 2]) | (j < mine.start[m][e / 2]);
                s[m][n][e] = hidden ? -INFINITY : s[m][n][e];
            }
}

#endif
