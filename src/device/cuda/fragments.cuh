/* Products of warps on tensor cores, mma.m16n8k16: loading fragments from shared memory, multiplying them.
 *
 * A thread of lane l has rows l/4 and l/4 + 8 of a fragment of 16 rows, columns 2 (l%4) and the next of every
 * eight. */
#ifndef HONE_DEVICE_CUDA_FRAGMENTS_CUH
#define HONE_DEVICE_CUDA_FRAGMENTS_CUH

#include "device/cuda/kernel.cuh"

typedef __nv_bfloat16 bf16;
typedef uint16_t number16; /* bf16 or f16: copies do not look into it */

template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<bf16> = true;

/* Two numbers rounded to T, bf16 or __half. */
template <class T> static __device__ inline uint32_t two_of(float low, float high) {
    return is_bf16<T> ? two_bf16(low, high) : two_f16(low, high);
}

static __device__ inline unsigned shared_address(const void *at) {
    return (unsigned)__cvta_generic_to_shared(at);
}

/* 16 bytes, or as many zeros. */
static __device__ inline void copy16(unsigned to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
static __device__ inline void copies_commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> static __device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* Four matrices of 8 × 8: lanes 8 i to 8 i + 7 give the rows of the i-th. */
static __device__ inline void load_matrices(uint32_t (&r)[4], const void *at) {
    unsigned address = shared_address(at);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}
static __device__ inline void load_transposed(uint32_t (&r)[4], const void *at) {
    unsigned address = shared_address(at);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

#define MULTIPLY(type)                                                          \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type         \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

/* c [16, 8] += a [16, 16] b [16, 8], of T */
template <class T = bf16>
static __device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (is_bf16<T>)
        MULTIPLY("bf16");
    else
        MULTIPLY("f16");
}
#undef MULTIPLY

#endif
