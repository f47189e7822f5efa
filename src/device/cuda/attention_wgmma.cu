/* Attention for Hopper: what attention_flash.cu does, by products of warpgroups (wgmma.cuh), 64 rows each.
 * The gradient is in attention_grad_wgmma.cu.
 *
 * A block takes tiles, each some rows of a head, one after the other, the longest first, until none is left;
 * it steps over the keys that a tile's rows see. One warp keeps the next keys and values on their way from
 * memory, and the next tile's rows. While a warpgroup turns scores into weights, what the weights of the step
 * before take of the values is summed by the tensor cores; warpgroups begin their products by turns, so that
 * one's products run while the other's weights are made. A tile's result goes to memory from where its rows
 * were in shared memory. */
#include "device/cuda/fetch.cuh"
#include "device/cuda/wgmma.cuh"

namespace {

enum { side = 64, stages = 2, slots = 2 };

/* What depends on the width of a head: rows of a tile, 64 for each warpgroup; keys of a step. */
template <int D> struct shape_of {
    static constexpr int groups = D == 64 ? 3 : 2, keys = 128, rows = side * groups,
                         multipliers = 128 * groups, threads = multipliers + 128;
    static constexpr unsigned row_bytes = rows * D * sizeof(number16),
                              key_bytes = keys * D * sizeof(number16),
                              shared_bytes = slots * row_bytes + stages * 2 * key_bytes;
};

struct arguments {
    struct attention a;
    CUtensorMap q, k, v, y; /* boxes of a tile's rows, of a step's keys, of a warpgroup's rows */
    int row_tiles;
};

/* A tile: its head, -1 after the last one; its first row and key; its steps, and those of each warpgroup. */
struct tile {
    int h, q0, first, steps, from[4], to[4];
};

/* Barriers: a tile and its rows are there, its slot is free; of each stage, keys and values are there, and
 * every warp is done with them. */
struct shared_part {
    struct tile tiles[slots];
    uint64_t rows_there[slots], rows_free[slots], keys_there[stages], values_there[stages], keys_free[stages],
        values_free[stages];
};

/* Named barriers, one for each warpgroup. */
enum { bar_turn = 1, bar_group = 5 };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <class T, int D> struct block {
    using shape = shape_of<D>;
    static constexpr int rows = shape::rows, keys = shape::keys, groups = shape::groups;

    const arguments &args;
    const struct attention &a;
    shared_part &shared;
    unsigned memory;

    __device__ unsigned q(int slot) const { return memory + slot * shape::row_bytes; }
    __device__ unsigned k(int stage) const {
        return memory + slots * shape::row_bytes + stage * 2 * shape::key_bytes;
    }
    __device__ unsigned v(int stage) const { return k(stage) + shape::key_bytes; }

    /* Which one the n-th tile is: heads first, the last rows before the first. */
    __device__ void find(struct tile *t, int n) const {
        t->h = n % a.heads;
        t->q0 = (args.row_tiles - 1 - n / a.heads) * rows;
        t->first = a.ranges.start[t->q0];
        int last = t->q0 + rows < a.tokens ? t->q0 + rows - 1 : (int)a.tokens - 1;
        t->steps = (last - t->first) / keys + 1;
        for (int g = 0; g < groups; g++) {
            int row = t->q0 + side * g, end = (row + side - 1 - t->first) / keys + 1;
            bool there = row < a.tokens;
            t->from[g] = there ? (a.ranges.start[row] - t->first) / keys : t->steps;
            t->to[g] = there && end < t->steps ? end : t->steps;
        }
    }

