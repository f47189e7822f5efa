/* Products of a warpgroup (128 threads) on Hopper's tensor cores: wgmma, in code for 9.0a alone.
 *
 *   sums [64, 64] f32 (+)= left [64, 16] right [16, 64], both bf16 or both f16
 *
 * Tiles in shared memory are panels of 64 columns: rows of 128 bytes, the 16 bytes of chunk c of row r at
 * place c xor r % 8, which is the unit's "128-byte swizzle"; a tile begins at a multiple of 1,024 bytes. A
 * tile can be the right operand as it lies ([k, n], steps of 16 rows) or transposed ([n, k], steps of 16
 * columns). Fragments in registers are those of mma.m16n8k16, a warp having 16 of the rows.
 *
 * Products run beside the threads: between wgmma_begin and wgmma_wait what they read and write is theirs. */
#ifndef HONE_DEVICE_CUDA_WGMMA_CUH
#define HONE_DEVICE_CUDA_WGMMA_CUH

#include "device/cuda/attention_tile.cuh"

constexpr int panel_row = 128;                    /* bytes of a row of a panel */
constexpr int step_down = 16 * panel_row;         /* 16 rows further */
constexpr int step_right = 16 * sizeof(number16); /* 16 columns further, within a panel */

/* Where chunk c of row r lies in its row, and in a panel. */
static __device__ inline int chunk_of(int r, int c) { return (c ^ r % 8) * 16; }
static __device__ inline unsigned chunk_at(unsigned panel, int r, int c) {
    return panel + r * panel_row + chunk_of(r, c);
}

/* The dynamic shared memory from a multiple of 1,024 bytes on; launches ask for as many bytes more. */
static __device__ inline unsigned shared_tiles() {
    extern __shared__ unsigned char memory[];
    return (shared_address(memory) + 1023) & ~1023u;
}

/* Where an operand lies, for the unit: groups of eight rows are 1,024 bytes apart. */
static __device__ inline uint64_t describe(unsigned at) {
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (at & 0x3ffff) >> 4;
}

#define SUMS_OF(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define SUMS(d, n)                                                                             \
    SUMS_OF(d, n), SUMS_OF(d, n + 1), SUMS_OF(d, n + 2), SUMS_OF(d, n + 3), SUMS_OF(d, n + 4), \
        SUMS_OF(d, n + 5), SUMS_OF(d, n + 6), SUMS_OF(d, n + 7)
#define NAMES_0                                                                                  \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_32                                                                       \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA(type, columns, names, set, rest)             \
    "{\n.reg .pred adds;\nsetp.ne.b32 adds, " set ", 0;\n" \
    "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" names "}, " rest ";\n}\n"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* What threads wrote to shared memory can be read by the unit; before the barrier that tells of it. */
static __device__ inline void writes_to_wgmma() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}
static __device__ inline void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
static __device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
/* All but the last N groups are done. */
template <int N> static __device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

/* Four matrices of 8 × 8 in 16 bits in fragments' order to shared memory, a row of 16 bytes at each lane's
 * place.
 */
