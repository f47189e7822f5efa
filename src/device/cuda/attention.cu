/* Attention for any type and head width, in f32: a warp for each row and head. The equations are in
 * src/op/attention.c. Of 32 keys at a time each lane has one's score; then each lane has every 32nd channel
 * of the result. Sums run along the keys in order, so the bits are the same in every run. */
#include "device/cuda/kernel.cuh"

enum { most_width = 256, channels = most_width / 32, warps = 4 };

/* Σ a[c] b[base + c]; a in shared memory, read by all lanes at once. */
static __device__ inline float dot(const float *a, const struct array &b, int64_t base, int d) {
    float sum = 0;
    if (d % 8 == 0) {
        for (int c = 0; c < d; c += 8) {
            lanes<8> x = get<8>(b, base + c);
            for (int i = 0; i < 8; i++) sum = fmaf(a[c + i], x.v[i], sum);
        }
    } else {
        for (int c = 0; c < d; c++) sum = fmaf(a[c], get1(b, base + c), sum);
    }
    return sum;
}

static __device__ inline void load_row(float *row, const struct array &x, int64_t base, int d) {
    for (int c = threadIdx.x % 32; c < d; c += 32) row[c] = get1(x, base + c);
    __syncwarp();
}

/* out[i] += weight · x[base + lane + 32 i] */
static __device__ inline void gather(float (&out)[channels], float weight, const struct array &x,
                                     int64_t base, int d) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < channels; i++)
        if (lane + 32 * i < d) out[i] = fmaf(weight, get1(x, base + lane + 32 * i), out[i]);
}

/* What a warp knows of a row: y · sum, the largest score, the sum of weights. */
struct softmax {
    float y[channels], most, sum;
};

/* Where head h of row t begins. */
static __device__ inline int64_t at(const struct array &x, int64_t t, int64_t h, int d) {
    return t * x.stride + h * d;
}

/* Keys first, first + 32 parts … of [first, last]; row j of k and v begins at base + j · its stride. */
static __device__ inline void attend(struct softmax *s, const float *q, const struct array &k,
                                     const struct array &v, int64_t base, int64_t first, int64_t last,
                                     int parts, int d, float scale) {
    int lane = threadIdx.x % 32;
    *s = {{}, -INFINITY, 0};
    for (int64_t j0 = first; j0 <= last; j0 += 32 * parts) {
        int64_t j = j0 + lane;
        float score = j <= last ? scale * dot(q, k, base + j * k.stride, d) : -INFINITY;
        float most = fmaxf(s->most, warp_max(score)), keep = expf(s->most - most);
        float weight = j <= last ? expf(score - most) : 0;
        s->most = most;
        s->sum = s->sum * keep + warp_sum(weight);
        for (int i = 0; i < channels; i++) s->y[i] *= keep;
        for (int m = 0; m < 32 && j0 + m <= last; m++)
            gather(s->y, __shfl_sync(~0u, weight, m), v, base + (j0 + m) * v.stride, d);
    }
}

static __device__ inline void write_row(struct array out, int64_t base, const float (&x)[channels],
                                        float factor, int d) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < channels; i++)
        if (lane + 32 * i < d) put1(out, base + lane + 32 * i, x[i] * factor);
}

static __global__ void __launch_bounds__(32 * warps) forward(struct attention a) {
    __shared__ float rows[warps][most_width];
    float *q = rows[threadIdx.x / 32];
    int d = a.head_dim;
    int64_t item = (int64_t)blockIdx.x * warps + threadIdx.x / 32, t = item / a.heads, h = item % a.heads;
    if (t >= a.tokens) return;
    struct softmax s;
    load_row(q, a.q, at(a.q, t, h, d), d);
    attend(&s, q, a.k, a.v, h * a.kv_heads / a.heads * d, a.ranges.start[t], t, 1, d, a.scale);
    write_row(a.y, at(a.y, t, h, d), s.y, 1 / s.sum, d);
    if (a.lse && threadIdx.x % 32 == 0) a.lse[item] = s.most + logf(s.sum);
}

static unsigned warp_blocks(int64_t items) { return (unsigned)((items + warps - 1) / warps); }

void cuda_attention(const struct attention *a, cudaStream_t stream) {
    int64_t items = a->tokens * a->heads;
    if (items) forward<<<warp_blocks(items), 32 * warps, 0, stream>>>(*a);
}

/* delta = Σ dy y, and dy rounded to q's type where the tensor cores want it. */
static __global__ void __launch_bounds__(32 * warps) row_deltas(struct attention a) {
    int64_t item = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    int lane = threadIdx.x % 32, d = a.head_dim;
    int64_t t = item / a.heads, h = item % a.heads;
    if (t >= a.tokens) return;
    float sum = 0;
    for (int c = lane; c < d; c += 32) {
        float dy = get1(a.dy, at(a.dy, t, h, d) + c);
        sum = fmaf(dy, get1(a.y, at(a.y, t, h, d) + c), sum);
        if (a.dy16.data && a.dy16.data != a.dy.data) put1(a.dy16, item * d + c, dy);
    }
    sum = warp_sum(sum);
    if (!lane) a.delta[item] = sum;
}

