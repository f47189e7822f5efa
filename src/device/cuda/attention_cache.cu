/* Attention of one new token a sequence through the key-value cache: the keys of a sequence are split over
 * blocks, whose results a second launch puts together (Dao et al. 2023, Flash-Decoding). How they are split
 * follows from the room in the cache alone, not from how much of it is taken: a launch can be recorded once,
 * and every sum has a fixed order.
 *
 * A block has one piece of the keys of one kv head, for `group` heads that share it. A key is read by `L`
 * threads, 8 channels each, so a block has 256 / L streams of keys, each with a softmax of its own; those of
 * a warp are put together by shuffles, those of the warps in shared memory. Scores are in units of log 2. */
#include "device/cuda/kernel.cuh"

enum { threads = 256, warps = threads / 32, at_once = 2 /* keys that a stream reads at a time */ };

/* ---- keys and values of new tokens ---- */

static __global__ void append(struct cache_attention a) {
    begin_in_turn();
    int64_t width = (int64_t)a.kv_heads * a.head_dim;
    EACH(i, a.tokens * width) {
        int64_t t = i / width, head = i % width / a.head_dim, c = i % a.head_dim;
        int s = a.ranges.segment[t];
        int64_t place = a.past[s] + t - a.segments[s];
        int64_t to = ((a.slots[s] * (int64_t)a.kv_heads + head) * a.context + place) * a.head_dim + c;
        put1(a.keys, to, get1(a.k, t * a.k.stride + i % width));
        put1(a.values, to, get1(a.v, t * a.v.stride + i % width));
    }
}

void cuda_cache_append(const struct cache_attention *a, cudaStream_t stream) {
    int64_t elements = a->tokens * a->kv_heads * a->head_dim;
    if (elements) launch_early(append, dim3(blocks_for(elements, 256)), 256, 0, stream, *a);
}

/* ---- a piece of the keys ---- */

/* One softmax of a stream: y · sum of its 8 channels, the largest score, the sum of weights. */
struct stream_sum {
    float y[8], most, sum;
};

/* 2^(most - top), 0 where nothing was seen. */
static __device__ inline float share_of(float most, float top) {
    return most == -INFINITY ? 0 : exp2_of(most - top);
}

/* Adds a key's value with its score; -∞: the key is not seen. */
static __device__ inline void add_key(stream_sum &s, float score, const lanes<8> &value) {
    float top = fmaxf(s.most, score), keep = share_of(s.most, top), weight = share_of(score, top);
    s.most = top;
    s.sum = fmaf(s.sum, keep, weight);
    for (int i = 0; i < 8; i++) s.y[i] = fmaf(s.y[i], keep, weight * value.v[i]);
}

/* What is written of a head and piece: y [d], the largest score, the sum. */
static __device__ inline int64_t part_at(const struct cache_attention &a, int64_t t, int h, int piece) {
    return (((int64_t)t * a.heads + h) * a.pieces + piece) * (a.head_dim + 2);
}

/* The streams of a warp become one, in all of them. */
template <int L> static __device__ inline void join_streams(stream_sum &s) {
#pragma unroll
    for (int step = L; step < 32; step *= 2) {
        float most = __shfl_xor_sync(~0u, s.most, step), top = fmaxf(s.most, most);
        float own = share_of(s.most, top), other = share_of(most, top);
        s.most = top;
        s.sum = s.sum * own + __shfl_xor_sync(~0u, s.sum, step) * other;
        for (int i = 0; i < 8; i++) s.y[i] = s.y[i] * own + __shfl_xor_sync(~0u, s.y[i], step) * other;
    }
}

/* The sums of the warps, [warps][group] of d + 2 numbers each in shared memory, put together in order. */
template <int group>
static __device__ inline void join_warps(const struct cache_attention &a, const float *shared, int64_t t,
                                         int h0) {
    int d = a.head_dim, size = d + 2;
    for (int i = threadIdx.x; i < group * d; i += threads) {
        int g = i / d, c = i % d;
        float top = -INFINITY, sum = 0, y = 0;
#pragma unroll
        for (int w = 0; w < warps; w++) top = fmaxf(top, shared[(w * group + g) * size + d]);
#pragma unroll
        for (int w = 0; w < warps; w++) {
            const float *of = shared + (w * group + g) * size;
            float share = share_of(of[d], top);
            sum = fmaf(of[d + 1], share, sum);
            y = fmaf(of[c], share, y);
        }
        if (a.pieces == 1) {
            put1(a.y, t * a.y.stride + (h0 + g) * d + c, y / sum);
            continue;
        }
        float *part = a.parts + part_at(a, t, h0 + g, (int)blockIdx.x);
        part[c] = y;
        if (!c) {
            part[d] = top;
            part[d + 1] = sum;
        }
    }
}

