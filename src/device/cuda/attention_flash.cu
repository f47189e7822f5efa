/* Attention on tensor cores, bf16 in, f32 sums (Dao 2023, algorithms 1 and 2), for grouped heads and
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
static __device__ inline void load_tile(bf16 *tile, const struct array &x, int64_t first, int64_t tokens,
                                        int64_t column) {
    constexpr int chunks = D / 8;
    for (int i = threadIdx.x; i < rows * chunks; i += threads) {
        int64_t row = first + i / chunks, safe = row < tokens ? row : tokens - 1;
        copy16(shared_address(tile + i / chunks * row_stride<D> + i % chunks * 8),
               (const bf16 *)x.data + safe * x.stride + column + i % chunks * 8, row < tokens);
    }
}

/* The left operand: 16 rows, 16 columns from (row, column). */
template <int D>
static __device__ inline void left_of(uint32_t (&a)[4], const bf16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_matrices(a, tile + (row + lane % 16) * row_stride<D> + column + lane / 16 * 8);
}
/* The right operand of x yᵀ: 16 rows of y become columns; b[0..1] for the first eight, b[2..3] for the rest.
 */
template <int D>
static __device__ inline void right_rows(uint32_t (&b)[4], const bf16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * row_stride<D> + column + lane / 8 % 2 * 8);
}
/* The right operand of x y: 16 rows of y are summed over, 16 columns. */
template <int D>
static __device__ inline void right_columns(uint32_t (&b)[4], const bf16 *tile, int row, int column) {
    int lane = threadIdx.x % 32;
    load_transposed(b, tile + (row + lane % 8 + lane / 8 % 2 * 8) * row_stride<D> + column + lane / 16 * 8);
}

/* sums [16 M, 8 N] += left yᵀ; left(a, m, k) gives the m-th fragment of 16 columns. A fragment of y serves M
 * of them: reading shared memory would otherwise take longer than multiplying. */