static __device__ inline void put_matrices(unsigned to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(to), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* Both operands in shared memory. `adds`: to what is there. across 0: 16 columns of their rows, left ·
 * rightᵀ; 1: 16 whole rows, leftᵀ · right. */
template <class T, int across>
static __device__ inline void wgmma_shared(float (*d)[4], uint64_t left, uint64_t right, bool adds) {
    if constexpr (is_bf16<T>)
        asm volatile(WGMMA("bf16", "64", NAMES_0, "%34", "%32, %33, adds, 1, 1, %35, %35")
                     : SUMS(d, 0)
                     : "l"(left), "l"(right), "r"((int)adds), "n"(across));
    else
        asm volatile(WGMMA("f16", "64", NAMES_0, "%34", "%32, %33, adds, 1, 1, %35, %35")
                     : SUMS(d, 0)
                     : "l"(left), "l"(right), "r"((int)adds), "n"(across));
}
/* The same of sums [64, 128]: left · rightᵀ, 16 columns of their rows. */
template <class T>
static __device__ inline void wgmma_shared_wide(float (*d)[4], uint64_t left, uint64_t right, bool adds) {
    if constexpr (is_bf16<T>)
        asm volatile(WGMMA("bf16", "128", NAMES_0 ", " NAMES_32, "%66", "%64, %65, adds, 1, 1, 0, 0")
                     : SUMS(d, 0), SUMS(d, 8)
                     : "l"(left), "l"(right), "r"((int)adds));
    else
        asm volatile(WGMMA("f16", "128", NAMES_0 ", " NAMES_32, "%66", "%64, %65, adds, 1, 1, 0, 0")
                     : SUMS(d, 0), SUMS(d, 8)
                     : "l"(left), "l"(right), "r"((int)adds));
}
/* The left operand in registers, the right one 16 rows of shared memory: d += left · right. */
template <class T>
static __device__ inline void wgmma_columns(float (*d)[4], const uint32_t (&left)[4], uint64_t right) {
    if constexpr (is_bf16<T>)
        asm volatile(WGMMA("bf16", "64", NAMES_0, "%37", "{%32, %33, %34, %35}, %36, adds, 1, 1, 1")
                     : SUMS(d, 0)
                     : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(1));
    else
        asm volatile(WGMMA("f16", "64", NAMES_0, "%37", "{%32, %33, %34, %35}, %36, adds, 1, 1, 1")
                     : SUMS(d, 0)
                     : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(1));
}

#else /* compiled for other GPUs, never launched there */

static __device__ inline void writes_to_wgmma() {}
static __device__ inline void wgmma_begin() {}
static __device__ inline void wgmma_commit() {}
template <int N> static __device__ inline void wgmma_wait() {}
template <class T, int across>
static __device__ inline void wgmma_shared(float (*)[4], uint64_t, uint64_t, bool) {}
template <class T> static __device__ inline void wgmma_shared_wide(float (*)[4], uint64_t, uint64_t, bool) {}
template <class T>
static __device__ inline void wgmma_columns(float (*)[4], const uint32_t (&)[4], uint64_t) {}

#endif

/* Keeps reads of sums behind the wait above, which the compiler does not see them depend on. */
template <int N> static __device__ inline void wgmma_take(float (&d)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) asm volatile("" : SUMS_OF(d, n)::"memory");
}

/* sums [64, 8 N] = left [64, D] right [8 N, D]ᵀ, N 8 or 16; panels of `left_rows` and 8 N rows. */
template <class T, int D, int left_rows, int N>
static __device__ inline void scores_of(float (&sums)[N][4], unsigned left, unsigned right) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint64_t a = describe(left + k / 4 * left_rows * panel_row + k % 4 * step_right),
                 b = describe(right + k / 4 * 8 * N * panel_row + k % 4 * step_right);
        if constexpr (N == 16)
            wgmma_shared_wide<T>(sums, a, b, k > 0);
        else
            wgmma_shared<T, 0>(sums, a, b, k > 0);
    }
}

/* Fragments of a left operand [64, 8 N] from sums. */
template <class T, int N>
static __device__ inline void round_sums(uint32_t (&fragments)[N / 2][4], const float (&sums)[N][4]) {
#pragma unroll
    for (int k = 0; k < N / 2; k++)
        for (int i = 0; i < 4; i++)
            fragments[k][i] = two_of<T>(sums[2 * k + i / 2][i % 2 * 2], sums[2 * k + i / 2][i % 2 * 2 + 1]);
}

/* out [64, D] += left [64, 16 K] right [16 K, D], panels of 16 K rows */
template <class T, int D, int K>
static __device__ inline void add_columns(float (&out)[D / 8][4], const uint32_t (&left)[K][4],
                                          unsigned right) {
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int p = 0; p < D / 64; p++)
            wgmma_columns<T>(&out[p * 8], left[k], describe(right + p * 16 * K * panel_row + k * step_down));
}

#endif