template <int L, int group>
static __global__ void __launch_bounds__(threads) attend_piece(const struct cache_attention a) {
    extern __shared__ float shared[];
    constexpr int streams = threads / L;
    begin_in_turn();
    int t = (int)blockIdx.z, h0 = (int)blockIdx.y * group, kv = h0 * a.kv_heads / a.heads, d = a.head_dim;
    int s = a.ranges.segment[t], c = threadIdx.x % L * 8, stream = threadIdx.x / L, last = a.past[s];
    int first = (int)blockIdx.x * a.piece, end = first + a.piece < last + 1 ? first + a.piece : last + 1;
    if (first >= end) return;
    int64_t base = (a.slots[s] * (int64_t)a.kv_heads + kv) * a.context * d + c;
    lanes<8> q[group];
    stream_sum sum[group];
    for (int g = 0; g < group; g++) {
        sum[g] = {{}, -INFINITY, 0};
        if (c < d) q[g] = get<8>(a.q, t * a.q.stride + (h0 + g) * d + c);
        for (int i = 0; i < 8; i++) q[g].v[i] = c < d ? q[g].v[i] * a.scale * 1.44269504f : 0;
    }
    for (int j0 = first; j0 < end; j0 += streams * at_once) {
        lanes<8> key[at_once] = {}, value[at_once] = {};
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            int j = j0 + u * streams + stream;
            if (j >= end || c >= d) continue;
            bool fresh = j == last; /* not in the cache yet */
            int64_t at = fresh ? kv * d + c : base + (int64_t)j * d;
            key[u] = get<8>(fresh ? a.k : a.keys, fresh ? t * a.k.stride + at : at);
            value[u] = get<8>(fresh ? a.v : a.values, fresh ? t * a.v.stride + at : at);
            if (!fresh || h0 % (a.heads / a.kv_heads)) continue;
            put<8>(a.keys, base + (int64_t)j * d, key[u]);
            put<8>(a.values, base + (int64_t)j * d, value[u]);
        }
#pragma unroll
        for (int u = 0; u < at_once; u++)
            for (int g = 0; g < group; g++) {
                float score = 0;
                for (int i = 0; i < 8; i++) score = fmaf(q[g].v[i], key[u].v[i], score);
                for (int step = L / 2; step; step /= 2) score += __shfl_xor_sync(~0u, score, step);
                add_key(sum[g], j0 + u * streams + stream < end ? score : -INFINITY, value[u]);
            }
    }
    for (int g = 0; g < group; g++) {
        float *to = shared + (threadIdx.x / 32 * group + g) * (d + 2);
        join_streams<L>(sum[g]);
        if (threadIdx.x % 32 >= L) continue;
        for (int i = 0; i < 8 && c < d; i++) to[c + i] = sum[g].y[i];
        if (!c) {
            to[d] = sum[g].most;
            to[d + 1] = sum[g].sum;
        }
    }
    __syncthreads();
    join_warps<group>(a, shared, t, h0);
}

/* A block for a token and head, a thread for each channel. */
static __global__ void join_pieces(const struct cache_attention a) {
    begin_in_turn();
    int t = (int)blockIdx.y, h = (int)blockIdx.x, c = threadIdx.x, d = a.head_dim;
    int pieces = a.past[a.ranges.segment[t]] / a.piece + 1;
    const float *part = a.parts + part_at(a, t, h, 0);
    float top = -INFINITY, sum = 0, y = 0;
    if (c >= d) return;
    for (int p = 0; p < pieces; p++) top = fmaxf(top, part[p * (d + 2) + d]);
    for (int p = 0; p < pieces; p++) {
        const float *of = part + p * (d + 2);
        float share = share_of(of[d], top);
        sum = fmaf(of[d + 1], share, sum);
        y = fmaf(of[c], share, y);
    }
    put1(a.y, t * a.y.stride + h * d + c, y / sum);
}

/* ---- launches ---- */

void cuda_cache_pieces(int64_t context, int *piece, int *pieces) {
    enum { least = 128, most = 64 };
    int64_t size = ((context + most - 1) / most + 63) / 64 * 64;
    *piece = (int)(size < least ? least : size);
    *pieces = (int)((context + *piece - 1) / *piece);
}

template <int L, int group> static void launch(const struct cache_attention &a, cudaStream_t stream) {
    dim3 blocks((unsigned)a.pieces, (unsigned)(a.heads / group), (unsigned)a.tokens);
    size_t bytes = (size_t)(warps * group * (a.head_dim + 2)) * sizeof(float);
    launch_early(attend_piece<L, group>, blocks, threads, bytes, stream, a);
}

template <int L> static void launch_group(const struct cache_attention &a, cudaStream_t stream) {
    int shared = a.heads / a.kv_heads;
    shared % 4 == 0   ? launch<L, 4>(a, stream)
    : shared % 2 == 0 ? launch<L, 2>(a, stream)
                      : launch<L, 1>(a, stream);
}

void cuda_cache_decode(const struct cache_attention *a, cudaStream_t stream) {
    if (!a->tokens) return;
    a->head_dim <= 64    ? launch_group<8>(*a, stream)
    : a->head_dim <= 128 ? launch_group<16>(*a, stream)
                         : launch_group<32>(*a, stream);
    unsigned channels = (unsigned)(a->head_dim + 31) / 32 * 32;
    if (a->pieces > 1)
        launch_early(join_pieces, dim3((unsigned)a->heads, (unsigned)a->tokens), channels, 0, stream, *a);
}
