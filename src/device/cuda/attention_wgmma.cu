/* Attention for Hopper: what attention_flash.cu does, by products of warpgroups (wgmma.cuh), 64 rows each.
 *
 * Tiles and sums are as there: one kernel for y, one for dq over the keys of a tile of rows, one for dk and
 * dv over the rows that see a tile of keys, where scores lie transposed so that the rounded weights are the
 * left operand of the next product in the registers where they are. No sum is made in memory, so every one
 * has a fixed order. A step's tile is copied while the step before it is computed; one barrier a step. The
 * grid has heads first and the longest tiles before the short ones, so that the last blocks are short. */
#include "device/cuda/wgmma.cuh"

enum { side = 64 }; /* rows of a warpgroup, and of the tile that is stepped over */

/* The dynamic shared memory from a multiple of 1,024 bytes on; launches ask for as many bytes more. */
static __device__ inline unsigned shared_tiles() {
    extern __shared__ unsigned char memory[];
    return (shared_address(memory) + 1023) & ~1023u;
}

/* Keys and values that a tile of rows steps over, two steps' room. */
template <int D, int threads> struct key_steps {
    const struct attention &a;
    unsigned tiles;
    int64_t column;
    static constexpr int bytes = side * D * (int)sizeof(number16);

    __device__ unsigned keys(int step) const { return tiles + step % 2 * 2 * bytes; }
    __device__ unsigned values(int step) const { return keys(step) + bytes; }
    __device__ void load(int step, int first) const {
        load_panels<D, side, threads>(keys(step), a.k, first, a.tokens, column);
        load_panels<D, side, threads>(values(step), a.v, first, a.tokens, column);
        copies_commit();
    }
};

/* This step's tile is there for all, and everybody is done with the one before. */
static __device__ inline void begin_step() {
    copies_wait<0>();
    writes_to_wgmma();
    __syncthreads();
}

/* Which tiles of keys the rows of a warpgroup need. */
struct rows_of_group {
    int last, start;
    __device__ rows_of_group(const struct attention &a, int first)
        : last(first + side - 1), start(first < a.tokens ? a.ranges.start[first] : INT_MAX) {}
    __device__ bool sees(int j0) const { return j0 <= last && j0 > start - side; }
};

/* ---- forward ---- */

