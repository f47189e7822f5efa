/* Attention of one new token a sequence through the key-value cache: the keys of a sequence are split over
 * blocks, whose results a cluster puts together, or a second launch (Dao et al. 2023, Flash-Decoding). How
 * they are split follows from the room in the cache alone, not from how much of it is taken: a launch can be
 * recorded once, and every sum has a fixed order.
 *
 * A block has one piece of the keys of one kv head, for `group` heads that share it. A key is read by `L`
 * threads, 8 channels each, so a block has 256 / L streams of keys, each with a softmax of its own; those of
 * a warp are put together by shuffles, those of the warps in shared memory. Scores are in units of log 2. */
#include "device/cuda/kernel.cuh"

enum {
    threads = 256,
    warps = threads / 32,
    at_once = 2,          /* keys that a stream reads at a time */
    cluster = 8,          /* blocks that share a sequence's keys, and put their results together */
    most_clustered = 4096 /* room in the cache for which these are enough */
};

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

/* ---- what is new: q of the block's heads, k and v of the token ---- */

/* Eight channels from c on of a head that begins at `at` of x, turned as cuda_rope turns them; angles: the
 * token's row, cosines before sines. */
static __device__ inline lanes<8> turned(const struct array &x, int64_t at, int c, int d,
                                         const float *angles) {
    struct array table = {(void *)angles, DTYPE_F32, 0};
    int half = d / 2, pair = c % half;
    if (!angles) return get<8>(x, at + c);
    eight_bits low_bits = bits_of(x, at + pair), high_bits = bits_of(x, at + pair + half);
    lanes<8> cosine = get<8>(table, pair), sine = get<8>(table, pair + half), out;
    lanes<8> low = numbers_of(x, low_bits), high = numbers_of(x, high_bits);
    for (int i = 0; i < 8; i++)
        out.v[i] = c < half ? low.v[i] * cosine.v[i] - high.v[i] * sine.v[i]
                            : high.v[i] * cosine.v[i] + low.v[i] * sine.v[i];
    uint4 rounded[2];
    put<8>({rounded, x.type, 0}, 0, out);
    return get<8>({rounded, x.type, 0}, 0);
}

/* To shared memory, [group + 2][d]: q of heads h0 to h0 + group - 1 with the scale, then k and v. A thread
 * for eight channels. */
