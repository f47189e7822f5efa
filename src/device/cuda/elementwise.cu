/* Operations element by element, or row by row without a sum; the equations are in src/op. */
#include "base/rng.h"
#include "device/cuda/kernel.cuh"

enum { threads = 256 };

/* Work in vectors of 8 where the length allows it. */
#define BY_LANES(n, kernel, ...)                                                                 \
    ((n) % 8 == 0 ? kernel<8><<<blocks_for((n) / 8, threads), threads, 0, stream>>>(__VA_ARGS__) \
                  : kernel<1><<<blocks_for((n), threads), threads, 0, stream>>>(__VA_ARGS__))

template <int N> static __global__ void add(struct array y, struct array a, struct array b, int64_t n) {
    EACH(i, n / N) {
        lanes<N> u = get<N>(a, i * N), v = get<N>(b, i * N);
        for (int j = 0; j < N; j++) u.v[j] += v.v[j];
        put<N>(y, i * N, u);
    }
}

void cuda_add(struct array y, struct array a, struct array b, int64_t n, cudaStream_t stream) {
    if (n) BY_LANES(n, add, y, a, b, n);
}

template <int N> static __global__ void glu(struct array y, struct array gate, struct array up, int64_t n) {
    EACH(i, n / N) {
        lanes<N> g = get<N>(gate, i * N), u = get<N>(up, i * N);
        for (int j = 0; j < N; j++) g.v[j] = g.v[j] / (1 + expf(-g.v[j])) * u.v[j];
        put<N>(y, i * N, g);
    }
}

void cuda_glu(struct array y, struct array gate, struct array up, int64_t n, cudaStream_t stream) {
    if (n) BY_LANES(n, glu, y, gate, up, n);
}

template <int N>
static __global__ void glu_grad(struct array dgate, struct array dup, struct array gate, struct array up,
                                struct array dy, int64_t n) {
    EACH(i, n / N) {
        lanes<N> g = get<N>(gate, i * N), u = get<N>(up, i * N), d = get<N>(dy, i * N);
        for (int j = 0; j < N; j++) {
            float sigmoid = 1 / (1 + expf(-g.v[j])), dx = d.v[j];
            d.v[j] = dx * g.v[j] * sigmoid;
            g.v[j] = dx * u.v[j] * sigmoid * (1 + g.v[j] * (1 - sigmoid));
        }
        put<N>(dgate, i * N, g);
        put<N>(dup, i * N, d);
    }
}

void cuda_glu_grad(struct array dgate, struct array dup, struct array gate, struct array up, struct array dy,
                   int64_t n, cudaStream_t stream) {
    if (n) BY_LANES(n, glu_grad, dgate, dup, gate, up, dy, n);
}

/* One thread for four channels, which one Philox call serves. */
static __global__ void dropout(struct array y, struct array x, const int32_t *positions,
                               const uint32_t *examples, const uint32_t *random, uint32_t threshold,
                               float scale, uint32_t module, int64_t rows, int64_t width) {
    int64_t quads = (width + 3) / 4;
    uint64_t seed = (uint64_t)random[1] << 32 | random[0];
    EACH(i, rows * quads) {
        int64_t t = i / quads, quad = i % quads;
        uint32_t counter[4] = {(uint32_t)quad, (uint32_t)positions[t], examples[t], random[2] << 16 | module};
        uint32_t words[4];
        philox(seed, counter, words);
        for (int j = 0; j < 4 && quad * 4 + j < width; j++) {
            int64_t at = t * width + quad * 4 + j;
            float value = get1(x, at);
            put1(y, at, words[j] < threshold ? 0 : value * scale);
        }
    }
}

void cuda_dropout(struct array y, struct array x, const int32_t *positions, const uint32_t *examples,
                  const uint32_t *random, double probability, int module, int64_t rows, int64_t width,
                  cudaStream_t stream) {
    if (!rows) return;
    uint32_t threshold = (uint32_t)floor(probability * 4294967296.0);
    dropout<<<blocks_for(rows * ((width + 3) / 4), threads), threads, 0, stream>>>(
        y, x, positions, examples, random, threshold, (float)(1 / (1 - probability)), (uint32_t)module, rows,
        width);
}