template <class T, int D, int groups, int blocks>
static __global__ void __launch_bounds__(128 * groups, blocks) forward(struct attention a) {
    constexpr int rows = side * groups, threads = 128 * groups;
    int group = threadIdx.x / 128, h = blockIdx.x, q0 = (int)(gridDim.y - 1 - blockIdx.y) * rows;
    int first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : (int)a.tokens - 1;
    rows_of_group turn(a, q0 + side * group);
    own_rows<1> mine = rows_from<1>(a, q0 + threadIdx.x / 32 * 16);
    unsigned q_tile = shared_tiles(), q_mine = q_tile + group * side * panel_row;
    key_steps<D, threads> steps = {a, q_tile + rows * D * (unsigned)sizeof(number16),
                                   (int64_t)h * a.kv_heads / a.heads * D};
    load_panels<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    steps.load(0, first);
    float out[1][D / 8][4] = {}, most[1][2] = {{-INFINITY, -INFINITY}}, sum[1][2] = {}, c = a.scale * log2_e;
    for (int j0 = first, i = 0; j0 <= last; j0 += side, i++) {
        begin_step();
        if (j0 + side <= last) steps.load(i + 1, j0 + side);
        if (!turn.sees(j0)) continue;
        float s[1][8][4];
        wgmma_begin();
        scores_of<T, D, rows>(s[0], q_mine, steps.keys(i));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_take(s[0]);
        if (j0 + side - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
        soften<D>(s, out, most, sum, c);
        uint32_t p[4][4];
        round_sums<T>(p, s[0]);
        wgmma_begin();
        add_columns<T, D>(out[0], p, steps.values(i));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_take(out[0]);
    }
    float factor[1][2];
    for (int r = 0; r < 2; r++) {
        sum[0][r] = quad_sum(sum[0][r]);
        factor[0][r] = 1 / sum[0][r];
        if (a.lse && threadIdx.x % 4 == 0 && mine.row[0][r] < a.tokens)
            a.lse[(int64_t)mine.row[0][r] * a.heads + h] = most[0][r] * a.scale + logf(sum[0][r]);
    }
    write_tile<D>(a.y, out, mine, a.tokens, (int64_t)h * D, factor);
}

/* ---- gradient ---- */

/* delta = Σ dy y: D / 8 threads for each row and head; and dy in 16 bits where it is not. */
template <int D> static __global__ void deltas(struct attention a) {
    constexpr int parts = D / 8;
    int64_t item = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / parts, t = item / a.heads,
            h = item % a.heads;
    float sum = 0;
    if (t < a.tokens) {
        int64_t column = h * D + threadIdx.x % parts * 8;
        lanes<8> dy = get<8>(a.dy, t * a.dy.stride + column), y = get<8>(a.y, t * a.y.stride + column);
        for (int j = 0; j < 8; j++) sum = fmaf(dy.v[j], y.v[j], sum);
        if (a.dy16.data != a.dy.data) put<8>(a.dy16, t * a.dy16.stride + column, dy);
    }
    for (int step = parts / 2; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (t < a.tokens && threadIdx.x % parts == 0) a.delta[item] = sum;
}

/* dq of a tile of rows: dq = ds k, ds = p (dy vᵀ - delta) scale. */
template <class T, int D, int groups, int blocks>
static __global__ void __launch_bounds__(128 * groups, blocks) query_grad(struct attention a) {
    constexpr int rows = side * groups, threads = 128 * groups;
    constexpr unsigned row_bytes = rows * D * sizeof(number16);
    int group = threadIdx.x / 128, h = blockIdx.x, q0 = (int)(gridDim.y - 1 - blockIdx.y) * rows;
    int first = a.ranges.start[q0], last = q0 + rows < a.tokens ? q0 + rows - 1 : (int)a.tokens - 1;
    rows_of_group turn(a, q0 + side * group);
    own_rows<1> mine = rows_from<1>(a, q0 + threadIdx.x / 32 * 16);
    unsigned q_tile = shared_tiles(), q_mine = q_tile + group * side * panel_row,
             dy_mine = q_mine + row_bytes;
    key_steps<D, threads> steps = {a, q_tile + 2 * row_bytes, (int64_t)h * a.kv_heads / a.heads * D};
    load_panels<D, rows, threads>(q_tile, a.q, q0, a.tokens, (int64_t)h * D);
    load_panels<D, rows, threads>(q_tile + row_bytes, a.dy16, q0, a.tokens, (int64_t)h * D);
    steps.load(0, first);
    float lse[2], delta[2], dq[1][D / 8][4] = {}, c = a.scale * log2_e;
    for (int r = 0; r < 2; r++) {
        int64_t row = mine.row[0][r] < a.tokens ? mine.row[0][r] : a.tokens - 1;
        lse[r] = a.lse[row * a.heads + h] * log2_e;
        delta[r] = a.delta[row * a.heads + h];
    }
    for (int j0 = first, i = 0; j0 <= last; j0 += side, i++) {
        begin_step();
        if (j0 + side <= last) steps.load(i + 1, j0 + side);
        if (!turn.sees(j0)) continue;
        float s[1][8][4], dp[8][4];
        wgmma_begin();
        scores_of<T, D, rows>(s[0], q_mine, steps.keys(i));
        wgmma_commit();
        scores_of<T, D, rows>(dp, dy_mine, steps.values(i));
        wgmma_commit();
        wgmma_wait<1>();
        wgmma_take(s[0]);
        if (j0 + side - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
#pragma unroll
        for (int n = 0; n < 8; n++)
            for (int e = 0; e < 4; e++) s[0][n][e] = exp2_of(fmaf(s[0][n][e], c, -lse[e / 2]));
        wgmma_wait<0>();
        wgmma_take(dp);
#pragma unroll
        for (int n = 0; n < 8; n++)
            for (int e = 0; e < 4; e++) s[0][n][e] *= dp[n][e] - delta[e / 2];
        uint32_t ds[4][4];
        round_sums<T>(ds, s[0]);
        wgmma_begin();
        add_columns<T, D>(dq[0], ds, steps.keys(i));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_take(dq[0]);
    }
    const float factor[1][2] = {{a.scale, a.scale}};
    write_tile<D>(a.dq, dq, mine, a.tokens, (int64_t)h * D, factor);
}

/* What a step's rows bring beside q and dy; zero past the end, where q and dy are zero too. */
struct row_facts {
    float lse[side], delta[side];
    int start[side];
};

static __device__ inline void copy4(void *to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 4 : 0));
}

/* Rows that a tile of keys steps over, of one head after the other, two steps' room. */
template <int D, int threads> struct row_steps {
    const struct attention &a;
    row_facts *facts; /* [2] */
    unsigned tiles;
    int first, end; /* of the rows */
    int head, row;  /* of the step that is loaded next */
    static constexpr int bytes = side * D * (int)sizeof(number16);

    __device__ unsigned q(int step) const { return tiles + step % 2 * 2 * bytes; }
    __device__ unsigned dy(int step) const { return q(step) + bytes; }
    __device__ void load(int step) {
        int t = row + (int)threadIdx.x;
        row_facts *to = &facts[step % 2];
        load_panels<D, side, threads>(q(step), a.q, row, a.tokens, (int64_t)head * D);
        load_panels<D, side, threads>(dy(step), a.dy16, row, a.tokens, (int64_t)head * D);
        if (threadIdx.x < side) {
            copy4(&to->lse[threadIdx.x], a.lse + (int64_t)t * a.heads + head, t < a.tokens);
            copy4(&to->delta[threadIdx.x], a.delta + (int64_t)t * a.heads + head, t < a.tokens);
            copy4(&to->start[threadIdx.x], a.ranges.start + t, t < a.tokens);
        }
        copies_commit();
        row += side;
        if (row >= end) {
            row = first;
            head++;
        }
    }
};

/* Scores of a step, a key a row: -∞ where a row does not see a key. */
static __device__ inline void hide_rows(float (&s)[8][4], const row_facts &fact, int t0, int key) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int at = n * 8 + threadIdx.x % 4 * 2 + e % 2, j = key + e / 2 * 8;
            bool hidden = (j > t0 + at) | (j < fact.start[at]);
            s[n][e] = hidden ? -INFINITY : s[n][e];
        }
}

