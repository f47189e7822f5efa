/* Operations element by element, or row by row without a sum: a block for each row; the equations are in
 * src/op. */
#include "base/rng.h"
#include "device/cuda/fp8.cuh"

/* Work in vectors of 8 where the width allows it. */
#define BY_ROWS(rows, width, kernel, ...)                                                              \
    ((width) % 8 == 0 ? kernel<8><<<(unsigned)(rows), row_threads(width, 8), 0, stream>>>(__VA_ARGS__) \
                      : kernel<1><<<(unsigned)(rows), row_threads(width, 1), 0, stream>>>(__VA_ARGS__))

template <int N> static __global__ void add(struct array y, struct array a, struct array b, int64_t width) {
    int64_t row = blockIdx.x;
    COLUMNS(i, N, width) {
        lanes<N> u = get<N>(a, row * a.stride + i), v = get<N>(b, row * b.stride + i);
        for (int j = 0; j < N; j++) u.v[j] += v.v[j];
        put<N>(y, row * y.stride + i, u);
    }
}

void cuda_add(struct array y, struct array a, struct array b, int64_t rows, int64_t width,
              cudaStream_t stream) {
    if (rows) BY_ROWS(rows, width, add, y, a, b, width);
}

template <int N>
static __global__ void glu(struct array y, struct array gate, struct array up, int64_t width) {
    int64_t row = blockIdx.x;
    begin_in_turn();
    COLUMNS(i, N, width) {
        lanes<N> g = get<N>(gate, row * gate.stride + i), u = get<N>(up, row * up.stride + i);
        for (int j = 0; j < N; j++) g.v[j] = glu_of(g.v[j], u.v[j]);
        put<N>(y, row * y.stride + i, g);
    }
}

/* y in bf16 and in e4m3. */
template <int V>
static __global__ void __launch_bounds__(512, 2)
    glu_codes(struct array y, struct fp8_rows codes, struct array gate, struct array up, int64_t width) {
    int64_t row = blockIdx.x;
    kept_row<V> kept;
    KEPT_COLUMNS(i, v, V, width) {
        lanes<8> g = get<8>(gate, row * gate.stride + i), u = get<8>(up, row * up.stride + i);
        for (int j = 0; j < 8; j++) g.v[j] = glu_of(g.v[j], u.v[j]);
        kept.put(v, y, row * y.stride + i, g);
    }
    kept.code(codes, row, width);
}

void cuda_glu(struct array y, const struct fp8_rows *codes, struct array gate, struct array up, int64_t rows,
              int64_t width, cudaStream_t stream) {
    if (!rows) return;
    if (is_kept(codes, y, width)) {
        KEPT_ROWS(rows, width, glu_codes, y, *codes, gate, up, width);
        return;
    }
    dim3 blocks((unsigned)rows);
    if (width % 8 == 0)
        launch_early(glu<8>, blocks, row_threads(width, 8), 0, stream, y, gate, up, width);
    else
        launch_early(glu<1>, blocks, row_threads(width, 1), 0, stream, y, gate, up, width);
    if (codes->data) cuda_fp8_rows(codes, y, rows, width, stream);
}

/* gate becomes dgate, dy dup. */
static __device__ inline void glu_gradient(float &gate, float up, float &dy) {
    float sigmoid = 1 / (1 + expf(-gate)), d = dy;
    dy = d * gate * sigmoid;
    gate = d * up * sigmoid * (1 + gate * (1 - sigmoid));
}

template <int N>
static __global__ void glu_grad(struct array dgate, struct array dup, struct array gate, struct array up,
                                struct array dy, int64_t width) {
    int64_t row = blockIdx.x;
    COLUMNS(i, N, width) {
        lanes<N> g = get<N>(gate, row * gate.stride + i), u = get<N>(up, row * up.stride + i),
                 d = get<N>(dy, row * dy.stride + i);
        for (int j = 0; j < N; j++) glu_gradient(g.v[j], u.v[j], d.v[j]);
        put<N>(dgate, row * dgate.stride + i, g);
        put<N>(dup, row * dup.stride + i, d);
    }
}

