/* Wide products on Hopper: tiles of 128 × 256, a pair of thread blocks (a cluster) for two tiles that lie one
 * below the other, so that each block fetches its own rows of x and half of w's, and both get all of w's.
 *
 *   sums [128, 256] = x [128, k] w [256, k]ᵀ, both bf16, rows along k
 *
 * In a block, one thread keeps four stages of 64 columns of both operands on their way from memory (the
 * tensor memory accelerator copies boxes, zero past the end, swizzled as wgmma.cuh says), and two warpgroups
 * multiply 64 rows each. Blocks stay for many tiles: the next one's operands arrive during the epilogue of
 * this one, and while a warpgroup is there the other one has the tensor cores for itself. */
#ifndef HONE_DEVICE_CUDA_WIDE_WGMMA_CUH
#define HONE_DEVICE_CUDA_WIDE_WGMMA_CUH

#include "device/cuda/fetch.cuh"
#include "device/cuda/wgmma.cuh"

namespace wide {

constexpr int tile_m = 128, tile_n = 256, tile_k = 64, stages = 4, threads = 384;
constexpr int x_bytes = tile_m * panel_row, w_bytes = tile_n * panel_row, stage_bytes = x_bytes + w_bytes;
constexpr int quarter_bytes = 64 * panel_row; /* [64, 64] bf16 on its way, of a warpgroup; it has two */
constexpr int shared_bytes = stages * stage_bytes + 4 * quarter_bytes + 1024;

/* What all tiles share; rows come in pairs of tiles, 256. */
struct product {
    CUtensorMap x, w; /* boxes of 64 columns and 128 rows */
    CUtensorMap y;    /* boxes of 64 × 64, where the epilogue stores by them */
    int row_pairs, column_tiles;
    int steps;       /* of 64 along k */
    const int *only; /* [row_pairs] nonzero: these are computed; NULL: all */
};

/* Where a warpgroup's part of a tile is. */
struct place {
    int row, column; /* its first ones: 64 rows, 256 columns */
    int column_tile;
    unsigned staging; /* shared memory: two quarters */
    int barrier;      /* for bar.sync of its 128 threads */
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Arrives at the same barrier of a block of the cluster. What is told is that reads by the tensor cores are
 * over: nothing was written, so it has no wider scope, whose fence would wait for all memory. */
static __device__ inline void barrier_arrive(unsigned barrier, unsigned block) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
                 "r"(block)
                 : "memory");
}
static __device__ inline void pair_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::
                     : "memory");
}
static __device__ inline unsigned pair_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
    return rank;
}

/* The same, to both blocks. */
static __device__ inline void fetch_both(unsigned to, const CUtensorMap *map, int column, int row,
                                         unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(barrier), "h"((uint16_t)3)
        : "memory");
}
/* sums [64, 256] (+)= left [64, 16] right [256, 16]ᵀ */
static __device__ inline void multiply(float (&d)[32][4], uint64_t left, uint64_t right, int adds) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        NAMES_0 ", " NAMES_32 ", "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, adds, 1, 1, 0, 0;\n}\n"
        : SUMS(d, 0), SUMS(d, 8), SUMS(d, 16), SUMS(d, 24)
        : "l"(left), "l"(right), "r"(adds));
}

using cursor = ring_place<stages>; /* the stage at hand */

/* Pairs of tiles of a cluster. Those at work at a time are of a band of eight pairs of rows, and of about as
 * many columns: so both operands are read from the cache. */
template <class Body> static __device__ inline void each_tile(const product &p, Body body) {
    constexpr int band = 8;
    int clusters = gridDim.x / 2, tiles = p.row_pairs * p.column_tiles;
    for (int t = blockIdx.x / 2; t < tiles; t += clusters) {
        int first = t / (band * p.column_tiles) * band, left = p.row_pairs - first,
            rows = left < band ? left : band, at = t - first * p.column_tiles, pair = first + at % rows;
        if (!p.only || p.only[pair]) body(pair, at / rows);
    }
}

static __device__ inline void fetch_all(const product &p, unsigned base, unsigned full, unsigned empty) {
    int rank = (int)pair_rank();
    cursor at;
    each_tile(p, [&](int pair, int column_tile) {
        int row = (pair * 2 + rank) * tile_m, column = column_tile * tile_n + rank * tile_n / 2;
        for (int step = 0; step < p.steps; step++, at.next()) {
            unsigned to = base + at.index * stage_bytes, barrier = full + at.index * 8;
            barrier_wait(empty + at.index * 8, at.parity ^ 1);
            barrier_expect(barrier, stage_bytes);
            fetch(to, &p.x, step * tile_k, row, barrier);
            fetch_both(to + x_bytes + rank * w_bytes / 2, &p.w, step * tile_k, column, barrier);
        }
    });
}

