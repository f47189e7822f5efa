/* Attention's gradient for Hopper, by products of warpgroups (wgmma.cuh), in one kernel with five products.
 *
 * A block has a tile of 128 keys, 64 for each of two warpgroups, and steps over the rows that see them and
 * the heads that share them. Scores lie transposed, a key a row, so that rounded weights are the left operand
 * of the next product in the registers where they are; dk and dv stay in registers to the end.
 *
 *   s = k qᵀ    dp = v dyᵀ    p = exp(scale s - lse)    ds = p (dp - delta)    dv += p dy    dk += ds q
 *
 * A row's dq is a sum over tiles of keys, that is, over blocks: they add in memory, in f32, one after the
 * other, the first keys first, so that the bits are the same in every run. For each tile of rows and head a
 * number in memory says how many have added; a block waits until it is its turn. Rows are gone through from
 * the last to the first, all heads of a tile before the next, and the blocks with the first keys start first:
 * a block is always behind the one that it follows, and finds that its turn has come. The last one to add
 * rounds the sum into dq. Blocks are numbered as they start, so the one that is waited for runs already.
 *
 * In the time of one step: p is made while dp is multiplied, ds while dv is, and goes to shared memory (dq
 * needs that of both warpgroups) while dk is; dq is left there for adding while the next step's scores are
 * multiplied. Three more warps copy: one brings the steps' rows, two by turns wait for the block's turn, add
 * what was left and tell of it, which takes longer than a step. */
#include "device/cuda/fetch.cuh"
#include "device/cuda/wgmma.cuh"

namespace {

enum { side = 64, groups = 2, keys = side * groups, stages = 2, keepers = 2 };
enum { long_row = 8192, very_long_row = 131072 };
enum { multipliers = 128 * groups, threads = multipliers + 128, fetcher = groups * 4, keeper };
enum {
    bar_stored = 1,
    bar_added
}; /* named barriers: ds is in shared memory; dq is left for adding, one for each keeper */

/* Numbers of dq of a step: a tile of rows of a head. */
constexpr int tile_sums = 8192;
constexpr unsigned sums_bytes = tile_sums * sizeof(float);

/* What depends on the width of a head: rows of a step, in halves of 64. */
template <int D> struct step_of {
    static constexpr int rows = tile_sums / D, halves = rows / side;
    static constexpr int sums_tiles = D == 64 ? 1 : 2; /* as many as there is room for */
    static constexpr unsigned row_bytes = rows * D * sizeof(number16),
                              key_bytes = keys * D * sizeof(number16), ds_bytes = keys * halves * panel_row;
    static constexpr unsigned tile_bytes =
        2 * key_bytes + stages * 2 * row_bytes + 2 * ds_bytes + sums_tiles * sums_bytes;
};

struct arguments {
    struct attention a;
    CUtensorMap q, dy, k, v; /* boxes of a step's rows, of a block's keys */
};

/* What a step's rows bring beside q and dy; zero past the end, where q and dy are zero too. */
template <int rows> struct alignas(16) row_facts {
    float lse[rows], delta[rows];
    int start[rows];
};

/* In which order blocks take tiles: from how many parts of the rows in turn, for how many heads of keys. */
struct order {
    int parts, together;
};

/* What the threads of a block share beside its tiles. */
template <int rows> struct shared_part {
    row_facts<rows> facts[stages];
    uint64_t full[stages], empty[stages], keys_there, sums_free[2], turn_come[keepers];
    int number;
    struct order order;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* The steps of a block: tiles of rows from the last to the first, every head of one before the next. */
struct step_cursor {
    int rows, heads_from, heads_to; /* rows: of a step */
    int t0, head;
    ring_place<stages> stage;
    __device__ void next() {
        if (++head == heads_to) {
            head = heads_from;
            t0 -= rows;
        }
        stage.next();
    }
};

/* Scores of rows from t0 on, a key a row: -∞ where a row does not see a key. */
template <int N>
static __device__ inline void hide_rows(float (&s)[N][4], const int *start, int t0, int key) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int at = n * 8 + threadIdx.x % 4 * 2 + e % 2, j = key + e / 2 * 8;
            bool hidden = (j > t0 + at) | (j < start[at]);
            s[n][e] = hidden ? -INFINITY : s[n][e];
        }
}