/* Weights p = exp(scale s - lse) and ds = p (dp - delta), both rounded as left operands. */
template <class T>
static __device__ inline void weigh(uint32_t (&p)[4][4], uint32_t (&ds)[4][4], const float (&s)[8][4],
                                    const float (&dp)[8][4], const row_facts &fact, float c) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        int at = n * 8 + threadIdx.x % 4 * 2;
        const float2 lse = *(const float2 *)&fact.lse[at], delta = *(const float2 *)&fact.delta[at];
        const float shift[2] = {-lse.x * log2_e, -lse.y * log2_e}, less[2] = {delta.x, delta.y};
        float w[4], d[4];
        for (int e = 0; e < 4; e++) {
            w[e] = exp2_of(fmaf(s[n][e], c, shift[e % 2]));
            d[e] = w[e] * (dp[n][e] - less[e % 2]);
        }
        for (int r = 0; r < 2; r++) {
            p[n / 2][n % 2 * 2 + r] = two_of<T>(w[2 * r], w[2 * r + 1]);
            ds[n / 2][n % 2 * 2 + r] = two_of<T>(d[2 * r], d[2 * r + 1]);
        }
    }
}

/* dk, dv of a tile of keys. */
template <class T, int D, int groups>
static __global__ void __launch_bounds__(128 * groups, 1) key_grad(struct attention a) {
    constexpr int keys = side * groups, threads = 128 * groups;
    constexpr unsigned key_bytes = keys * D * sizeof(number16);
    __shared__ row_facts facts[2];
    int group = threadIdx.x / 128, kv = blockIdx.x, j0 = (int)blockIdx.y * keys;
    int last_key = j0 + keys < a.tokens ? j0 + keys - 1 : (int)a.tokens - 1, end = a.ranges.end[last_key];
    int group_first = j0 + side * group, group_last = group_first + side - 1;
    int key = j0 + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
    unsigned k_tile = shared_tiles(), k_mine = k_tile + group * side * panel_row, v_mine = k_mine + key_bytes;
    int shared = a.heads / a.kv_heads, tiles = (end - j0 + side - 1) / side;
    row_steps<D, threads> steps = {a, facts, k_tile + 2 * key_bytes, j0, end, kv * shared, j0};
    load_panels<D, keys, threads>(k_tile, a.k, j0, a.tokens, (int64_t)kv * D);
    load_panels<D, keys, threads>(k_tile + key_bytes, a.v, j0, a.tokens, (int64_t)kv * D);
    steps.load(0);
    float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {}, c = a.scale * log2_e;
    for (int i = 0, t0 = j0; i < tiles * shared; i++, t0 = t0 + side < end ? t0 + side : j0) {
        begin_step();
        if (i + 1 < tiles * shared) steps.load(i + 1);
        const row_facts &fact = facts[i % 2];
        int late = t0 + side <= a.tokens ? side - 1 : (int)a.tokens - 1 - t0;
        if (t0 + side - 1 < group_first || fact.start[0] > group_last) continue;
        float s[8][4], dp[8][4];
        uint32_t p[4][4], ds[4][4];
        wgmma_begin();
        scores_of<T, D, keys>(s, k_mine, steps.q(i));
        scores_of<T, D, keys>(dp, v_mine, steps.dy(i));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_take(s);
        wgmma_take(dp);
        if (t0 < group_last || fact.start[late] > group_first) hide_rows(s, fact, t0, key);
        weigh<T>(p, ds, s, dp, fact, c);
        wgmma_begin();
        add_columns<T, D>(dv[0], p, steps.dy(i));
        add_columns<T, D>(dk[0], ds, steps.q(i));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_take(dv[0]);
        wgmma_take(dk[0]);
    }
    own_rows<1> mine = rows_from<1>(a, j0 + threadIdx.x / 32 * 16);
    const float factor[1][2] = {{a.scale, a.scale}};
    write_tile<D>(a.dk, dk, mine, a.tokens, (int64_t)kv * D, factor);
    write_tile<D>(a.dv, dv, mine, a.tokens, (int64_t)kv * D, ones<1>().v);
}