template <int group>
static __device__ inline void load_new(const struct cache_attention &a, float *to, int t, int h0, int kv) {
    int d = a.head_dim, row = threadIdx.x * 8 / d, c = threadIdx.x * 8 % d;
    const float *angles = a.angles ? a.angles + (int64_t)t * d : NULL;
    if (row >= group + 2) return;
    const struct array &x = row < group ? a.q : row == group ? a.k : a.v;
    int64_t at = t * x.stride + (row < group ? h0 + row : kv) * d;
    lanes<8> y = turned(x, at, c, d, row <= group ? angles : NULL);
    for (int i = 0; i < 8; i++) to[row * d + c + i] = row < group ? y.v[i] * a.scale * 1.44269504f : y.v[i];
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

/* `count` results of one head, d + 2 numbers each and `stride` apart, put together in order: a channel's y,
 * the largest score, the sum. */
struct head_sum {
    float y, most, sum;
};
static __device__ inline head_sum join(const float *of, int count, int stride, int c, int d) {
    head_sum out = {0, -INFINITY, 0};
#pragma unroll
    for (int i = 0; i < count; i++) out.most = fmaxf(out.most, of[i * stride + d]);
#pragma unroll
    for (int i = 0; i < count; i++) {
        float share = share_of(of[i * stride + d], out.most);
        out.sum = fmaf(of[i * stride + d + 1], share, out.sum);
        out.y = fmaf(of[i * stride + c], share, out.y);
    }
    return out;
}

static __device__ inline void put_head(const struct cache_attention &a, int64_t t, int h, int c,
                                       const head_sum &sum) {
    put1(a.y, t * a.y.stride + h * a.head_dim + c, sum.y / sum.sum);
}

/* The block's own result of a head and channel, for those who put pieces together. */
static __device__ inline void put_part(float *part, int c, int d, const head_sum &sum) {
    part[c] = sum.y;
    if (c) return;
    part[d] = sum.most;
    part[d + 1] = sum.sum;
}

/* The results of a cluster's blocks in the first one's memory, [pieces][group] of d + 2 numbers, become y. */
template <int group>
static __device__ inline void join_cluster(const struct cache_attention &a, const float *own, float *all,
                                           int64_t t, int h0) {
    int d = a.head_dim, size = group * (d + 2);
    cluster_sync(); /* the first block runs: its memory is there */
    for (int i = threadIdx.x; i < size / 2; i += threads)
        tell((float2 *)(all + blockIdx.x * size) + i, 0, ((const float2 *)own)[i]);
    cluster_sync();
    if (blockIdx.x) return;
    for (int i = threadIdx.x; i < group * d; i += threads)
        put_head(a, t, h0 + i / d, i % d, join(all + i / d * (d + 2), a.pieces, size, i % d, d));
}

/* The sums of the warps, [warps][group] of d + 2 numbers each in shared memory, put together in order; behind
 * them is room for the block's own, and for those of a cluster. */
template <int group>
static __device__ inline void join_warps(const struct cache_attention &a, float *shared, int64_t t, int h0) {
    int d = a.head_dim, size = group * (d + 2);
    float *own = shared + warps * size;
    for (int i = threadIdx.x; i < group * d; i += threads) {
        int g = i / d, c = i % d;
        head_sum sum = join(shared + g * (d + 2), warps, size, c, d);
        if (a.pieces == 1)
            put_head(a, t, h0 + g, c, sum);
        else
            put_part(a.parts ? a.parts + part_at(a, t, h0 + g, (int)blockIdx.x) : own + g * (d + 2), c, d,
                     sum);
    }
    if (a.parts || a.pieces == 1) return;
    __syncthreads();
    join_cluster<group>(a, own, own + size, t, h0);
}

/* Eight numbers of the cache as they lie: f32, or of 16 bits. */
template <bool wide> struct cached;
template <> struct cached<true> {
    static constexpr int at_once = 2; /* keys that a stream has on their way */
    eight_bits bits;
    __device__ void fetch(const struct array &x, int64_t at) { bits = bits_of(x, at); }
    __device__ lanes<8> numbers(const struct array &x) const { return numbers_of(x, bits); }
};
template <> struct cached<false> {
    static constexpr int at_once = 4;
    uint4 bits;
    __device__ void fetch(const struct array &x, int64_t at) {
        bits = __ldcg((const uint4 *)((const uint16_t *)x.data + at));
    }
    __device__ lanes<8> numbers(const struct array &x) const { return numbers_of(x, {bits, bits}); }
};

template <int L> static __device__ inline float score_of(const lanes<8> &q, const lanes<8> &key) {
    float score = 0;
    for (int i = 0; i < 8; i++) score = fmaf(q.v[i], key.v[i], score);
    for (int step = L / 2; step; step /= 2) score += __shfl_xor_sync(~0u, score, step);
    return score;
}

static __device__ inline lanes<8> eight_at(const float *from, bool there) {
    lanes<8> x = {};
    for (int i = 0; i < 8 && there; i++) x.v[i] = from[i];
    return x;
}

/* Older keys and values are there already: the first of them are asked for before the kernel that makes q has
 * ended. */
template <int L, int group, bool wide>
static __global__ void __launch_bounds__(threads) attend_piece(const struct cache_attention a) {
    extern __shared__ float shared[];
    constexpr int streams = threads / L, at_once = cached<wide>::at_once;
    let_next_begin();
    int t = (int)blockIdx.z, h0 = (int)blockIdx.y * group, kv = h0 * a.kv_heads / a.heads, d = a.head_dim;
    int s = a.ranges.segment[t], c = threadIdx.x % L * 8, stream = threadIdx.x / L, last = a.past[s];
    int first = (int)blockIdx.x * a.piece, end = min(first + a.piece, last);
    bool newest = first <= last && last < first + a.piece;
    if (first > last && a.parts) return; /* of a cluster, all have to meet */
    int64_t base = (a.slots[s] * (int64_t)a.kv_heads + kv) * a.context * d + c;
    cached<wide> keys[at_once], values[at_once];
    auto fetch = [&](int j0) {
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            int j = j0 + u * streams + stream;
            if (j >= end || c >= d) continue;
            keys[u].fetch(a.keys, base + (int64_t)j * d);
            values[u].fetch(a.values, base + (int64_t)j * d);
        }
    };
    fetch(first);
    await_earlier();
    load_new<group>(a, shared, t, h0, kv);
    __syncthreads();
    lanes<8> q[group];
    stream_sum sum[group];
    for (int g = 0; g < group; g++) {
        sum[g] = {{}, -INFINITY, 0};
        q[g] = eight_at(shared + g * d + c, c < d);
    }
    for (int j0 = first; j0 < end; j0 += streams * at_once) {
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            bool seen = j0 + u * streams + stream < end && c < d;
            lanes<8> none = {}, key = seen ? keys[u].numbers(a.keys) : none,
                     value = seen ? values[u].numbers(a.values) : none;
            for (int g = 0; g < group; g++) {
                float score = score_of<L>(q[g], key);
                add_key(sum[g], j0 + u * streams + stream < end ? score : -INFINITY, value);
            }
        }
        fetch(j0 + streams * at_once);
    }
    if (newest && threadIdx.x < 32) { /* the token's own: the first stream */
        lanes<8> key = eight_at(shared + group * d + c, c < d),
                 value = eight_at(shared + (group + 1) * d + c, c < d);
        for (int g = 0; g < group; g++) {
            float score = score_of<L>(q[g], key);
            add_key(sum[g], stream ? -INFINITY : score, value);
        }
        if (!stream && c < d && h0 % (a.heads / a.kv_heads) == 0) {
            put<8>(a.keys, base + (int64_t)last * d, key);
            put<8>(a.values, base + (int64_t)last * d, value);
        }
    }
    __syncthreads(); /* what is new is read */
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
    if (c < d) put_head(a, t, h, c, join(a.parts + part_at(a, t, h, 0), pieces, d + 2, c, d));
}

