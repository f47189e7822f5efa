/* Attention on tensor cores, bf16 or f16 in, f32 sums (Dao 2023, algorithms 1 and 2), for grouped heads and
 * segments.
 *
 * Tiles lie over the flat rows, whatever the segments: a row t sees the keys from its segment's start to t,
 * so a tile of rows needs the keys from its first row's start to its last row. Scores never leave registers:
 * the fragments that a product yields are those that the next one takes. The gradient has two kernels, one
 * with a tile of rows (dq), one with a tile of keys (dk, dv): 7 products instead of 5, but every sum is made
 * by one warp in a fixed order, and nothing is summed in memory. */
#include "device/cuda/attention_tile.cuh"

constexpr int warps = 4, threads = 32 * warps; /* of a block */

/* ---- tiles in shared memory: rows of D numbers, 16 bytes apart from a multiple of 128, so that the eight
 * rows of a fragment lie in different banks ---- */

template <int D> constexpr int row_stride = D + 8;

/* `rows` rows from `first` on of x, columns from `column` on; rows past the end are zero. */
template <int D, int rows, int threads>
static __device__ inline void load_tile(number16 *tile, const struct array &x, int64_t first, int64_t tokens,
                                        int64_t column) {
    constexpr int chunks = D / 8;
    for (int i = threadIdx.x; i < rows * chunks; i += threads) {
        int64_t row = first + i / chunks, safe = row < tokens ? row : tokens - 1;
        copy16(shared_address(tile + i / chunks * row_stride<D> + i % chunks * 8),
               (const number16 *)x.data + safe * x.stride + column + i % chunks * 8, row < tokens);
    }
}

/* The left operand: 16 rows, 16 columns from (row, column). */
template <int D>
static __device__ inline void left_of(uint32_t (&a)[4], const number16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_matrices(a, tile + (row + lane % 16) * row_stride<D> + column + lane / 16 * 8);
}
/* The right operand of x yᵀ: 16 rows of y become columns; b[0..1] for the first eight, b[2..3] for the rest.
 */
template <int D>
static __device__ inline void right_rows(uint32_t (&b)[4], const number16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * row_stride<D> + column + lane / 8 % 2 * 8);
}
/* The right operand of x y: 16 rows of y are summed over, 16 columns. */
template <int D>
static __device__ inline void right_columns(uint32_t (&b)[4], const number16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_transposed(b, tile + (row + lane % 8 + lane / 8 % 2 * 8) * row_stride<D> + column + lane / 16 * 8);
}

/* sums [16 M, 8 N] += left yᵀ; left(a, m, k) gives the m-th fragment of 16 columns. A fragment of y serves M
 * of them: reading shared memory would otherwise take longer than multiplying. */
