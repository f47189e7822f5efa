/* Attention on tensor cores, bf16 in, f32 sums (Dao 2023, algorithms 1 and 2), for grouped heads and
 * segments.
 *
 * Tiles lie over the flat rows, whatever the segments: a row t sees the keys from its segment's start to t,
 * so a tile of rows needs the keys from its first row's start to its last row. Scores never leave registers:
 * the fragments that a product yields are those that the next one takes. The gradient has two kernels, one
 * with a tile of rows (dq), one with a tile of keys (dk, dv): 7 products instead of 5, but every sum is made
 * by one warp in a fixed order, and nothing is summed in memory.
 *
 * Fragments of mma.m16n8k16: a thread of lane l has rows l/4 and l/4 + 8, columns 2 (l%4) and the next. */
#include "device/cuda/kernel.cuh"

typedef __nv_bfloat16 bf16;

/* ---- tiles in shared memory: rows of D numbers, 16 bytes apart from a multiple of 128, so that the eight
 * rows of a fragment lie in different banks ---- */

template <int D> constexpr int row_stride = D + 8;

static __device__ inline void copy16(bf16 *to, const bf16 *from, bool there) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(there ? 16 : 0));
}
static __device__ inline void copies_commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> static __device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N));
}

/* `rows` rows from `first` on of x, columns from `column` on; rows past the end are zero. */
template <int D, int rows, int threads>
static __device__ inline void load_tile(bf16 *tile, const struct array &x, int64_t first, int64_t tokens,
                                        int64_t column) {
    constexpr int chunks = D / 8;
    for (int i = threadIdx.x; i < rows * chunks; i += threads) {
        int64_t row = first + i / chunks, safe = row < tokens ? row : tokens - 1;
        copy16(tile + i / chunks * row_stride<D> + i % chunks * 8,
               (const bf16 *)x.data + safe * x.stride + column + i % chunks * 8, row < tokens);
    }
}

static __device__ inline void load_matrices(uint32_t (&r)[4], const bf16 *at) {
    unsigned address = (unsigned)__cvta_generic_to_shared(at);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}
static __device__ inline void load_transposed(uint32_t (&r)[4], const bf16 *at) {
    unsigned address = (unsigned)__cvta_generic_to_shared(at);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
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

static __device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* sums [16, 8 N] += left yᵀ: `left` gives the left fragment of 16 columns. */
template <int D, int N, class L>
static __device__ inline void times_rows(float (&sum)[N][4], L left, const bf16 *y) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4], b[4];
        left(a, k);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            right_rows<D>(b, y, n * 16, k * 16);
            multiply(sum[2 * n], a, b[0], b[1]);
            multiply(sum[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/* out [16, D] += p y, p [16, 8 N] in registers, rounded to bf16. */
template <int D, int N>
static __device__ inline void times_columns(float (&out)[D / 8][4], const float (&p)[N][4], const bf16 *y) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[4] = {two_bf16(p[2 * k][0], p[2 * k][1]), two_bf16(p[2 * k][2], p[2 * k][3]),
                         two_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                         two_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            right_columns<D>(b, y, k * 16, n * 16);
            multiply(out[2 * n], a, b[0], b[1]);
            multiply(out[2 * n + 1], a, b[2], b[3]);
        }
    }
}

static __device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
static __device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

constexpr float log2_e = 1.44269504f;

/* The two rows of a thread: their numbers, where their keys begin. A row past the end sees no key. */
struct two_rows {
    int64_t row[2], start[2];
};
static __device__ inline two_rows rows_of(const struct attention &a, int64_t first) {
    two_rows r;
    for (int i = 0; i < 2; i++) {
        r.row[i] = first + threadIdx.x % 32 / 4 + 8 * i;
        r.start[i] = r.row[i] < a.tokens ? a.ranges.start[r.row[i]] : INT64_MAX;
    }
    return r;
}