/* dq = scale Σ ds k over the keys of a row. */
static __global__ void __launch_bounds__(32 * warps) query_grad(struct attention a) {
    __shared__ float rows[2][warps][most_width];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = a.head_dim;
    float *q = rows[0][warp], *dy = rows[1][warp], dq[channels] = {};
    int64_t item = (int64_t)blockIdx.x * warps + warp, t = item / a.heads, h = item % a.heads;
    if (t >= a.tokens) return;
    int64_t base = h * a.kv_heads / a.heads * d;
    float lse = a.lse[item], delta = a.delta[item];
    load_row(q, a.q, at(a.q, t, h, d), d);
    load_row(dy, a.dy, at(a.dy, t, h, d), d);
    for (int64_t j0 = a.ranges.start[t]; j0 <= t; j0 += 32) {
        int64_t j = j0 + lane;
        float ds = 0;
        if (j <= t) {
            float p = expf(a.scale * dot(q, a.k, base + j * a.k.stride, d) - lse);
            ds = p * (dot(dy, a.v, base + j * a.v.stride, d) - delta) * a.scale;
        }
        for (int m = 0; m < 32 && j0 + m <= t; m++)
            gather(dq, __shfl_sync(~0u, ds, m), a.k, base + (j0 + m) * a.k.stride, d);
    }
    write_row(a.dq, at(a.dq, t, h, d), dq, 1, d);
}

/* dk = Σ ds q, dv = Σ p dy over the later rows of a key's segment, of each head that shares it. */
static __global__ void __launch_bounds__(32 * warps) key_grad(struct attention a) {
    __shared__ float rows[2][warps][most_width];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = a.head_dim, shared = a.heads / a.kv_heads;
    float *k = rows[0][warp], *v = rows[1][warp], dk[channels] = {}, dv[channels] = {};
    int64_t item = (int64_t)blockIdx.x * warps + warp, j = item / a.kv_heads, kv = item % a.kv_heads;
    if (j >= a.tokens) return;
    load_row(k, a.k, at(a.k, j, kv, d), d);
    load_row(v, a.v, at(a.v, j, kv, d), d);
    int64_t end = a.ranges.end[j];
    for (int64_t h = kv * shared; h < (kv + 1) * shared; h++)
        for (int64_t t0 = j; t0 < end; t0 += 32) {
            int64_t t = t0 + lane, row = t * a.heads + h;
            float p = 0, ds = 0;
            if (t < end) {
                p = expf(a.scale * dot(k, a.q, at(a.q, t, h, d), d) - a.lse[row]);
                ds = p * (dot(v, a.dy, at(a.dy, t, h, d), d) - a.delta[row]) * a.scale;
            }
            for (int m = 0; m < 32 && t0 + m < end; m++) {
                gather(dk, __shfl_sync(~0u, ds, m), a.q, at(a.q, t0 + m, h, d), d);
                gather(dv, __shfl_sync(~0u, p, m), a.dy, at(a.dy, t0 + m, h, d), d);
            }
        }
    write_row(a.dk, at(a.dk, j, kv, d), dk, 1, d);
    write_row(a.dv, at(a.dv, j, kv, d), dv, 1, d);
}

void cuda_attention_grad(const struct attention *a, cudaStream_t stream) {
    int64_t items = a->tokens * a->heads;
    if (!items) return;
    row_deltas<<<warp_blocks(items), 32 * warps, 0, stream>>>(*a);
    if (a->dy16.data) {
        cuda_flash_grad(a, stream);
        return;
    }
    query_grad<<<warp_blocks(items), 32 * warps, 0, stream>>>(*a);
    key_grad<<<warp_blocks(a->tokens * a->kv_heads), 32 * warps, 0, stream>>>(*a);
}

/* ---- through the key-value cache ---- */

/* A block for a row and head: each warp has every `warps`-th piece of 32 keys. */
static __global__ void __launch_bounds__(32 * warps) attend_cache(struct cache_attention a) {
    __shared__ float q[most_width], partial[warps][most_width], mosts[warps], sums[warps];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = a.head_dim;
    int64_t item = blockIdx.x, t = item / a.heads, h = item % a.heads;
    int s = a.ranges.segment[t];
    int64_t last = a.past[s] + t - a.segments[s];
    int64_t base = (a.slots[s] * (int64_t)a.kv_heads + h * a.kv_heads / a.heads) * a.context * d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) q[c] = get1(a.q, at(a.q, t, h, d) + c);
    __syncthreads();
    struct softmax row;
    attend(&row, q, a.keys, a.values, base, 32 * warp, last, warps, d, a.scale);
    for (int i = 0; i < channels; i++)
        if (lane + 32 * i < d) partial[warp][lane + 32 * i] = row.y[i];
    if (!lane) {
        mosts[warp] = row.most;
        sums[warp] = row.sum;
    }
    __syncthreads();
    float most = -INFINITY, sum = 0;
    for (int w = 0; w < warps; w++) most = fmaxf(most, mosts[w]);
    for (int w = 0; w < warps; w++) sum += sums[w] * expf(mosts[w] - most);
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        float y = 0;
        for (int w = 0; w < warps; w++) y += partial[w][c] * expf(mosts[w] - most);
        put1(a.y, at(a.y, t, h, d) + c, y / sum);
    }
}

void cuda_cache_attention(const struct cache_attention *a, cudaStream_t stream) {
    if (a->tokens) attend_cache<<<(unsigned)(a->tokens * a->heads), 32 * warps, 0, stream>>>(*a);
}