/* ---- launches ---- */

void cuda_cache_pieces(int64_t context, int *piece, int *pieces) {
    enum { least = 128, most = 64 };
    int64_t size = ((context + most - 1) / most + 63) / 64 * 64;
    *piece = (int)(size < least ? least : size);
    *pieces = (int)((context + *piece - 1) / *piece);
}

/* Pieces of a cluster, of at least `least` keys each; all of it in shared memory. */
static bool fits_cluster(struct cache_attention *a, int group, size_t *bytes) {
    enum { least = 64 };
    size_t size = (size_t)(group * (a->head_dim + 2)) * sizeof(float), all = (warps + 1 + cluster) * size;
    if (!a->clusters || a->context > most_clustered || all > 48 << 10) return false;
    a->pieces = cluster;
    while (a->pieces > 1 && a->context < a->pieces * least) a->pieces /= 2;
    a->piece = (int)(((a->context + a->pieces - 1) / a->pieces + least - 1) / least * least);
    a->parts = NULL;
    *bytes = all;
    return true;
}

template <int L, int group> static void launch(struct cache_attention a, cudaStream_t stream) {
    size_t bytes = (size_t)(warps * group * (a.head_dim + 2)) * sizeof(float);
    bool clustered = fits_cluster(&a, group, &bytes);
    dim3 blocks((unsigned)a.pieces, (unsigned)(a.heads / group), (unsigned)a.tokens);
    auto kernel = a.keys.type == DTYPE_F32 ? attend_piece<L, group, true> : attend_piece<L, group, false>;
    launch_early_in(clustered ? (unsigned)a.pieces : 1, kernel, blocks, threads, bytes, stream, a);
    unsigned channels = (unsigned)(a.head_dim + 31) / 32 * 32;
    if (a.parts)
        launch_early(join_pieces, dim3((unsigned)a.heads, (unsigned)a.tokens), channels, 0, stream, a);
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
}