    /* A thread: every tile's rows, keys and values. */
    __device__ void fetch_all() const;
    /* The warpgroups. */
    __device__ void multiply() const;
};

template <class T, int D> __device__ inline void block<T, D>::fetch_all() const {
    ring_place<slots> slot;
    ring_place<stages> stage;
    int tiles = args.row_tiles * a.heads;
    auto boxes = [&](unsigned to, const CUtensorMap *map, int column, int row, int box_rows,
                     uint64_t &there) {
        unsigned barrier = shared_address(&there);
        barrier_expect(barrier, box_rows * D * (int)sizeof(number16));
        for (int p = 0; p < D / 64; p++)
            fetch(to + p * box_rows * panel_row, map, column + p * 64, row, barrier);
    };
    for (int n = blockIdx.x; n < tiles; n = gridDim.x + atomicAdd(a.counters, 1), slot.next()) {
        struct tile t;
        find(&t, n);
        barrier_wait(shared_address(&shared.rows_free[slot.index]), slot.parity ^ 1);
        shared.tiles[slot.index] = t;
        boxes(q(slot.index), &args.q, t.h * D, t.q0, rows, shared.rows_there[slot.index]);
        int column = t.h * a.kv_heads / a.heads * D;
        for (int i = 0; i < t.steps; i++, stage.next()) {
            int s = stage.index, row = t.first + i * keys;
            barrier_wait(shared_address(&shared.keys_free[s]), stage.parity ^ 1);
            boxes(k(s), &args.k, column, row, keys, shared.keys_there[s]);
            barrier_wait(shared_address(&shared.values_free[s]), stage.parity ^ 1);
            boxes(v(s), &args.v, column, row, keys, shared.values_there[s]);
        }
    }
    barrier_wait(shared_address(&shared.rows_free[slot.index]), slot.parity ^ 1);
    shared.tiles[slot.index].h = -1;
    barrier_arrive(shared_address(&shared.rows_there[slot.index]));
}

/* A warpgroup's way through tiles. */
template <class T, int D> struct walker {
    using shape = shape_of<D>;
    static constexpr int keys = shape::keys, groups = shape::groups, key_steps = keys / 16;

    const block<T, D> &b;
    const struct attention &a;
    shared_part &shared;
    int group;
    ring_place<slots> slot;
    ring_place<stages> stage;
    int unread = -1; /* the slot that a result is on its way from */

    __device__ walker(const block<T, D> &in)
        : b(in), a(in.a), shared(in.shared), group((int)threadIdx.x / 128) {}

    __device__ unsigned rows() const { return b.q(slot.index) + group * side * panel_row; }
    /* Products begin by turns. */
    __device__ void turn_begin() const { named_sync(bar_turn + group, 256); }
    __device__ void turn_end() const { named_arrive(bar_turn + (group + 1) % groups, 256); }
    /* This warp is done with it. */
    __device__ void leave(uint64_t &free) const {
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&free));
    }
    /* A step that no row of the warpgroup sees. */
    __device__ void skip() {
        turn_begin();
        turn_end();
        barrier_wait(shared_address(&shared.keys_there[stage.index]), stage.parity);
        leave(shared.keys_free[stage.index]);
        barrier_wait(shared_address(&shared.values_there[stage.index]), stage.parity);
        leave(shared.values_free[stage.index]);
        stage.next();
    }
    __device__ void begin_scores(float (&s)[2 * key_steps][4]) const {
        barrier_wait(shared_address(&shared.keys_there[stage.index]), stage.parity);
        wgmma_begin();
        scores_of<T, D, shape::rows>(s, rows(), b.k(stage.index));
        wgmma_commit();
    }
    __device__ void begin_values(float (&out)[D / 8][4], const uint32_t (&p)[key_steps][4],
                                 const ring_place<stages> &from) const {
        barrier_wait(shared_address(&shared.values_there[from.index]), from.parity);
        wgmma_begin();
        add_columns<T, D>(out, p, b.v(from.index));
        wgmma_commit();
    }
    /* The rows of the slot before can be replaced once what was put there is read. */
    __device__ void free_slot() {
        if (threadIdx.x % 128 == 0 && unread >= 0) {
            stores_read<0>();
            barrier_arrive(shared_address(&shared.rows_free[unread]));
        }
        unread = -1;
    }
    __device__ void attend(const struct tile &t);
    __device__ void send(const struct tile &t, const float (&out)[D / 8][4], const float (&factor)[2]);
};

template <class T, int D> __device__ inline void walker<T, D>::attend(const struct tile &t) {
    own_rows<1> mine = rows_from<1>(a, t.q0 + (int)threadIdx.x / 32 * 16);
    float s[1][2 * key_steps][4], out[1][D / 8][4] = {}, most[1][2] = {{-INFINITY, -INFINITY}},
                                             sum[1][2] = {};
    float keep[1][2], factor[1][2], c = a.scale * log2_e;
    uint32_t p[key_steps][4];
    int i = 0, from = t.from[group], to = t.to[group];
    ring_place<stages> before;
    auto weigh = [&]() {
        int j0 = t.first + i * keys;
        wgmma_take(s[0]);
        leave(shared.keys_free[stage.index]);
        if (j0 + keys - 1 > mine.first || j0 < mine.late) hide(s, mine, j0);
        soften(s, most, sum, keep, c);
    };
    auto end_values = [&]() {
        wgmma_wait<0>();
        wgmma_take(out[0]);
        leave(shared.values_free[before.index]);
    };
    for (; i < from; i++) skip();
    if (i < to) {
        turn_begin();
        begin_scores(s[0]);
        turn_end();
        free_slot();
        wgmma_wait<0>();
        weigh();
        round_sums<T>(p, s[0]);
        for (before = stage, stage.next(), i++; i < to; before = stage, stage.next(), i++) {
            turn_begin();
            begin_scores(s[0]);
            begin_values(out[0], p, before);
            turn_end();
            wgmma_wait<1>();
            weigh();
            end_values();
            scale_rows(out, keep);
            round_sums<T>(p, s[0]);
        }
        begin_values(out[0], p, before);
        end_values();
    }
    for (; i < t.steps; i++) skip();
    free_slot();
    finish_rows(a, mine, t.h, factor, most, sum);
    send(t, out[0], factor[0]);
}