/* f64: angles reach 10⁵ radians, where f32 has no digits left. */
static __global__ void rope_table(float *table, const int32_t *positions, const float *frequencies,
                                  int64_t rows, int64_t half) {
    EACH(i, rows * half) {
        int64_t t = i / half, c = i % half;
        double angle = (double)positions[t] * (double)frequencies[c];
        table[t * 2 * half + c] = (float)cos(angle);
        table[t * 2 * half + half + c] = (float)sin(angle);
    }
}

void cuda_rope_table(float *table, const int32_t *positions, const float *frequencies, int64_t rows,
                     int64_t half, cudaStream_t stream) {
    if (rows)
        rope_table<<<blocks_for(rows * half, threads), threads, 0, stream>>>(table, positions, frequencies,
                                                                             rows, half);
}

template <int N>
static __global__ void rope(struct array y, struct array x, const float *table, float sign, int64_t rows,
                            int64_t heads, int64_t half) {
    struct array angles = {(void *)table, DTYPE_F32};
    int64_t pieces = half / N;
    EACH(i, rows * heads * pieces) {
        int64_t c = i % pieces * N, head = i / pieces, t = head / heads;
        lanes<N> low = get<N>(x, head * 2 * half + c), high = get<N>(x, head * 2 * half + half + c);
        lanes<N> cosine = get<N>(angles, t * 2 * half + c), sine = get<N>(angles, t * 2 * half + half + c);
        lanes<N> first, second;
        for (int j = 0; j < N; j++) {
            float s = sign * sine.v[j];
            first.v[j] = low.v[j] * cosine.v[j] - high.v[j] * s;
            second.v[j] = high.v[j] * cosine.v[j] + low.v[j] * s;
        }
        put<N>(y, head * 2 * half + c, first);
        put<N>(y, head * 2 * half + half + c, second);
    }
}

void cuda_rope(struct array y, struct array x, const float *table, bool inverse, int64_t rows, int64_t heads,
               int64_t head_dim, cudaStream_t stream) {
    int64_t half = head_dim / 2, n = rows * heads * half;
    float sign = inverse ? -1.0f : 1.0f;
    if (!n) return;
    if (half % 8 == 0)
        rope<8><<<blocks_for(n / 8, threads), threads, 0, stream>>>(y, x, table, sign, rows, heads, half);
    else
        rope<1><<<blocks_for(n, threads), threads, 0, stream>>>(y, x, table, sign, rows, heads, half);
}

/* A block for each target row; the first of several that name one token adds them all, in order. */
template <int N>
static __global__ void scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count,
                               int64_t width) {
    int64_t m = blockIdx.x;
    if (m > 0 && rows[m - 1] == rows[m]) return;
    for (int64_t c = threadIdx.x * N; c < width; c += (int64_t)blockDim.x * N) {
        lanes<N> sum = get<N>(dy, m * width + c);
        for (int64_t k = m + 1; k < count && rows[k] == rows[m]; k++) {
            lanes<N> more = get<N>(dy, k * width + c);
            for (int j = 0; j < N; j++) sum.v[j] += more.v[j];
        }
        put<N>(dx, rows[m] * width + c, sum);
    }
}

void cuda_scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count, int64_t tokens,
                  int64_t width, cudaStream_t stream) {
    size_t bytes = dx.type == DTYPE_BF16 ? 2 : 4;
    cudaMemsetAsync(dx.data, 0, (size_t)(tokens * width) * bytes, stream);
    if (!count) return;
    if (width % 8 == 0)
        scatter<8><<<(unsigned)count, threads, 0, stream>>>(dx, dy, rows, count, width);
    else
        scatter<1><<<(unsigned)count, threads, 0, stream>>>(dx, dy, rows, count, width);
}