template <class Epilogue>
static __device__ inline void multiply_all(const product &p, Epilogue &epilogue, unsigned base, unsigned full,
                                           unsigned empty) {
    int group = (int)threadIdx.x / 128 - 1;
    unsigned lane = threadIdx.x % 32;
    cursor at;
    auto release = [&](int stage) {
        if (lane < 2) barrier_arrive(empty + stage * 8, lane);
    };
    place place = {.staging = base + stages * stage_bytes + group * 2 * quarter_bytes, .barrier = 1 + group};
    each_tile(p, [&](int pair, int column_tile) {
        float sums[32][4];
        place.row = (pair * 2 + (int)pair_rank()) * tile_m + group * 64;
        place.column_tile = column_tile;
        place.column = column_tile * tile_n;
        epilogue.begin(place);
        int before = 0;
        for (int step = 0; step < p.steps; step++, at.next()) {
            unsigned x = base + at.index * stage_bytes + group * 64 * panel_row,
                     w = base + at.index * stage_bytes + x_bytes;
            barrier_wait(full + at.index * 8, at.parity);
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < 4; k++)
                multiply(sums, describe(x + k * step_right), describe(w + k * step_right), step | k);
            wgmma_commit();
            if (step) {
                wgmma_wait<1>();
                release(before);
            }
            before = at.index;
        }
        wgmma_wait<0>();
        wgmma_take(sums);
        release(before);
        epilogue.end(p, place, sums);
    });
    stores_done();
}

template <class Epilogue>
static __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(threads, 1)
    run(const __grid_constant__ product p, const __grid_constant__ Epilogue given) {
    extern __shared__ unsigned char room[];
    __shared__ uint64_t barriers[2 * stages];
    unsigned base = (shared_address(room) + 1023) & ~1023u, full = shared_address(barriers),
             empty = full + stages * 8;
    if (!threadIdx.x) {
        for (int s = 0; s < stages; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, 16); /* warps of both blocks */
        }
        barriers_ready();
    }
    pair_sync();
    if (threadIdx.x < 128) {
        fewer_registers<40>();
        if (!threadIdx.x) fetch_all(p, base, full, empty);
    } else {
        more_registers<232>();
        Epilogue epilogue = given;
        multiply_all(p, epilogue, base, full, empty);
    }
    __syncwarp();
    pair_sync(); /* the other block's copies and arrivals need this one's shared memory */
}

/* Where a lane's row of four matrices lies in a quarter: of fragments j and j + 1, rows of the warp. */
static __device__ inline unsigned matrices_at(unsigned quarter, int j) {
    int lane = (int)threadIdx.x % 32, r = (int)threadIdx.x / 32 % 4 * 16 + lane / 8 % 2 * 8 + lane % 8;
    return chunk_at(quarter, r, j + lane / 16);
}

static __device__ inline bool is_leader() { return threadIdx.x % 128 == 0; }

/* What was written to a quarter goes to memory. */
static __device__ inline void store_quarter(const place &place, const CUtensorMap *map, int q) {
    writes_to_wgmma();
    named_sync(place.barrier, 128);
    if (is_leader()) {
        store(map, place.column + q * 64, place.row, place.staging + q % 2 * quarter_bytes);
        stores_commit();
    }
}

/* A warpgroup's [64, 256] to memory as bf16; pair(j, i) gives two neighbours of fragment j, row i. */
template <class Pair>
static __device__ inline void store_bf16(const place &place, const CUtensorMap *map, Pair pair) {
#pragma unroll
    for (int q = 0; q < 4; q++) {
        if (is_leader()) stores_read<1>();
        named_sync(place.barrier, 128);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            int at = q * 8 + j;
            put_matrices(matrices_at(place.staging + q % 2 * quarter_bytes, j), pair(at, 0), pair(at, 1),
                         pair(at + 1, 0), pair(at + 1, 1));
        }
        store_quarter(place, map, q);
    }
}

#else /* compiled for other GPUs, never launched there */

template <class Pair> static __device__ inline void store_bf16(const place &, const CUtensorMap *, Pair) {}
template <class Epilogue> static __global__ void run(const product, const Epilogue) {}

#endif

template <class Epilogue>
static inline void launch(const product &p, const Epilogue &epilogue, int processors, cudaStream_t stream) {
    int tiles = p.row_pairs * p.column_tiles, clusters = processors / 2 < tiles ? processors / 2 : tiles;
    auto kernel = run<Epilogue>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    kernel<<<clusters * 2, threads, shared_bytes, stream>>>(p, epilogue);
}

} // namespace wide

#endif