/* Writes [16, D] of fragments to the rows of a thread; `factor` for each of the two. */
template <int D>
static __device__ inline void write_tile(const struct array &out, const float (&x)[D / 8][4],
                                         const two_rows &r, int64_t tokens, int64_t column,
                                         const float (&factor)[2]) {
    int at = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        for (int i = 0; i < 2; i++) {
            if (r.row[i] >= tokens) continue;
            float low = x[n][2 * i] * factor[i], high = x[n][2 * i + 1] * factor[i];
            int64_t to = r.row[i] * out.stride + column + n * 8 + at;
            if (out.type == DTYPE_BF16)
                *(uint32_t *)((bf16 *)out.data + to) = two_bf16(low, high);
            else
                *(float2 *)((float *)out.data + to) = make_float2(low, high);
        }
}

/* ---- forward ---- */

constexpr int keys = 64; /* of a tile */

template <int D, int warps> static __global__ void __launch_bounds__(warps * 32) flash(struct attention a) {
    constexpr int threads = warps * 32, rows = warps * 16, tile = keys * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    bf16 *q_tile = (bf16 *)memory, *k_tile = q_tile + rows * row_stride<D>, *v_tile = k_tile + 2 * tile;
    int warp = threadIdx.x / 32, h = blockIdx.y;
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * rows; /* the longest first */
    int64_t column = (int64_t)h * a.kv_heads / a.heads * D;
    int64_t first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : a.tokens - 1;
    int count = (int)((last - first) / keys + 1);
    two_rows mine = rows_of(a, q0 + warp * 16);
    int64_t warp_last = q0 + warp * 16 + 15,
            late = warp_last < a.tokens ? a.ranges.start[warp_last] : INT64_MAX;

    load_tile<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_tile<D, keys, threads>(k_tile, a.k, first, a.tokens, column);
    load_tile<D, keys, threads>(v_tile, a.v, first, a.tokens, column);
    copies_commit();
    uint32_t q[D / 16][4];
    float out[D / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {}, c = a.scale * log2_e;
    for (int i = 0; i < count; i++) {
        int64_t j0 = first + (int64_t)i * keys;
        if (i + 1 < count) {
            load_tile<D, keys, threads>(k_tile + (i + 1) % 2 * tile, a.k, j0 + keys, a.tokens, column);
            load_tile<D, keys, threads>(v_tile + (i + 1) % 2 * tile, a.v, j0 + keys, a.tokens, column);
            copies_commit();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (!i)
            for (int k = 0; k < D / 16; k++) left_of<D>(q[k], q_tile, warp * 16, k * 16);
        if (j0 <= warp_last) {
            float s[keys / 8][4] = {};
            times_rows<D>(
                s,
                [&](uint32_t(&f)[4], int k) {
                    for (int e = 0; e < 4; e++) f[e] = q[k][e];
                },
                k_tile + i % 2 * tile);
            if (j0 + keys - 1 > q0 + warp * 16 || j0 < late)
                for (int n = 0; n < keys / 8; n++)
                    for (int e = 0; e < 4; e++) {
                        int64_t j = j0 + n * 8 + threadIdx.x % 4 * 2 + e % 2;
                        if (j > mine.row[e / 2] || j < mine.start[e / 2]) s[n][e] = -INFINITY;
                    }
            for (int r = 0; r < 2; r++) {
                float top = most[r];
                for (int n = 0; n < keys / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
                top = quad_max(top);
                float shift = top == -INFINITY ? 0 : top * c, keep = exp2f(most[r] * c - shift);
                most[r] = top;
                sum[r] *= keep;
                for (int n = 0; n < keys / 8; n++)
                    for (int e = 2 * r; e < 2 * r + 2; e++) {
                        s[n][e] = exp2f(fmaf(s[n][e], c, -shift));
                        sum[r] += s[n][e];
                    }
                for (int n = 0; n < D / 8; n++) {
                    out[n][2 * r] *= keep;
                    out[n][2 * r + 1] *= keep;
                }
            }
            times_columns<D>(out, s, v_tile + i % 2 * tile);
        }
        __syncthreads();
    }
    float factor[2];
    for (int r = 0; r < 2; r++) {
        sum[r] = quad_sum(sum[r]);
        factor[r] = 1 / sum[r];
        if (a.lse && threadIdx.x % 4 == 0 && mine.row[r] < a.tokens)
            a.lse[mine.row[r] * a.heads + h] = most[r] * a.scale + logf(sum[r]);
    }
    write_tile<D>(a.y, out, mine, a.tokens, (int64_t)h * D, factor);
}

/* ---- gradient ---- */

/* dq of a tile of 64 rows: dq = ds k, ds = p (dy vᵀ - delta) scale. */
template <int D> static __global__ void __launch_bounds__(128) flash_query_grad(struct attention a) {
    constexpr int rows = 64, tile = 64 * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    bf16 *q_tile = (bf16 *)memory, *dy_tile = q_tile + tile, *k_tile = dy_tile + tile,
         *v_tile = k_tile + tile;
    int warp = threadIdx.x / 32, h = blockIdx.y;
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * rows;
    int64_t column = (int64_t)h * a.kv_heads / a.heads * D;
    int64_t first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : a.tokens - 1;
    two_rows mine = rows_of(a, q0 + warp * 16);
    int64_t warp_last = q0 + warp * 16 + 15,
            late = warp_last < a.tokens ? a.ranges.start[warp_last] : INT64_MAX;
    float lse[2], delta[2], dq[D / 8][4] = {}, c = a.scale * log2_e;
    for (int r = 0; r < 2; r++) {
        int64_t at = (mine.row[r] < a.tokens ? mine.row[r] : a.tokens - 1) * a.heads + h;
        lse[r] = a.lse[at] * log2_e;
        delta[r] = a.delta[at];
    }
    load_tile<D, rows, 128>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_tile<D, rows, 128>(dy_tile, a.dy16, q0, a.tokens, (int64_t)h * D);
    for (int64_t j0 = first; j0 <= last; j0 += keys) {
        load_tile<D, keys, 128>(k_tile, a.k, j0, a.tokens, column);
        load_tile<D, keys, 128>(v_tile, a.v, j0, a.tokens, column);
        copies_commit();
        copies_wait<0>();
        __syncthreads();
        if (j0 <= warp_last) {
            float s[keys / 8][4] = {}, dp[keys / 8][4] = {};
            times_rows<D>(
                s, [&](uint32_t(&f)[4], int k) { left_of<D>(f, q_tile, warp * 16, k * 16); }, k_tile);
            times_rows<D>(
                dp, [&](uint32_t(&f)[4], int k) { left_of<D>(f, dy_tile, warp * 16, k * 16); }, v_tile);
            bool partial = j0 + keys - 1 > q0 + warp * 16 || j0 < late;
            for (int n = 0; n < keys / 8; n++)
                for (int e = 0; e < 4; e++) {
                    int64_t j = j0 + n * 8 + threadIdx.x % 4 * 2 + e % 2;
                    bool seen = !partial || (j <= mine.row[e / 2] && j >= mine.start[e / 2]);
                    float p = seen ? exp2f(fmaf(s[n][e], c, -lse[e / 2])) : 0;
                    s[n][e] = p * (dp[n][e] - delta[e / 2]) * a.scale;
                }
            times_columns<D>(dq, s, k_tile);
        }
        __syncthreads();
    }
    const float one[2] = {1, 1};
    write_tile<D>(a.dq, dq, mine, a.tokens, (int64_t)h * D, one);
}

/* dk, dv of a tile of 64 keys, over the tiles of rows that see them and the heads that share them: scores lie
 * transposed, a key a row. */
template <int D, int rows> static __global__ void __launch_bounds__(128) flash_key_grad(struct attention a) {
    constexpr int tile = keys * row_stride<D>, row_tile = rows * row_stride<D>;
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ float lse[rows], delta[rows];
    __shared__ int start[rows];
    bf16 *k_tile = (bf16 *)memory, *v_tile = k_tile + tile, *q_tile = v_tile + tile,
         *dy_tile = q_tile + row_tile;
    int warp = threadIdx.x / 32, kv = blockIdx.y, shared = a.heads / a.kv_heads;
    int64_t j0 = (int64_t)blockIdx.x * keys;
    int64_t last_key = j0 + keys < a.tokens ? j0 + keys - 1 : a.tokens - 1, end = a.ranges.end[last_key];
    int64_t warp_first = j0 + warp * 16;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {}, c = a.scale * log2_e;
    load_tile<D, keys, 128>(k_tile, a.k, j0, a.tokens, (int64_t)kv * D);
    load_tile<D, keys, 128>(v_tile, a.v, j0, a.tokens, (int64_t)kv * D);
    for (int h = kv * shared; h < (kv + 1) * shared; h++)
        for (int64_t t0 = j0; t0 < end; t0 += rows) {
            load_tile<D, rows, 128>(q_tile, a.q, t0, a.tokens, (int64_t)h * D);
            load_tile<D, rows, 128>(dy_tile, a.dy16, t0, a.tokens, (int64_t)h * D);
            copies_commit();
            for (int i = threadIdx.x; i < rows; i += 128) {
                bool there = t0 + i < a.tokens;
                int64_t at = (t0 + i) * a.heads + h;
                lse[i] = there ? a.lse[at] * log2_e : 0;
                delta[i] = there ? a.delta[at] : 0;
                start[i] = there ? a.ranges.start[t0 + i] : INT32_MAX; /* sees no key */
            }
            copies_wait<0>();
            __syncthreads();
            if (t0 + rows > warp_first) {
                float s[rows / 8][4] = {}, dp[rows / 8][4] = {};
                times_rows<D>(
                    s, [&](uint32_t(&f)[4], int k) { left_of<D>(f, k_tile, warp * 16, k * 16); }, q_tile);
                times_rows<D>(
                    dp, [&](uint32_t(&f)[4], int k) { left_of<D>(f, v_tile, warp * 16, k * 16); }, dy_tile);
                for (int n = 0; n < rows / 8; n++)
                    for (int e = 0; e < 4; e++) {
                        int i = n * 8 + threadIdx.x % 4 * 2 + e % 2;
                        int64_t j = warp_first + threadIdx.x % 32 / 4 + e / 2 * 8;
                        bool seen = j <= t0 + i && j >= start[i];
                        float p = seen ? exp2f(fmaf(s[n][e], c, -lse[i])) : 0;
                        s[n][e] = p;
                        dp[n][e] = p * (dp[n][e] - delta[i]) * a.scale;
                    }
                times_columns<D>(dv, s, dy_tile);
                times_columns<D>(dk, dp, q_tile);
            }
            __syncthreads();
        }
    copies_wait<0>();
    two_rows mine = rows_of(a, warp_first);
    const float one[2] = {1, 1};
    write_tile<D>(a.dk, dk, mine, a.tokens, (int64_t)kv * D, one);
    write_tile<D>(a.dv, dv, mine, a.tokens, (int64_t)kv * D, one);
}

/* ---- launches ---- */

/* More shared memory than 48 KiB has to be asked for; it is cheap to ask again. */
template <class K>
static void launch(K kernel, dim3 grid, int threads, int tile_rows, int width, const struct attention &a,
                   cudaStream_t stream) {
    int bytes = tile_rows * (width + 8) * (int)sizeof(bf16);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<grid, threads, bytes, stream>>>(a);
}

static unsigned tiles_of(int64_t tokens, int rows) { return (unsigned)((tokens + rows - 1) / rows); }

template <int D, int warps> static void forward(const struct attention &a, cudaStream_t stream) {
    launch(flash<D, warps>, dim3(tiles_of(a.tokens, warps * 16), (unsigned)a.heads), warps * 32,
           warps * 16 + 4 * keys, D, a, stream);
}

template <int D, int rows> static void backward(const struct attention &a, cudaStream_t stream) {
    launch(flash_query_grad<D>, dim3(tiles_of(a.tokens, 64), (unsigned)a.heads), 128, 4 * 64, D, a, stream);
    launch(flash_key_grad<D, rows>, dim3(tiles_of(a.tokens, keys), (unsigned)a.kv_heads), 128,
           2 * (keys + rows), D, a, stream);
}

bool cuda_flash_serves(enum dtype type, int head_dim) {
    return type == DTYPE_BF16 && (head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128);
}

bool cuda_flash(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    switch (a->head_dim) {
    case 64: forward<64, 8>(*a, stream); return true;
    case 80: forward<80, 4>(*a, stream); return true;
    case 96: forward<96, 4>(*a, stream); return true;
    case 128: forward<128, 4>(*a, stream); return true;
    default: return false;
    }
}

bool cuda_flash_grad(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    switch (a->head_dim) {
    case 64: backward<64, 64>(*a, stream); return true;
    case 80: backward<80, 32>(*a, stream); return true;
    case 96: backward<96, 32>(*a, stream); return true;
    case 128: backward<128, 32>(*a, stream); return true;
    default: return false;
    }
}