template <int D, int M, int N, class L>
static __device__ inline void times_rows(float (&sum)[M][N][4], L left, const bf16 *y) {
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
                multiply(sum[m][2 * n], a[m], b[0], b[1]);
                multiply(sum[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* out [16 M, D] += p y, p [16 M, 8 N] in registers, rounded to bf16. */
template <int D, int M, int N>
static __device__ inline void times_columns(float (&out)[M][D / 8][4], const float (&p)[M][N][4],
                                            const bf16 *y) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4], b[4];
#pragma unroll
        for (int m = 0; m < M; m++)
            for (int i = 0; i < 4; i++)
                a[m][i] = two_bf16(p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            right_columns<D>(b, y, k * 16, n * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply(out[m][2 * n], a[m], b[0], b[1]);
                multiply(out[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* ---- forward ---- */

template <int D, int M, int keys>
static __global__ void __launch_bounds__(threads, 2) flash(struct attention a) {
    constexpr int rows = warps * 16 * M, tile = keys * row_stride<D>;
    constexpr bool held = D <= 64; /* the rows' fragments stay in registers */
    extern __shared__ __align__(128) unsigned char memory[];
    bf16 *q_tile = (bf16 *)memory, *k_tile = q_tile + rows * row_stride<D>, *v_tile = k_tile + 2 * tile;
    int warp = threadIdx.x / 32, h = blockIdx.y;
    int q0 = (int)(gridDim.x - 1 - blockIdx.x) * rows; /* the longest first */
    int64_t column = (int64_t)h * a.kv_heads / a.heads * D;
    int first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : (int)a.tokens - 1;
    own_rows<M> mine = rows_from<M>(a, q0 + warp * 16 * M);
    load_tile<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_tile<D, keys, threads>(k_tile, a.k, first, a.tokens, column);
    load_tile<D, keys, threads>(v_tile, a.v, first, a.tokens, column);
    copies_commit();
    uint32_t q[held ? M : 1][D / 16][4];
    float out[M][D / 8][4] = {}, most[M][2], sum[M][2] = {}, c = a.scale * log2_e;
    for (int m = 0; m < M; m++) most[m][0] = most[m][1] = -INFINITY;
    auto left = [&](uint32_t(&f)[4], int m, int k) {
        if constexpr (held) {
            for (int e = 0; e < 4; e++) f[e] = q[m][k][e];
        } else {
            left_of<D>(f, q_tile, (warp * M + m) * 16, k * 16);
        }
    };
    for (int j0 = first, i = 0; j0 <= last; j0 += keys, i++) {
        const bf16 *k_now = k_tile + i % 2 * tile, *v_now = v_tile + i % 2 * tile;
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
            times_rows<D>(s, left, k_now);
            if (j0 + keys - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
            soften<D>(s, out, most, sum, c);
            times_columns<D>(out, s, v_now);
        }
        __syncthreads();
    }
    float factor[M][2];
    for (int m = 0; m < M; m++)
        for (int r = 0; r < 2; r++) {
            sum[m][r] = quad_sum(sum[m][r]);
            factor[m][r] = 1 / sum[m][r];
            if (a.lse && threadIdx.x % 4 == 0 && mine.row[m][r] < a.tokens)
                a.lse[(int64_t)mine.row[m][r] * a.heads + h] = most[m][r] * a.scale + logf(sum[m][r]);
        }
    write_tile<D>(a.y, out, mine, a.tokens, (int64_t)h * D, factor);
}

/* ---- gradient ---- */

/* dq of a tile of rows: dq = ds k, ds = p (dy vᵀ - delta) scale. */
template <int D, int M, int keys>
static __global__ void __launch_bounds__(threads, 2) flash_query_grad(struct attention a) {
    constexpr int rows = warps * 16 * M, row_tile = rows * row_stride<D>, tile = keys * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    bf16 *q_tile = (bf16 *)memory, *dy_tile = q_tile + row_tile, *k_tile = dy_tile + row_tile,
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
        const bf16 *k_now = k_tile + i % 2 * tile, *v_now = v_tile + i % 2 * tile;
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
            times_rows<D>(
                s, [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, q_tile, (warp * M + m) * 16, k * 16); },
                k_now);
            times_rows<D>(
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
            times_columns<D>(dq, s, k_now);
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

/* dk, dv of a tile of keys, over the tiles of rows that see them and the heads that share them: scores lie
 * transposed, a key a row. */
template <int D, int M, int rows>
static __global__ void __launch_bounds__(threads, 2) flash_key_grad(struct attention a) {
    constexpr int keys = warps * 16 * M, tile = keys * row_stride<D>, row_tile = rows * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ row_facts<rows> facts[2];
    bf16 *k_tile = (bf16 *)memory, *v_tile = k_tile + tile, *q_tile = v_tile + tile,
         *dy_tile = q_tile + 2 * row_tile;
    int warp = threadIdx.x / 32, kv = blockIdx.y, shared = a.heads / a.kv_heads, j0 = (int)blockIdx.x * keys;
    int last_key = j0 + keys < a.tokens ? j0 + keys - 1 : (int)a.tokens - 1, end = a.ranges.end[last_key];
    int warp_first = j0 + warp * 16 * M, warp_last = warp_first + 16 * M - 1;
    int tiles = (end - j0 + rows - 1) / rows, count = tiles * shared;
    float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {}, c = a.scale * log2_e;
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
        const bf16 *q_now = q_tile + i % 2 * row_tile, *dy_now = dy_tile + i % 2 * row_tile;
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
            times_rows<D>(
                s, [&](uint32_t(&f)[4], int m, int k) { left_of<D>(f, k_tile, (warp * M + m) * 16, k * 16); },
                q_now);
            times_rows<D>(
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
            times_columns<D>(dv, s, dy_now);
            times_columns<D>(dk, dp, q_now);
        }
        __syncthreads();
    }
    own_rows<M> mine = rows_from<M>(a, warp_first);
    write_tile<D>(a.dk, dk, mine, a.tokens, (int64_t)kv * D, ones<M>().v);
    write_tile<D>(a.dv, dv, mine, a.tokens, (int64_t)kv * D, ones<M>().v);
}

/* ---- launches ---- */

/* More shared memory than 48 KiB has to be asked for; it is cheap to ask again. */
template <class K>
static void launch(K kernel, int64_t tokens, int tile, int heads, int tile_rows, int width,
                   const struct attention &a, cudaStream_t stream) {
    int bytes = tile_rows * (width + 8) * (int)sizeof(bf16);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<dim3((unsigned)((tokens + tile - 1) / tile), (unsigned)heads), threads, bytes, stream>>>(a);
}

template <int D, int M, int keys> static void forward(const struct attention &a, cudaStream_t stream) {
    constexpr int rows = warps * 16 * M;
    launch(flash<D, M, keys>, a.tokens, rows, a.heads, rows + 4 * keys, D, a, stream);
}

/* M, `step`: fragments of a warp and the tile that is stepped over, of dq and of dk and dv. */
template <int D, int M, int keys, int rows>
static void backward(const struct attention &a, cudaStream_t stream) {
    constexpr int tile = warps * 16 * M;
    launch(flash_query_grad<D, M, keys>, a.tokens, tile, a.heads, 2 * tile + 4 * keys, D, a, stream);
    launch(flash_key_grad<D, M, rows>, a.tokens, tile, a.kv_heads, 2 * tile + 4 * rows, D, a, stream);
}

bool cuda_flash_serves(enum dtype type, int head_dim) {
    return type == DTYPE_BF16 && (head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128);
}

bool cuda_flash(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    switch (a->head_dim) {
    case 64: forward<64, 2, 64>(*a, stream); return true;
    case 80: forward<80, 1, 64>(*a, stream); return true;
    case 96: forward<96, 1, 64>(*a, stream); return true;
    case 128: forward<128, 2, 32>(*a, stream); return true;
    default: return false;
    }
}

bool cuda_flash_grad(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    switch (a->head_dim) {
    case 64: backward<64, 2, 64, 32>(*a, stream); return true;
    case 80: backward<80, 1, 32, 32>(*a, stream); return true;
    case 96: backward<96, 1, 32, 32>(*a, stream); return true;
    case 128: backward<128, 1, 32, 32>(*a, stream); return true;
    default: return false;
    }
}