template <class T, int D, int M, int N, class L>
static __device__ inline void times_rows(float (&sum)[M][N][4], L left, const number16 *y) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4], b[4];
#pragma unroll
        for (int m = 0; m < M; m++) left(a[m], m, k);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            right_rows<D>(b, y, n * 16, k * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply<T>(sum[m][2 * n], a[m], b[0], b[1]);
                multiply<T>(sum[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* out [16 M, W] += p y, p [16 M, 8 N] in registers, rounded to T; y begins at the first of W columns. */
template <class T, int D, int W, int M, int N>
static __device__ inline void times_columns(float (&out)[M][W / 8][4], const float (&p)[M][N][4],
                                            const number16 *y) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4], b[4];
#pragma unroll
        for (int m = 0; m < M; m++)
            for (int i = 0; i < 4; i++)
                a[m][i] = two_of<T>(p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < W / 16; n++) {
            right_columns<D>(b, y, k * 16, n * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply<T>(out[m][2 * n], a[m], b[0], b[1]);
                multiply<T>(out[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* ---- forward ---- */

struct no_cache {};

/* What a tile of rows works on: its first row, and its first key as rows count them. */
struct tile_place {
    int q0, first;
};

/* Without a cache: tiles over all rows, the longest first. */
template <int rows>
static __device__ inline bool find_tile(struct attention &a, const no_cache &, tile_place &p) {
    p.q0 = (int)(gridDim.x - 1 - blockIdx.x) * rows;
    p.first = a.ranges.start[p.q0];
    return true;
}

/* With one: tiles over the rows of a segment, whose keys lie in its slot of the cache. Key j of the slot is
 * that of row j - past + the segment's first, so rows of keys may be less than 0. */
template <int rows>
static __device__ inline bool find_tile(struct attention &a, const struct cache_attention &c, tile_place &p) {
    int tile = (int)blockIdx.x, s = 0, tiles = 0;
    for (; s < c.segment_count; s++, tile -= tiles) {
        tiles = (c.segments[s + 1] - c.segments[s] + rows - 1) / rows;
        if (tile < tiles) break;
    }
    if (s == c.segment_count) return false;
    int kv = (int)blockIdx.y * c.kv_heads / c.heads;
    int64_t slot = ((int64_t)c.slots[s] * c.kv_heads + kv) * c.context;
    p.q0 = c.segments[s] + tile * rows;
    p.first = c.segments[s] - c.past[s];
    a.tokens = c.segments[s + 1];
    a.k = {(number16 *)c.keys.data + (slot - p.first) * c.head_dim, c.keys.type, c.head_dim};
    a.v = {(number16 *)c.values.data + (slot - p.first) * c.head_dim, c.values.type, c.head_dim};
    return true;
}

template <class T, int D, int M, int keys, class C>
static __global__ void __launch_bounds__(threads, 2)
    flash(struct attention a, const __grid_constant__ C cache) {
    constexpr int rows = warps * 16 * M, tile = keys * row_stride<D>;
    constexpr bool cached = sizeof(C) == sizeof(struct cache_attention);
    constexpr bool held = D <= 64; /* the rows' fragments stay in registers */
    extern __shared__ __align__(128) unsigned char memory[];
    number16 *q_tile = (number16 *)memory, *k_tile = q_tile + rows * row_stride<D>,
             *v_tile = k_tile + 2 * tile;
    tile_place place;
    if (!find_tile<rows>(a, cache, place)) return;
    int warp = threadIdx.x / 32, h = blockIdx.y, q0 = place.q0, first = place.first;
    int64_t column = cached ? 0 : (int64_t)h * a.kv_heads / a.heads * D;
    int last = q0 + rows < a.tokens ? q0 + rows - 1 : (int)a.tokens - 1;
    own_rows<M> mine = rows_from<M>(a, q0 + warp * 16 * M);
    if constexpr (cached) mine.all_from(first);
    load_tile<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_tile<D, keys, threads>(k_tile, a.k, first, a.tokens, column);
    load_tile<D, keys, threads>(v_tile, a.v, first, a.tokens, column);
    copies_commit();
    uint32_t q[held ? M : 1][D / 16][4];
    float out[M][D / 8][4] = {}, most[M][2], sum[M][2] = {}, keep[M][2], c = a.scale * log2_e;
    for (int m = 0; m < M; m++) most[m][0] = most[m][1] = -INFINITY;
    auto left = [&](uint32_t(&f)[4], int m, int k) {
        if constexpr (held) {
            for (int e = 0; e < 4; e++) f[e] = q[m][k][e];
        } else {
            left_of<D>(f, q_tile, (warp * M + m) * 16, k * 16);
        }
    };
    for (int j0 = first, i = 0; j0 <= last; j0 += keys, i++) {
        const number16 *k_now = k_tile + i % 2 * tile, *v_now = v_tile + i % 2 * tile;
        if (j0 + keys <= last) {
            load_tile<D, keys, threads>(k_tile + (i + 1) % 2 * tile, a.k, j0 + keys, a.tokens, column);
            load_tile<D, keys, threads>(v_tile + (i + 1) % 2 * tile, a.v, j0 + keys, a.tokens, column);
            copies_commit();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if constexpr (held)
            if (!i)
                for (int m = 0; m < M; m++)
                    for (int k = 0; k < D / 16; k++) left_of<D>(q[m][k], q_tile, (warp * M + m) * 16, k * 16);
        if (j0 <= mine.last) {
            float s[M][keys / 8][4] = {};
            times_rows<T, D>(s, left, k_now);
            if (j0 + keys - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
            soften(s, most, sum, keep, c);
            scale_rows(out, keep);
            times_columns<T, D, D>(out, s, v_now);
        }
        __syncthreads();
    }
    float factor[M][2];
    finish_rows(a, mine, h, factor, most, sum);
    write_tile<D>(a.y, out, mine, a.tokens, (int64_t)h * D, factor);
}

/* ---- gradient ---- */

/* dq of a tile of rows: dq = ds k, ds = p (dy vᵀ - delta) scale. */
template <class T, int D, int M, int keys>
static __global__ void __launch_bounds__(threads, 2) flash_query_grad(struct attention a) {
    constexpr int rows = warps * 16 * M, row_tile = rows * row_stride<D>, tile = keys * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    number16 *q_tile = (number16 *)memory, *dy_tile = q_tile + row_tile, *k_tile = dy_tile + row_tile,
             *v_tile = k_tile + 2 * tile;
    int warp = threadIdx.x / 32, h = blockIdx.y, q0 = (int)(gridDim.x - 1 - blockIdx.x) * rows;
    int64_t column = (int64_t)h * a.kv_heads / a.heads * D;
    int first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : (int)a.tokens - 1;
    own_rows<M> mine = rows_from<M>(a, q0 + warp * 16 * M);
    float lse[M][2], delta[M][2], dq[M][D / 8][4] = {}, c = a.scale * log2_e;
    for (int m = 0; m < M; m++)
        for (int r = 0; r < 2; r++) {
            int64_t row = mine.row[m][r] < a.tokens ? mine.row[m][r] : a.tokens - 1;
            lse[m][r] = a.lse[row * a.heads + h] * log2_e;
            delta[m][r] = a.delta[row * a.heads + h];
        }
    load_tile<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_tile<D, rows, threads>(dy_tile, a.dy16, q0, a.tokens, (int64_t)h * D);
    load_tile<D, keys, threads>(k_tile, a.k, first, a.tokens, column);
    load_tile<D, keys, threads>(v_tile, a.v, first, a.tokens, column);
    copies_commit();
    for (int j0 = first, i = 0; j0 <= last; j0 += keys, i++) {
        const number16 *k_now = k_tile + i % 2 * tile, *v_now = v_tile + i % 2 * tile;
        if (j0 + keys <= last) {
            load_tile<D, keys, threads>(k_tile + (i + 1) % 2 * tile, a.k, j0 + keys, a.tokens, column);
            load_tile<D, keys, threads>(v_tile + (i + 1) % 2 * tile, a.v, j0 + keys, a.tokens, column);
            copies_commit();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (j0 <= mine.last) {
            float s[M][keys / 8][4] = {}, dp[M][keys / 8][4] = {};
            times_rows<T, D>(
                s, [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, q_tile, (warp * M + m) * 16, k * 16); },
                k_now);
            times_rows<T, D>(
                dp,
                [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, dy_tile, (warp * M + m) * 16, k * 16); },
                v_now);
            if (j0 + keys - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
#pragma unroll
            for (int m = 0; m < M; m++)
                for (int n = 0; n < keys / 8; n++)
                    for (int e = 0; e < 4; e++) {
                        float p = exp2_of(fmaf(s[m][n][e], c, -lse[m][e / 2])); /* 0 for what is hidden */
                        s[m][n][e] = p * (dp[m][n][e] - delta[m][e / 2]) * a.scale;
                    }
            times_columns<T, D, D>(dq, s, k_now);
        }
        __syncthreads();
    }
    write_tile<D>(a.dq, dq, mine, a.tokens, (int64_t)h * D, ones<M>().v);
}

/* What a tile of rows brings beside q and dy. */
template <int rows> struct row_facts {
    float lse[rows], delta[rows];
    int start[rows];
};

template <int rows>
static __device__ inline void load_facts(row_facts<rows> &facts, const struct attention &a, int t0, int h) {
    for (int i = threadIdx.x; i < rows; i += threads) {
        bool there = t0 + i < a.tokens;
        int64_t at = ((int64_t)t0 + i) * a.heads + h;
        facts.lse[i] = there ? a.lse[at] * log2_e : 0;
        facts.delta[i] = there ? a.delta[at] : 0;
        facts.start[i] = there ? a.ranges.start[t0 + i] : INT_MAX; /* sees no key */
    }
}

/* W columns of dk, dv of a tile of keys, over the tiles of rows that see them and the heads that share them:
 * scores lie transposed, a key a row. */
template <class T, int D, int W, int M, int rows>
static __global__ void __launch_bounds__(threads, 2) flash_key_grad(struct attention a) {
    constexpr int keys = warps * 16 * M, tile = keys * row_stride<D>, row_tile = rows * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ row_facts<rows> facts[2];
    number16 *k_tile = (number16 *)memory, *v_tile = k_tile + tile, *q_tile = v_tile + tile,
             *dy_tile = q_tile + 2 * row_tile;
    int warp = threadIdx.x / 32, kv = blockIdx.y, shared = a.heads / a.kv_heads, j0 = (int)blockIdx.x * keys;
    int part = (int)blockIdx.z * W;
    int last_key = j0 + keys < a.tokens ? j0 + keys - 1 : (int)a.tokens - 1, end = a.ranges.end[last_key];
    int warp_first = j0 + warp * 16 * M, warp_last = warp_first + 16 * M - 1;
    int tiles = (end - j0 + rows - 1) / rows, count = tiles * shared;
    float dk[M][W / 8][4] = {}, dv[M][W / 8][4] = {}, c = a.scale * log2_e;
    auto load = [&](int i) {
        int h = kv * shared + i / tiles, t0 = j0 + i % tiles * rows, slot = i % 2;
        load_tile<D, rows, threads>(q_tile + slot * row_tile, a.q, t0, a.tokens, (int64_t)h * D);
        load_tile<D, rows, threads>(dy_tile + slot * row_tile, a.dy16, t0, a.tokens, (int64_t)h * D);
        load_facts(facts[slot], a, t0, h);
        copies_commit();
    };
    load_tile<D, keys, threads>(k_tile, a.k, j0, a.tokens, (int64_t)kv * D);
    load_tile<D, keys, threads>(v_tile, a.v, j0, a.tokens, (int64_t)kv * D);
    load(0);
    for (int i = 0; i < count; i++) {
        const number16 *q_now = q_tile + i % 2 * row_tile, *dy_now = dy_tile + i % 2 * row_tile;
        const row_facts<rows> &fact = facts[i % 2];
        int t0 = j0 + i % tiles * rows;
        if (i + 1 < count) {
            load(i + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (t0 + rows > warp_first) {
            float s[M][rows / 8][4] = {}, dp[M][rows / 8][4] = {};
            times_rows<T, D>(
                s, [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, k_tile, (warp * M + m) * 16, k * 16); },
                q_now);
            times_rows<T, D>(
                dp,
                [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, v_tile, (warp * M + m) * 16, k * 16); },
                dy_now);
            bool partial = t0 < warp_last || fact.start[rows - 1] > warp_first;
#pragma unroll
            for (int m = 0; m < M; m++)
                for (int n = 0; n < rows / 8; n++)
                    for (int e = 0; e < 4; e++) {
                        int at = n * 8 + threadIdx.x % 4 * 2 + e % 2;
                        int j = warp_first + m * 16 + threadIdx.x % 32 / 4 + e / 2 * 8;
                        float p = exp2_of(fmaf(s[m][n][e], c, -fact.lse[at]));
                        if (partial && (j > t0 + at || j < fact.start[at])) p = 0;
                        s[m][n][e] = p;
                        dp[m][n][e] = p * (dp[m][n][e] - fact.delta[at]) * a.scale;
                    }
            times_columns<T, D, W>(dv, s, dy_now + part);
            times_columns<T, D, W>(dk, dp, q_now + part);
        }
        __syncthreads();
    }
    own_rows<M> mine = rows_from<M>(a, warp_first);
    write_tile<W>(a.dk, dk, mine, a.tokens, (int64_t)kv * D + part, ones<M>().v);
    write_tile<W>(a.dv, dv, mine, a.tokens, (int64_t)kv * D + part, ones<M>().v);
}

/* ---- launches ---- */

/* More shared memory than 48 KiB has to be asked for; it is cheap to ask again. */
template <class K, class... A>
static void launch(K kernel, dim3 grid, int tile_rows, cudaStream_t stream, const struct attention &a,
                   const A &...more) {
    int bytes = tile_rows * (a.head_dim + 8) * (int)sizeof(number16);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<grid, threads, bytes, stream>>>(a, more...);
}

static unsigned tiles_of(int64_t rows, int tile) { return (unsigned)((rows + tile - 1) / tile); }

template <class T, int D, int M, int keys>
static void forward(const struct attention &a, const no_cache &none, cudaStream_t stream) {
    constexpr int rows = warps * 16 * M;
    launch(flash<T, D, M, keys, no_cache>, dim3(tiles_of(a.tokens, rows), (unsigned)a.heads), rows + 4 * keys,
           stream, a, none);
}

/* As many tiles as the segments may have, however long each is. */
template <class T, int D, int M, int keys>
static void forward(const struct attention &a, const struct cache_attention &cache, cudaStream_t stream) {
    constexpr int rows = warps * 16 * M;
    dim3 grid((unsigned)(a.tokens / rows + cache.segment_count), (unsigned)a.heads);
    launch(flash<T, D, M, keys, struct cache_attention>, grid, rows + 4 * keys, stream, a, cache);
}

/* M, `step`: fragments of a warp and the tile that is stepped over, of dq and of dk and dv. Sums of 256
 * columns of both dk and dv are more than a thread has registers: two blocks have half of them each. */
template <class T, int D, int M, int keys, int rows>
static void backward(const struct attention &a, cudaStream_t stream) {
    constexpr int tile = warps * 16 * M, parts = D > 128 ? 2 : 1;
    dim3 query_blocks(tiles_of(a.tokens, tile), (unsigned)a.heads),
        key_blocks(tiles_of(a.tokens, tile), (unsigned)a.kv_heads, parts);
    launch(flash_query_grad<T, D, M, keys>, query_blocks, 2 * tile + 4 * keys, stream, a);
    launch(flash_key_grad<T, D, D / parts, M, rows>, key_blocks, 2 * tile + 4 * rows, stream, a);
}

bool cuda_flash_serves(enum dtype type, int head_dim) {
    bool wide = head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128 || head_dim == 256;
    return (type == DTYPE_BF16 || type == DTYPE_F16) && wide;
}

template <class T, class C>
static void forward_of(const struct attention &a, const C &cache, cudaStream_t stream) {
    switch (a.head_dim) {
    case 64: return forward<T, 64, 2, 64>(a, cache, stream);
    case 80: return forward<T, 80, 1, 64>(a, cache, stream);
    case 96: return forward<T, 96, 1, 64>(a, cache, stream);
    case 128: return forward<T, 128, 2, 32>(a, cache, stream);
    default: return forward<T, 256, 1, 32>(a, cache, stream);
    }
}

template <class C> static void forward_in(const struct attention &a, const C &cache, cudaStream_t stream) {
    if (!a.tokens) return;
    a.q.type == DTYPE_BF16 ? forward_of<__nv_bfloat16>(a, cache, stream)
                           : forward_of<__half>(a, cache, stream);
}

void cuda_flash(const struct attention *a, cudaStream_t stream) { forward_in(*a, no_cache(), stream); }

void cuda_flash_cache(const struct cache_attention *c, cudaStream_t stream) {
    struct attention a = {.q = c->q,
                          .y = c->y,
                          .ranges = c->ranges,
                          .tokens = c->tokens,
                          .heads = c->heads,
                          .kv_heads = c->kv_heads,
                          .head_dim = c->head_dim,
                          .scale = c->scale};
    forward_in(a, *c, stream);
}

template <class T> static void backward_of(const struct attention &a, cudaStream_t stream) {
    switch (a.head_dim) {
    case 64: return backward<T, 64, 2, 64, 32>(a, stream);
    case 80: return backward<T, 80, 1, 32, 32>(a, stream);
    case 96: return backward<T, 96, 1, 32, 32>(a, stream);
    case 128: return backward<T, 128, 1, 32, 32>(a, stream);
    default: return backward<T, 256, 1, 16, 16>(a, stream);
    }
}

void cuda_flash_grad(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return;
    a->q.type == DTYPE_BF16 ? backward_of<__nv_bfloat16>(*a, stream) : backward_of<__half>(*a, stream);
}
