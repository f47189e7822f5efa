/* Products of few rows, as decoding makes them: a warp for each output, which reads its row of the weight as
 * it is stored, once. Sums run along the row in a fixed order. */
#include "device/cuda/decode.cuh"

enum { warps = 4 };

/* N numbers a lane at a time; up to M rows of x. */
template <int N, int M>
static __global__ void __launch_bounds__(32 * warps)
    few(const __grid_constant__ struct thin t, struct array x, const __grid_constant__ struct weight_view w,
        float alpha) {
    __shared__ float levels[16];
    int lane = threadIdx.x % 32, rows = (int)t.rows;
    int64_t n = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    float sum[M] = {}, low[M] = {};
    load_levels(levels, w);
    if (n >= t.columns) return;
#pragma unroll 4
    for (int64_t i = lane * N; i < w.width; i += 32 * N) {
        lanes<N> b = numbers_at<N>(w, levels, n, i);
        for (int m = 0; m < M; m++) {
            if (m >= rows) break;
            lanes<N> a = get<N>(x, m * x.stride + i);
            for (int j = 0; j < N; j++) sum[m] = fmaf(a.v[j], b.v[j], sum[m]);
        }
    }
    for (int64_t r = lane; t.low.data && r < t.rank; r += 32)
        for (int m = 0; m < M && m < rows; m++)
            low[m] = fmaf(get1(t.low, m * t.low.stride + r), get1(t.up, r * t.along + n * t.across), low[m]);
    for (int m = 0; m < M; m++) {
        if (m >= rows) break;
        float y = alpha * warp_sum(sum[m]) + t.beta * warp_sum(low[m]);
        if (t.bias.data) y += get1(t.bias, n);
        if (t.addend.data) y += get1(t.addend, m * t.addend.stride + n);
        __syncwarp(); /* y may lie on the addend */
        if (!lane) put1(t.y, m * t.y.stride + n, y);
    }
}

template <int N>
static void launch(const struct thin *t, struct array x, const struct weight_view &w, float alpha,
                   cudaStream_t stream) {
    unsigned blocks = (unsigned)((t->columns + warps - 1) / warps);
    if (t->rows == 1)
        few<N, 1><<<blocks, 32 * warps, 0, stream>>>(*t, x, w, alpha);
    else if (t->rows <= 4)
        few<N, 4><<<blocks, 32 * warps, 0, stream>>>(*t, x, w, alpha);
    else
        few<N, 8><<<blocks, 32 * warps, 0, stream>>>(*t, x, w, alpha);
}

void cuda_few(const struct thin *t, struct array x, const struct matrix *w, int64_t width, float alpha,
              cudaStream_t stream) {
    struct weight_view view = weight_view_of(w, width);
    if (!t->rows || !t->columns) return;
    if (width % 8 == 0)
        launch<8>(t, x, view, alpha, stream);
    else
        launch<1>(t, x, view, alpha, stream);
}