/* ---- launches ---- */

/* `tile`: rows of a block; `held`: rows of D numbers in its shared memory. */
template <class K>
static void launch(K kernel, const struct attention &a, int heads, int tile, int held, cudaStream_t stream) {
    int bytes = held * a.head_dim * (int)sizeof(number16) + 1024;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<dim3((unsigned)heads, (unsigned)((a.tokens + tile - 1) / tile)), tile * 2, bytes, stream>>>(a);
}

/* Warpgroups of a block and blocks of a multiprocessor: what was fastest on an H100. */
template <class T, int D, int groups, int blocks>
static void run(const struct attention &a, cudaStream_t stream) {
    constexpr int tile = side * groups;
    launch(forward<T, D, groups, blocks>, a, a.heads, tile, tile + 4 * side, stream);
}

template <class T, int D, int groups, int blocks, int key_groups>
static void run_grad(const struct attention &a, cudaStream_t stream) {
    constexpr int tile = side * groups, keys = side * key_groups;
    int64_t threads = a.tokens * a.heads * (D / 8);
    deltas<D><<<(unsigned)((threads + 255) / 256), 256, 0, stream>>>(a);
    launch(query_grad<T, D, groups, blocks>, a, a.heads, tile, 2 * tile + 4 * side, stream);
    launch(key_grad<T, D, key_groups>, a, a.kv_heads, keys, 2 * keys + 4 * side, stream);
}

bool cuda_is_hopper(int major, int minor) {
#if defined(HONE_SM90A)
    return major == 9 && minor == 0;
#else /* not compiled in */
    return false;
#endif
}

bool cuda_wgmma_serves(enum dtype type, int head_dim) {
    return (type == DTYPE_BF16 || type == DTYPE_F16) && (head_dim == 64 || head_dim == 128);
}

template <class T> static void run_of(const struct attention &a, cudaStream_t stream) {
    a.head_dim == 64 ? run<T, 64, 2, 2>(a, stream) : run<T, 128, 3, 1>(a, stream);
}

void cuda_wgmma(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return;
    a->q.type == DTYPE_BF16 ? run_of<__nv_bfloat16>(*a, stream) : run_of<__half>(*a, stream);
}

template <class T> static void run_grad_of(const struct attention &a, cudaStream_t stream) {
    a.head_dim == 64 ? run_grad<T, 64, 2, 2, 3>(a, stream) : run_grad<T, 128, 3, 1, 2>(a, stream);
}

void cuda_wgmma_grad(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return;
    a->q.type == DTYPE_BF16 ? run_grad_of<__nv_bfloat16>(*a, stream) : run_grad_of<__half>(*a, stream);
}