template <int V>
static __global__ void __launch_bounds__(512, 2)
    glu_grad_codes(struct array dgate, struct array dup, struct fp8_rows gate_codes, struct fp8_rows up_codes,
                   struct array gate, struct array up, struct array dy, int64_t width) {
    int64_t row = blockIdx.x;
    kept_row<V> gates, ups;
    KEPT_COLUMNS(i, v, V, width) {
        lanes<8> g = get<8>(gate, row * gate.stride + i), u = get<8>(up, row * up.stride + i),
                 d = get<8>(dy, row * dy.stride + i);
        for (int j = 0; j < 8; j++) glu_gradient(g.v[j], u.v[j], d.v[j]);
        gates.put(v, dgate, row * dgate.stride + i, g);
        ups.put(v, dup, row * dup.stride + i, d);
    }
    gates.code(gate_codes, row, width);
    ups.code(up_codes, row, width);
}

void cuda_glu_grad(struct array dgate, struct array dup, const struct fp8_rows codes[2], struct array gate,
                   struct array up, struct array dy, int64_t rows, int64_t width, cudaStream_t stream) {
    if (!rows) return;
    if (is_kept(&codes[0], dgate, width) && is_kept(&codes[1], dup, width)) {
        KEPT_ROWS(rows, width, glu_grad_codes, dgate, dup, codes[0], codes[1], gate, up, dy, width);
        return;
    }
    BY_ROWS(rows, width, glu_grad, dgate, dup, gate, up, dy, width);
    if (codes[0].data) cuda_fp8_rows(&codes[0], dgate, rows, width, stream);
    if (codes[1].data) cuda_fp8_rows(&codes[1], dup, rows, width, stream);
}

/* One thread for four channels, which one Philox call serves. */
static __global__ void draw(const __grid_constant__ struct drawing d, uint32_t threshold, float scale) {
    int64_t t = blockIdx.x;
    uint64_t seed = (uint64_t)d.random[1] << 32 | d.random[0];
    if (d.start) scale = (float)(d.alpha / sqrt((double)(d.end[t] - d.start[t]) * (double)d.width) * 0x1p-31);
    COLUMNS(i, 4, d.width) {
        uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)d.positions[t], d.examples[t],
                               d.random[2] << 16 | (uint32_t)d.module};
        uint32_t words[4];
        philox(seed, counter, words);
        for (int j = 0; j < 4 && i + j < d.width; j++) {
            float x = get1(d.x, t * d.x.stride + i + j), kept = words[j] < threshold ? 0 : x * scale;
            float y = d.start ? fmaf((float)(int32_t)words[j], scale, x) : d.inverse ? x - kept : kept;
            put1(d.y, t * d.y.stride + i + j, y);
        }
    }
}

void cuda_draw(const struct drawing *d, cudaStream_t stream) {
    uint32_t threshold = (uint32_t)floor(d->probability * 4294967296.0);
    if (d->rows)
        draw<<<(unsigned)d->rows, row_threads(d->width, 4), 0, stream>>>(*d, threshold,
                                                                         (float)(1 / (1 - d->probability)));
}

template <int N> static __global__ void copy(struct array y, struct array x, int64_t width) {
    int64_t row = blockIdx.x;
    COLUMNS(i, N, width) put<N>(y, row * y.stride + i, get<N>(x, row * x.stride + i));
}

void cuda_copy(struct array y, struct array x, int64_t rows, int64_t width, cudaStream_t stream) {
    if (rows) BY_ROWS(rows, width, copy, y, x, width);
}

/* f64: angles reach 10⁵ radians, where f32 has no digits left. */
static __global__ void rope_table(float *table, const int32_t *positions, const float *frequencies,
                                  int64_t rows, int64_t half) {
    begin_in_turn();
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
        launch_early(rope_table, dim3(blocks_for(rows * half, 256)), 256, 0, stream, table, positions,
                     frequencies, rows, half);
}