/* Scores become weights p = exp(scale s - lse). */
template <int N> static __device__ inline void weigh(float (&s)[N][4], const float *lse, float c) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float2 two = *(const float2 *)&lse[n * 8 + threadIdx.x % 4 * 2];
        const float shift[2] = {-two.x * log2_e, -two.y * log2_e};
        for (int e = 0; e < 4; e++) s[n][e] = exp2_of(fmaf(s[n][e], c, shift[e % 2]));
    }
}

/* Weights become ds = p (dp - delta). */
template <int N>
static __device__ inline void slope(float (&p)[N][4], const float (&dp)[N][4], const float *delta) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float2 two = *(const float2 *)&delta[n * 8 + threadIdx.x % 4 * 2];
        for (int e = 0; e < 4; e++) p[n][e] *= dp[n][e] - (e % 2 ? two.y : two.x);
    }
}

/* Fragments [64 keys, 16 K rows] of a warpgroup to its keys of panels [keys, 64 rows]. */
template <int K>
static __device__ inline void store_panels(unsigned panel, const uint32_t (&f)[K][4], int group) {
    int lane = threadIdx.x % 32, key = (int)threadIdx.x % 128 / 32 * 16 + lane % 16;
    unsigned row = panel + (side * group + key) * panel_row;
#pragma unroll
    for (int k = 0; k < K; k++)
        put_matrices(row + k / 4 * keys * panel_row + chunk_of(key, 2 * (k % 4) + lane / 16), f[k][0],
                     f[k][1], f[k][2], f[k][3]);
}

/* ---- sums in memory ---- */

static __device__ inline int read_acquire(const int *at) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(value) : "l"(at) : "memory");
    return value;
}
static __device__ inline void write_release(int *at, int value) {
    asm volatile("st.release.gpu.global.s32 [%0], %1;\n" ::"l"(at), "r"(value) : "memory");
}
/* Threads' parts of a step's sums lie side by side, four numbers each. */
static __device__ inline void put_sums(unsigned to, const float (&x)[8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"r"(to + n * multipliers * 16),
                     "f"(x[n][0]), "f"(x[n][1]), "f"(x[n][2]), "f"(x[n][3])
                     : "memory");
}
static __device__ inline void join_sums(float (&x)[8][4], const float4 *sums) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float4 before = __ldcg(&sums[n * multipliers]);
        x[n][0] = before.x + x[n][0];
        x[n][1] = before.y + x[n][1];
        x[n][2] = before.z + x[n][2];
        x[n][3] = before.w + x[n][3];
    }
}

/* ---- a block ---- */

/* Sums in shared memory to memory: they become, or are added to, what is there. */
static __device__ inline void send_sums(float *to, unsigned from, bool adds) {
    if (adds)
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n" ::"l"(to),
                     "r"(from), "r"(sums_bytes)
                     : "memory");
    else
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(to), "r"(from),
                     "r"(sums_bytes)
                     : "memory");
    stores_commit();
}
/* Between what copies and what threads do in memory. */
static __device__ inline void copies_fence() { asm volatile("fence.proxy.async;\n" ::: "memory"); }

/* The same number, of which the compiler does not know that: what is computed of it stays in the loop, as
 * there are no registers to keep it. */