/* The result goes to where the rows were, and from there to memory. */
template <class T, int D>
__device__ inline void walker<T, D>::send(const struct tile &t, const float (&out)[D / 8][4],
                                          const float (&factor)[2]) {
    int lane = threadIdx.x % 32, r = (int)threadIdx.x % 128 / 32 * 16 + lane % 16, row = t.q0 + side * group;
    named_sync(bar_group + group, 128);
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
        unsigned to = chunk_at(rows() + n / 8 * shape::rows * panel_row, r, n % 8 + lane / 16);
        put_matrices(to, two_of<T>(out[n][0] * factor[0], out[n][1] * factor[0]),
                     two_of<T>(out[n][2] * factor[1], out[n][3] * factor[1]),
                     two_of<T>(out[n + 1][0] * factor[0], out[n + 1][1] * factor[0]),
                     two_of<T>(out[n + 1][2] * factor[1], out[n + 1][3] * factor[1]));
    }
    writes_to_wgmma();
    named_sync(bar_group + group, 128);
    if (threadIdx.x % 128 == 0 && row < a.tokens) {
        for (int p = 0; p < D / 64; p++)
            store(&b.args.y, t.h * D + p * 64, row, rows() + p * shape::rows * panel_row);
        stores_commit();
    }
    unread = slot.index;
}

template <class T, int D> __device__ inline void block<T, D>::multiply() const {
    walker<T, D> w(*this);
    if (w.group == groups - 1) w.turn_end();
    for (;; w.slot.next()) {
        barrier_wait(shared_address(&shared.rows_there[w.slot.index]), w.slot.parity);
        if (shared.tiles[w.slot.index].h < 0) break;
        w.attend(shared.tiles[w.slot.index]);
    }
    w.free_slot();
}

template <class T, int D>
static __global__ void __launch_bounds__(shape_of<D>::threads, 1)
    forward(const __grid_constant__ arguments args) {
    extern __shared__ __align__(1024) unsigned char memory[]; /* tiles, then barriers */
    using shape = shape_of<D>;
    auto &shared = *(shared_part *)(memory + shape::shared_bytes);
    if (!threadIdx.x) {
        for (int s = 0; s < slots; s++) {
            barrier_init(shared_address(&shared.rows_there[s]), 1);
            barrier_init(shared_address(&shared.rows_free[s]), shape::groups);
        }
        for (int s = 0; s < stages; s++) {
            barrier_init(shared_address(&shared.keys_there[s]), 1);
            barrier_init(shared_address(&shared.values_there[s]), 1);
            barrier_init(shared_address(&shared.keys_free[s]), shape::multipliers / 32);
            barrier_init(shared_address(&shared.values_free[s]), shape::multipliers / 32);
        }
        barriers_ready();
    }
    __syncthreads();
    block<T, D> b = {args, args.a, shared, shared_address(memory)};
    if (threadIdx.x < shape::multipliers) {
        more_registers<D == 64 ? 160 : 240>();
        b.multiply();
    } else {
        fewer_registers<D == 64 ? 32 : 24>();
        if (threadIdx.x == shape::multipliers) b.fetch_all();
    }
}

#else /* compiled for other GPUs, never launched there */

template <class T, int D> static __global__ void forward(const __grid_constant__ arguments) {}

#endif

template <class T, int D> static bool run(const struct attention &a, cudaStream_t stream) {
    using shape = shape_of<D>;
    int row_tiles = (int)((a.tokens + shape::rows - 1) / shape::rows), tiles = row_tiles * a.heads;
    arguments args = {.a = a, .row_tiles = row_tiles};
    if (!map_of(&args.q, a.q.data, a.tokens, a.heads * D, a.q.stride, shape::rows) ||
        !map_of(&args.k, a.k.data, a.tokens, a.kv_heads * D, a.k.stride, shape::keys) ||
        !map_of(&args.v, a.v.data, a.tokens, a.kv_heads * D, a.v.stride, shape::keys) ||
        !map_of(&args.y, a.y.data, a.tokens, a.heads * D, a.y.stride, side))
        return false;
    constexpr int bytes = shape::shared_bytes + sizeof(shared_part);
    cudaMemsetAsync(a.counters, 0, sizeof(int), stream);
    cudaFuncSetAttribute(forward<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    unsigned blocks = (unsigned)(tiles < a.processors ? tiles : a.processors);
    forward<T, D><<<blocks, shape::threads, bytes, stream>>>(args);
    return true;
}

template <class T> static bool run_width(const struct attention &a, cudaStream_t stream) {
    return a.head_dim == 64 ? run<T, 64>(a, stream) : run<T, 128>(a, stream);
}

} // namespace

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

bool cuda_wgmma(const struct attention *a, cudaStream_t stream) {
    if (!a->tokens) return true;
    if (a->y.type != a->q.type) return false;
    return a->q.type == DTYPE_BF16 ? run_width<__nv_bfloat16>(*a, stream) : run_width<__half>(*a, stream);
}
