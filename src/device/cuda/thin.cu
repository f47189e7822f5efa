/* y = beta low up + bias + addend: what a product of full width is then added to, and the product that the
 * library refuses. Tiles of 64 × 64, 16 × 16 threads of 4 × 4 numbers; sums run along k in order. */
#include "device/cuda/kernel.cuh"

enum { tile = 64, deep = 16, threads = 256 };

/* A tile's sums: x(i, k) and w(k, j) give operands. Shared memory holds `deep` columns of x, rows of w. */
template <class X, class W>
static __device__ inline void tile_product(float (&sum)[4][4], int64_t row, int64_t column, int64_t m,
                                           int64_t n, int64_t length, X x, W w) {
    __shared__ float left[deep][tile + 4], right[deep][tile + 4];
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (int64_t k0 = 0; k0 < length; k0 += deep) {
        for (int i = threadIdx.x; i < deep * tile; i += threads) {
            int k = i % deep, r = i / deep;
            left[k][r] = row + r < m && k0 + k < length ? x(row + r, k0 + k) : 0;
            int c = i % tile, kk = i / tile;
            right[kk][c] = column + c < n && k0 + kk < length ? w(k0 + kk, column + c) : 0;
        }
        __syncthreads();
        for (int k = 0; k < deep; k++) {
            float a[4], b[4];
            for (int i = 0; i < 4; i++) {
                a[i] = left[k][ty * 4 + i];
                b[i] = right[k][tx * 4 + i];
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
        }
        __syncthreads();
    }
}

/* N: 4 where rows are whole vectors, else 1. */
template <int N> static __global__ void __launch_bounds__(threads) lay(struct thin t) {
    int64_t row = (int64_t)blockIdx.y * tile, column = (int64_t)blockIdx.x * tile;
    float sum[4][4] = {};
    if (t.low.data)
        tile_product(
            sum, row, column, t.rows, t.columns, t.rank,
            [&](int64_t i, int64_t k) { return get1(t.low, i * t.low.stride + k); },
            [&](int64_t k, int64_t j) { return get1(t.up, k * t.along + j * t.across); });
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j += N) {
            int64_t r = row + threadIdx.x / 16 * 4 + i, c = column + threadIdx.x % 16 * 4 + j;
            if (r >= t.rows || c >= t.columns) continue;
            lanes<N> y, more = {};
            for (int n = 0; n < N; n++) y.v[n] = t.beta * sum[i][j + n];
            if (t.bias.data) more = get<N>(t.bias, c);
            for (int n = 0; n < N; n++) y.v[n] += more.v[n];
            if (t.addend.data) {
                more = get<N>(t.addend, r * t.addend.stride + c);
                for (int n = 0; n < N; n++) y.v[n] += more.v[n];
            }
            put<N>(t.y, r * t.y.stride + c, y);
        }
}

static dim3 tiles(int64_t rows, int64_t columns) {
    return dim3((unsigned)((columns + tile - 1) / tile), (unsigned)((rows + tile - 1) / tile));
}

void cuda_thin(const struct thin *t, cudaStream_t stream) {
    if (!t->rows || !t->columns) return;
    if (t->columns % 4 == 0)
        lay<4><<<tiles(t->rows, t->columns), threads, 0, stream>>>(*t);
    else
        lay<1><<<tiles(t->rows, t->columns), threads, 0, stream>>>(*t);
}

static __global__ void __launch_bounds__(threads) plain(struct plain_product p) {
    int64_t row = (int64_t)blockIdx.y * tile, column = (int64_t)blockIdx.x * tile;
    float sum[4][4] = {};
    tile_product(
        sum, row, column, p.m, p.n, p.k,
        [&](int64_t i, int64_t k) { return get1(p.x, i * p.x_row + k * p.x_column); },
        [&](int64_t k, int64_t j) { return get1(p.w, k * p.w_row + j * p.w_column); });
    const struct array addend = {(void *)p.addend, p.y.type, p.y.stride};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int64_t r = row + threadIdx.x / 16 * 4 + i, c = column + threadIdx.x % 16 * 4 + j;
            if (r >= p.m || c >= p.n) continue;
            float value = p.alpha * sum[i][j];
            if (p.beta != 0) value += p.beta * get1(addend, r * p.y.stride + c);
            put1(p.y, r * p.y.stride + c, value);
        }
}

void cuda_plain_product(const struct plain_product *p, cudaStream_t stream) {
    if (p->m && p->n) plain<<<tiles(p->m, p->n), threads, 0, stream>>>(*p);
}