static __device__ inline unsigned again(unsigned x) {
    asm volatile("mov.u32 %0, %0;" : "+r"(x));
    return x;
}
template <class T, int D> struct block {
    using step = step_of<D>;
    static constexpr int rows = step::rows, halves = step::halves;

    const arguments &args;
    const struct attention &a;
    shared_part<rows> &shared;
    int kv, j0, count; /* its head of k and v, its first key, its steps */
    step_cursor first;
    unsigned k_tile, v_tile, row_tiles, ds_tiles;

    __device__ block(const arguments &given, shared_part<rows> &part, unsigned from)
        : args(given), a(given.a), shared(part) {
        int group = a.heads / a.kv_heads, tiles_of_keys = (int)((a.tokens + keys - 1) / keys);
        int tile = part.number / part.order.together, some = tile / tiles_of_keys;
        kv = some * part.order.together + part.number % part.order.together;
        tile -= some * tiles_of_keys;
        j0 = (tile % part.order.parts * (tiles_of_keys / part.order.parts) + tile / part.order.parts) * keys;
        int last_key = j0 + keys < a.tokens ? j0 + keys - 1 : (int)a.tokens - 1;
        int tiles = (a.ranges.end[last_key] - j0 + rows - 1) / rows;
        count = tiles * group;
        first = {rows, kv * group, (kv + 1) * group, j0 + (tiles - 1) * rows, kv * group};
        k_tile = from;
        v_tile = k_tile + step::key_bytes;
        row_tiles = v_tile + step::key_bytes;
        ds_tiles = row_tiles + stages * 2 * step::row_bytes;
    }

    __device__ unsigned q(int stage) const { return row_tiles + stage * 2 * step::row_bytes; }
    __device__ unsigned dy(int stage) const { return q(stage) + step::row_bytes; }
    __device__ unsigned sums_tile(int i) const {
        return ds_tiles + 2 * step::ds_bytes + i % step::sums_tiles * sums_bytes;
    }
    __device__ int *added(const step_cursor &at) const {
        return &a.counters[1 + (int64_t)(at.t0 / rows) * a.heads + at.head];
    }
    __device__ float *sums(const step_cursor &at) const {
        return a.dq_sums + ((int64_t)(at.t0 / rows) * a.heads + at.head) * tile_sums;
    }
    __device__ bool is_last(const step_cursor &at) const { return at.t0 < j0 + keys; }
    /* How many blocks add to a step's sums before this one. */
    __device__ int turn(const step_cursor &at) const { return j0 / keys - a.ranges.start[at.t0] / keys; }

    /* A warp: keys, then the rows of each step where the stage is free. */
    __device__ void fetch_all() const;
    /* A warp: tells when it is the block's turn to add, and other blocks when it has. */
    __device__ void keep_turns(int mine) const;
    /* The warpgroups. */
    __device__ void multiply() const;
};

template <class T, int D> __device__ inline void block<T, D>::fetch_all() const {
    int lane = threadIdx.x % 32;
    if (!lane) {
        unsigned there = shared_address(&shared.keys_there);
        barrier_expect(there, 2 * step::key_bytes);
        for (int p = 0; p < D / 64; p++) {
            fetch(k_tile + p * keys * panel_row, &args.k, kv * D + p * 64, j0, there);
            fetch(v_tile + p * keys * panel_row, &args.v, kv * D + p * 64, j0, there);
        }
    }
    step_cursor at = first;
    for (int i = 0; i < count; i++, at.next()) {
        unsigned full = shared_address(&shared.full[at.stage.index]);
        barrier_wait(shared_address(&shared.empty[at.stage.index]), at.stage.parity ^ 1);
        if (!lane) {
            barrier_expect(full, 2 * step::row_bytes);
            for (int p = 0; p < D / 64; p++) {
                fetch(q(at.stage.index) + p * rows * panel_row, &args.q, at.head * D + p * 64, at.t0, full);
                fetch(dy(at.stage.index) + p * rows * panel_row, &args.dy, at.head * D + p * 64, at.t0, full);
            }
        }
        row_facts<rows> &to = shared.facts[at.stage.index];
#pragma unroll 1 /* this warp has few registers, and time */
        for (int r = lane; r < rows; r += 32) {
            int64_t t = at.t0 + r, item = t * a.heads + at.head;
            bool there = t < a.tokens;
            to.lse[r] = there ? a.lse[item] : 0;
            to.delta[r] = there ? a.delta[item] : 0;
            to.start[r] = there ? a.ranges.start[t] : 0;
        }
        barrier_arrive(full);
    }
}