/* width: half of all channels of a row. */
template <int N>
static __global__ void rope(struct array y, struct array x, const float *table, float sign, int64_t width,
                            int half) {
    struct array angles = {(void *)table, DTYPE_F32, 0};
    int64_t t = blockIdx.x;
    begin_in_turn();
    COLUMNS(i, N, width) {
        int64_t c = i % half, at = i / half * 2 * half + c;
        lanes<N> low = get<N>(x, t * x.stride + at), high = get<N>(x, t * x.stride + at + half);
        lanes<N> cosine = get<N>(angles, t * 2 * half + c), sine = get<N>(angles, t * 2 * half + half + c);
        lanes<N> first, second;
        for (int j = 0; j < N; j++) {
            float s = sign * sine.v[j];
            first.v[j] = low.v[j] * cosine.v[j] - high.v[j] * s;
            second.v[j] = high.v[j] * cosine.v[j] + low.v[j] * s;
        }
        put<N>(y, t * y.stride + at, first);
        put<N>(y, t * y.stride + at + half, second);
    }
}

void cuda_rope(struct array y, struct array x, const float *table, bool inverse, int64_t rows, int64_t heads,
               int64_t head_dim, cudaStream_t stream) {
    int64_t half = head_dim / 2, width = heads * half;
    float sign = inverse ? -1.0f : 1.0f;
    if (!rows || !width) return;
    if (half % 8 == 0)
        launch_early(rope<8>, dim3((unsigned)rows), row_threads(width, 8), 0, stream, y, x, table, sign,
                     width, (int)half);
    else
        launch_early(rope<1>, dim3((unsigned)rows), row_threads(width, 1), 0, stream, y, x, table, sign,
                     width, (int)half);
}

/* A block for each target row; the first of several that name one token adds them all, in order. */
template <int N>
static __global__ void scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count,
                               int64_t width) {
    int64_t m = blockIdx.x;
    if (m > 0 && rows[m - 1] == rows[m]) return;
    COLUMNS(c, N, width) {
        lanes<N> sum = get<N>(dy, m * dy.stride + c);
        for (int64_t k = m + 1; k < count && rows[k] == rows[m]; k++) {
            lanes<N> more = get<N>(dy, k * dy.stride + c);
            for (int j = 0; j < N; j++) sum.v[j] += more.v[j];
        }
        put<N>(dx, rows[m] * dx.stride + c, sum);
    }
}

void cuda_scatter(struct array dx, struct array dy, const int32_t *rows, int64_t count, int64_t tokens,
                  int64_t width, cudaStream_t stream) {
    size_t bytes = dx.type == DTYPE_F32 ? 4 : 2;
    cudaMemsetAsync(dx.data, 0, (size_t)(tokens * dx.stride) * bytes, stream);
    if (count) BY_ROWS(count, width, scatter, dx, dy, rows, count, width);
}

/* to [rows, columns] bf16 = factor · from, zero past `from`'s own rows and columns. */
static __global__ void tail(__nv_bfloat16 *to, int64_t to_stride, int64_t columns, struct array from,
                            int64_t from_rows, int64_t from_columns, float factor) {
    int64_t row = blockIdx.x;
    COLUMNS(c, 1, columns) {
        float value = row < from_rows && c < from_columns ? factor * get1(from, row * from.stride + c) : 0;
        to[row * to_stride + c] = __float2bfloat16(value);
    }
}

/* Columns of a few numbers: a thread for each number of many rows. */
static __global__ void narrow_tail(__nv_bfloat16 *to, int64_t to_stride, int64_t rows, int columns,
                                   struct array from, int64_t from_columns, float factor) {
    EACH(i, rows * columns) {
        int64_t row = i / columns, c = i % columns;
        float value = c < from_columns ? factor * get1(from, row * from.stride + c) : 0;
        to[row * to_stride + c] = __float2bfloat16(value);
    }
}

void cuda_tail(void *to, int64_t to_stride, int64_t rows, int64_t columns, struct array from,
               int64_t from_rows, int64_t from_columns, float factor, cudaStream_t stream) {
    if (!rows || !columns) return;
    if (from_rows >= rows)
        narrow_tail<<<blocks_for(rows * columns, 256), 256, 0, stream>>>(
            (__nv_bfloat16 *)to, to_stride, rows, (int)columns, from, from_columns, factor);
    else
        tail<<<(unsigned)rows, row_threads(columns, 1), 0, stream>>>((__nv_bfloat16 *)to, to_stride, columns,
                                                                     from, from_rows, from_columns, factor);
}
