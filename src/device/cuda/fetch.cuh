/* Copies by Hopper's tensor memory accelerator: boxes of 64 columns of an array in 16 bits, zero past its
 * end, swizzled as wgmma.cuh says; barriers in shared memory that count their bytes. */
#ifndef HONE_DEVICE_CUDA_FETCH_CUH
#define HONE_DEVICE_CUDA_FETCH_CUH

#include <cuda.h>

#include "device/cuda/kernel.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ inline void barrier_init(unsigned barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(count) : "memory");
}
/* After barriers are made: copies may count on them. */
static __device__ inline void barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
/* Waits for the end of the phase of this parity. */
static __device__ inline void barrier_wait(unsigned barrier, int parity) {
    asm volatile("{\n.reg .pred done;\nagain:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\nbra again;\nover:\n}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}
static __device__ inline void barrier_expect(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
/* What this thread did is told; `expect` does so too. */
static __device__ inline void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
/* A box from `column` and `row` on of an array to this block's shared memory. */
static __device__ inline void fetch(unsigned to, const CUtensorMap *map, int column, int row,
                                    unsigned barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

/* A box of shared memory to memory; what lies past the end of the array is left out. */
static __device__ inline void store(const CUtensorMap *map, int column, int row, unsigned from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(map),
                 "r"(column), "r"(row), "r"(from)
                 : "memory");
}
/* Copies from shared memory to memory that this thread began since the last commit are a group. */
static __device__ inline void stores_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
/* The shared memory of all but the last N may be written again. */
template <int N> static __device__ inline void stores_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(N) : "memory");
}
static __device__ inline void stores_done() { asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory"); }

/* Which of N places that are used in turn, and the parity of its barriers' phase. */
template <int N> struct ring_place {
    int index = 0, parity = 0;
    __device__ void next() {
        if (++index == N) {
            index = 0;
            parity ^= 1;
        }
    }
};

/* Barriers by number: `count` threads come, of which those that arrive do not wait. */
static __device__ inline void named_arrive(int barrier, int count) {
    asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(count) : "memory");
}
static __device__ inline void named_sync(int barrier, int count) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(count) : "memory");
}

/* How many registers a thread of this warpgroup has from here on. */
template <int N> static __device__ inline void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N> static __device__ inline void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

#else /* compiled for other GPUs, never launched there */

static __device__ inline void barrier_init(unsigned, int) {}
static __device__ inline void barrier_wait(unsigned, int) {}
static __device__ inline void barrier_expect(unsigned, int) {}
static __device__ inline void barrier_arrive(unsigned) {}
static __device__ inline void fetch(unsigned, const CUtensorMap *, int, int, unsigned) {}

#endif

/* The driver's description of an array [rows, width] of bf16 or f16, `stride` elements from a row to the
 * next, for boxes of 64 columns and `box_rows` rows. False: it lies askew. */
static inline bool map_of(CUtensorMap *map, const void *data, int64_t rows, int64_t width, int64_t stride,
                          unsigned box_rows) {
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault,
                                         &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
        return false;
    const cuuint64_t dims[2] = {(cuuint64_t)width, (cuuint64_t)rows}, strides[1] = {(cuuint64_t)stride * 2};
    const cuuint32_t box[2] = {64, box_rows}, steps[2] = {1, 1};
    auto encode = (decltype(&cuTensorMapEncodeTiled))entry;
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)data, dims, strides, box,
                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#endif