template <class T, int D> __device__ inline void block<T, D>::keep_turns(int mine) const {
    int lane = threadIdx.x % 32;
    step_cursor at = first;
    for (int i = 0; i < count; i++, at.next()) {
        if (i % keepers != mine) continue;
        const int before = turn(at);
        const bool last = is_last(at);
        if (!lane) {
            while (read_acquire(added(at)) < before) {
            }
            copies_fence();
            if (last) barrier_arrive(shared_address(&shared.turn_come[mine]));
        }
        __syncwarp();
        named_sync(bar_added + mine, multipliers + 32);
        if (!lane && !last) {
            send_sums(sums(at), sums_tile(i), before);
            stores_read<0>();
            barrier_arrive(shared_address(&shared.sums_free[i % step::sums_tiles]));
            stores_done();
            copies_fence();
            write_release(added(at), before + 1);
        }
    }
}

template <class T, int D> __device__ inline void block<T, D>::multiply() const {
    int group = threadIdx.x / 128, group_first = j0 + side * group, group_last = group_first + side - 1;
    int mine = (int)threadIdx.x % 128 / 32 * 16 + (int)threadIdx.x % 32 / 4, key = group_first + mine;
    unsigned k_mine = k_tile + group * side * panel_row, v_mine = k_mine + step::key_bytes;
    float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {}, c = a.scale * log2_e;
    float s[rows / 8][4], dq[1][8][4];
    int lasts = 0;
    const float factor[1][2] = {{a.scale, a.scale}};
    auto scores = [&](const step_cursor &at) {
        barrier_wait(shared_address(&shared.full[at.stage.index]), at.stage.parity);
        wgmma_begin();
        scores_of<T, D, keys>(s, again(k_mine), q(at.stage.index));
        wgmma_commit();
    };
    /* After scores: what the step adds to dk and dv; ds in shared memory. */
    auto keys_part = [&](const step_cursor &at, unsigned ds_tile) {
        const row_facts<rows> &fact = shared.facts[at.stage.index];
        int late = at.t0 + rows <= a.tokens ? rows - 1 : (int)a.tokens - 1 - at.t0;
        bool edge = at.t0 < group_last || fact.start[late] > group_first;
        float dp[rows / 8][4];
        uint32_t p[rows / 16][4], ds[rows / 16][4];
        wgmma_begin();
        scores_of<T, D, keys>(dp, again(v_mine), dy(at.stage.index));
        wgmma_commit();
        wgmma_wait<1>();
        wgmma_take(s);
        if (edge) hide_rows(s, fact.start, at.t0, key);
        weigh(s, fact.lse, c);
        round_sums<T>(p, s);
        wgmma_wait<0>();
        wgmma_take(dp);
        wgmma_begin();
        add_columns<T, D>(dv[0], p, dy(at.stage.index));
        wgmma_commit();
        slope(s, dp, fact.delta);
        round_sums<T>(ds, s);
        wgmma_begin();
        add_columns<T, D>(dk[0], ds, q(at.stage.index));
        wgmma_commit();
        store_panels(ds_tile, ds, group);
        writes_to_wgmma();
        wgmma_wait<0>();
        wgmma_take(dk[0]);
        wgmma_take(dv[0]);
        named_sync(bar_stored, multipliers);
        barrier_arrive(shared_address(&shared.empty[at.stage.index]));
    };
    /* Of dq a warpgroup makes 64 columns, or 64 rows where these are all columns. */
    auto rows_part = [&](unsigned ds_tile) {
        unsigned ds_mine = ds_tile + group % halves * keys * panel_row;
        wgmma_begin();
#pragma unroll
        for (int n = 0; n < keys / 16; n++)
            wgmma_shared<T, 1>(dq[0], describe(ds_mine + n * step_down),
                               describe(again(k_tile) + group / halves * keys * panel_row + n * step_down),
                               n > 0);
        wgmma_commit();
    };
    auto add_rows = [&](const step_cursor &at, int i) {
        if (!is_last(at)) {
            barrier_wait(shared_address(&shared.sums_free[i % step::sums_tiles]),
                         i / step::sums_tiles & 1 ^ 1);
            put_sums(sums_tile(i) + threadIdx.x * 16, dq[0]);
            writes_to_wgmma();
        } else {
            barrier_wait(shared_address(&shared.turn_come[i % keepers]), lasts++ / keepers & 1);
            if (turn(at)) join_sums(dq[0], (const float4 *)sums(at) + threadIdx.x);
            int row = at.t0 + group % halves * side + mine;
            write_tile<side>(a.dq, dq, own_rows<1>{.row = {{row, row + 8}}}, a.tokens,
                             (int64_t)at.head * D + group / halves * side, factor);
        }
        named_arrive(bar_added + i % keepers, multipliers + 32);
    };
    step_cursor at = first, before = at;
    barrier_wait(shared_address(&shared.keys_there), 0);
    scores(at);
    keys_part(at, ds_tiles);
    for (int i = 1; i < count; i++) {
        before = at;
        at.next();
        rows_part(ds_tiles + (i - 1) % 2 * step::ds_bytes);
        scores(at);
        wgmma_wait<1>();
        wgmma_take(dq[0]);
        add_rows(before, i - 1);
        keys_part(at, ds_tiles + i % 2 * step::ds_bytes);
    }
    rows_part(ds_tiles + (count - 1) % 2 * step::ds_bytes);
    wgmma_wait<0>();
    wgmma_take(dq[0]);
    add_rows(at, count - 1);
    const own_rows<1> place = {.row = {{key, key + 8}}};
    write_tile<D>(a.dk, dk, place, a.tokens, (int64_t)kv * D, factor);
    write_tile<D>(a.dv, dv, place, a.tokens, (int64_t)kv * D, ones<1>().v);
}

