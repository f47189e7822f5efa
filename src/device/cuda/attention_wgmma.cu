/* Attention for Hopper: what attention_flash.cu does, by products of warpgroups (wgmma.cuh), 64 rows each.
 * The gradient is in attention_grad_wgmma.cu.
 *
 * A step's tile of keys is copied while the step before it is computed; one barrier a step. The grid has
 * heads first and the longest tiles before the short ones, so that the last blocks are short. */
#include "device/cuda/wgmma.cuh"

enum { side = 64 }; /* rows of a warpgroup, and of the tile that is stepped over */

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