/* Blocks that start together and follow one another wait. Where no segment crosses from one quarter or half
 * of the rows to the next, tiles are taken from all of these in turn; otherwise 1. By the first warp. */
static __device__ inline int parts_of(const struct attention &a) {
    int tiles = (int)((a.tokens + keys - 1) / keys), lane = threadIdx.x;
    int row = lane < 4 ? lane * (tiles / 4) * keys : 0;
    unsigned begins = __ballot_sync(~0u, a.ranges.start[row] == row);
    if (tiles % 4) return 1;
    return (begins & 15) == 15 ? 4 : begins & 4 ? 2 : 1;
}

/* Blocks that step over the same rows at about the same time find them, and their sums, in the second cache:
 * where rows are long, few heads of keys are gone through at once, and many blocks have the same one. Where
 * they are short, they would wait for one another. The longest of some segments tells, so of 32 times long_row
 * every long one is found. By the first warp. */
static __device__ inline int heads_together(const struct attention &a) {
    int64_t row = (a.tokens - 1) * (threadIdx.x + 1) / 32;
    int length = a.ranges.end[row] - a.ranges.start[row];
    if (__any_sync(~0u, length >= very_long_row)) return 1;
    return __any_sync(~0u, length >= long_row) ? (a.kv_heads % 2 ? 1 : 2) : a.kv_heads;
}

template <class T, int D>
static __global__ void __launch_bounds__(threads, 1) gradient(const __grid_constant__ arguments args) {
    extern __shared__ __align__(1024) unsigned char memory[]; /* tiles, then what else is shared */
    auto &shared = *(shared_part<step_of<D>::rows> *)(memory + step_of<D>::tile_bytes);
    order order = {};
    if (threadIdx.x < 32) order = {parts_of(args.a), heads_together(args.a)};
    if (!threadIdx.x) {
        shared.order = order;
        shared.number = atomicAdd(&args.a.counters[0], 1);
        for (int s = 0; s < stages; s++) {
            barrier_init(shared_address(&shared.full[s]), 1 + 32);
            barrier_init(shared_address(&shared.empty[s]), multipliers);
        }
        barrier_init(shared_address(&shared.keys_there), 1);
        for (int k = 0; k < 2; k++) barrier_init(shared_address(&shared.sums_free[k]), 1);
        for (int k = 0; k < keepers; k++) barrier_init(shared_address(&shared.turn_come[k]), 1);
        barriers_ready();
    }
    __syncthreads();
    block<T, D> b(args, shared, shared_address(memory));
    if (threadIdx.x < multipliers) {
        more_registers<240>();
        b.multiply();
    } else {
        fewer_registers<24>();
        if (threadIdx.x / 32 == fetcher) b.fetch_all();
        if (int k = (int)threadIdx.x / 32 - keeper; k >= 0 && k < keepers) b.keep_turns(k);
    }
}

#else /* compiled for other GPUs, never launched there */

template <class T, int D> static __global__ void gradient(const __grid_constant__ arguments) {}

#endif

/* ---- before it ---- */

/* Tiles of rows of all heads. */
static int64_t row_tiles(int64_t tokens, int heads, int head_dim) {
    int64_t rows = tile_sums / head_dim;
    return (tokens + rows - 1) / rows * heads;
}

/* delta = Σ dy y: D / 8 threads for each row and head; dy in 16 bits where it is not; nobody has added. */
template <int D> static __global__ void deltas(struct attention a, int64_t counters) {
    constexpr int parts = D / 8;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, item = thread / parts,
            t = item / a.heads, h = item % a.heads;
    float sum = 0;
    if (thread < counters) a.counters[thread] = 0;
    if (t < a.tokens) {
        int64_t column = h * D + threadIdx.x % parts * 8;
        lanes<8> dy = get<8>(a.dy, t * a.dy.stride + column), y = get<8>(a.y, t * a.y.stride + column);
        for (int j = 0; j < 8; j++) sum = fmaf(dy.v[j], y.v[j], sum);
        if (a.dy16.data != a.dy.data) put<8>(a.dy16, t * a.dy16.stride + column, dy);
    }
    for (int step = parts / 2; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (t < a.tokens && threadIdx.x % parts == 0) a.delta[item] = sum;
}

template <class T, int D> static bool run(const struct attention &a, cudaStream_t stream) {
    int64_t items = a.tokens * a.heads * (D / 8), blocks = (a.tokens + keys - 1) / keys * a.kv_heads;
    arguments args = {.a = a};
    if (!map_of(&args.q, a.q.data, a.tokens, a.heads * D, a.q.stride, step_of<D>::rows) ||
        !map_of(&args.dy, a.dy16.data, a.tokens, a.heads * D, a.dy16.stride, step_of<D>::rows) ||
        !map_of(&args.k, a.k.data, a.tokens, a.kv_heads * D, a.k.stride, keys) ||
        !map_of(&args.v, a.v.data, a.tokens, a.kv_heads * D, a.v.stride, keys))
        return false;
    deltas<D><<<(unsigned)((items + 255) / 256), 256, 0, stream>>>(a, 1 + row_tiles(a.tokens, a.heads, D));
    constexpr int bytes = step_of<D>::tile_bytes + sizeof(shared_part<step_of<D>::rows>);
    cudaFuncSetAttribute(gradient<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    gradient<T, D><<<(unsigned)blocks, threads, bytes, stream>>>(args);
    return true;
}

template <class T> static bool run_width(const struct attention &a, cudaStream_t stream) {
    return a.head_dim == 64 ? run<T, 64>(a, stream) : run<T, 128>(a, stream);
}

} // namespace

size_t cuda_wgmma_sums_bytes(int64_t tokens, int heads, int head_dim) {
    return (size_t)row_tiles(tokens, heads, head_dim) * sums_bytes;
}
size_t cuda_wgmma_counters_bytes(int64_t tokens, int heads, int head_dim) {
    return (size_t)(1 + row_tiles(tokens, heads, head_dim)) * sizeof(int);
}

bool cuda_wgmma_grad(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    return a->q.type == DTYPE_BF16 ? run_width<__nv_bfloat16>(*a, stream) : run_width<__half>(*a, stream);
}
