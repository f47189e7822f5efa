/* What the kernels share: reading and writing f32, bf16 or f16 in vectors, sums over a warp or a block in a
 * fixed order. The type of an array is known at launch only: its test is the same for all threads and costs
 * nothing beside the memory it reads. */
#ifndef HONE_DEVICE_CUDA_KERNEL_CUH
#define HONE_DEVICE_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device/cuda/kernels.h"

template <int N> struct alignas(N % 4 ? 4 : 16) lanes { float v[N]; };

__device__ inline lanes<8> from_bf16(const uint4 &bits) {
    const uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
    lanes<8> out;
    for (int i = 0; i < 4; i++) {
        out.v[2 * i] = __uint_as_float(word[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
    return out;
}

/* N elements from `at` on; N of 4 or 8 needs at % N == 0 and a 16-byte aligned array. */
template <int N> __device__ inline lanes<N> get(const struct array &a, int64_t at) {
    lanes<N> out;
    if (a.type == DTYPE_F32) {
        const float *p = (const float *)a.data + at;
        if constexpr (N == 8) {
            ((float4 *)out.v)[0] = ((const float4 *)p)[0];
            ((float4 *)out.v)[1] = ((const float4 *)p)[1];
        } else if constexpr (N == 4) {
            *(float4 *)out.v = *(const float4 *)p;
        } else {
            for (int i = 0; i < N; i++) out.v[i] = p[i];
        }
    } else if (a.type == DTYPE_BF16) {
        const __nv_bfloat16 *p = (const __nv_bfloat16 *)a.data + at;
        if constexpr (N == 8) {
            out = from_bf16(*(const uint4 *)p);
        } else if constexpr (N == 4) {
            uint2 bits = *(const uint2 *)p;
            out.v[0] = __uint_as_float(bits.x << 16);
            out.v[1] = __uint_as_float(bits.x & 0xffff0000u);
            out.v[2] = __uint_as_float(bits.y << 16);
            out.v[3] = __uint_as_float(bits.y & 0xffff0000u);
        } else {
            for (int i = 0; i < N; i++) out.v[i] = __bfloat162float(p[i]);
        }
    } else {
        const __half *p = (const __half *)a.data + at;
        if constexpr (N % 4 == 0) {
            uint2 bits[N / 4];
            for (int i = 0; i < N / 4; i++) bits[i] = ((const uint2 *)p)[i];
            const __half2 *pairs = (const __half2 *)bits;
            for (int i = 0; i < N / 2; i++) {
                float2 two = __half22float2(pairs[i]);
                out.v[2 * i] = two.x;
                out.v[2 * i + 1] = two.y;
            }
        } else {
            for (int i = 0; i < N; i++) out.v[i] = __half2float(p[i]);
        }
    }
    return out;
}

__device__ inline uint32_t two_bf16(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

__device__ inline uint4 to_bf16(const lanes<8> &x) {
    return make_uint4(two_bf16(x.v[0], x.v[1]), two_bf16(x.v[2], x.v[3]), two_bf16(x.v[4], x.v[5]),
                      two_bf16(x.v[6], x.v[7]));
}

__device__ inline uint32_t two_f16(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

template <int N> __device__ inline void put(const struct array &a, int64_t at, const lanes<N> &x) {
    if (a.type == DTYPE_F32) {
        float *p = (float *)a.data + at;
        if constexpr (N == 8) {
            ((float4 *)p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
            ((float4 *)p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
        } else if constexpr (N == 4) {
            *(float4 *)p = *(const float4 *)x.v;
        } else {
            for (int i = 0; i < N; i++) p[i] = x.v[i];
        }
    } else if (a.type == DTYPE_F16) {
        __half *p = (__half *)a.data + at;
        if constexpr (N % 4 == 0) {
            for (int i = 0; i < N; i += 4)
                *(uint2 *)(p + i) = make_uint2(two_f16(x.v[i], x.v[i + 1]), two_f16(x.v[i + 2], x.v[i + 3]));
        } else {
            for (int i = 0; i < N; i++) p[i] = __float2half_rn(x.v[i]);
        }
    } else {
        __nv_bfloat16 *p = (__nv_bfloat16 *)a.data + at;
        if constexpr (N == 8) {
            *(uint4 *)p = to_bf16(x);
        } else if constexpr (N == 4) {
            *(uint2 *)p = make_uint2(two_bf16(x.v[0], x.v[1]), two_bf16(x.v[2], x.v[3]));
        } else {
            for (int i = 0; i < N; i++) p[i] = __float2bfloat16(x.v[i]);
        }
    }
}

__device__ inline float get1(const struct array &a, int64_t at) { return get<1>(a, at).v[0]; }
__device__ inline void put1(const struct array &a, int64_t at, float x) { put<1>(a, at, {{x}}); }

__device__ inline float glu_of(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

/* Eight numbers of a row of x, as they lie. Not through L1: the kernel that wrote them may have run beside
 * this one. */
struct eight_bits {
    uint4 low, high; /* of 16-bit types, low alone */
};
static __device__ inline eight_bits bits_of(const struct array &x, int64_t at) {
    if (x.type != DTYPE_F32) return {__ldcg((const uint4 *)((const uint16_t *)x.data + at))};
    const uint4 *from = (const uint4 *)((const float *)x.data + at);
    return {__ldcg(from), __ldcg(from + 1)};
}
static __device__ inline lanes<8> numbers_of(const struct array &x, const eight_bits &bits) {
    if (x.type == DTYPE_BF16) return from_bf16(bits.low);
    if (x.type == DTYPE_F16) return get<8>({(void *)&bits.low, DTYPE_F16, 8}, 0);
    lanes<8> out;
    const uint32_t word[8] = {bits.low.x,  bits.low.y,  bits.low.z,  bits.low.w,
                              bits.high.x, bits.high.y, bits.high.z, bits.high.w};
    for (int j = 0; j < 8; j++) out.v[j] = __uint_as_float(word[j]);
    return out;
}

/* 2^x, to 2 units in the last place; 0 for -∞. */
__device__ inline float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <class T> __device__ inline T warp_sum(T x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

/* Sum over the block, of whole warps, given to every thread. */
template <class T> __device__ inline T block_sum(T x) {
    __shared__ T part[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_sum(x);
    __syncthreads(); /* the sum before may still be read */
    if (!lane) part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : T(0));
}
__device__ inline float block_max(float x) {
    __shared__ float part[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_max(x);
    __syncthreads();
    if (!lane) part[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : part[0]);
}

/* Threads for a row: enough that each reads a vector or two. */
static inline unsigned row_threads(int64_t width, int lanes) {
    int64_t wanted = (width / lanes + 31) / 32 * 32;
    return (unsigned)(wanted < 32 ? 32 : wanted > 512 ? 512 : wanted);
}
/* The columns of a row, N at a time, over the threads of its block. */
#define COLUMNS(i, N, width) \
    for (int64_t i = (int64_t)threadIdx.x * (N); i < (width); i += (int64_t)blockDim.x * (N))

/* ---- kernels that begin before the one before them has ended (programmatic dependent launch) ----
 *
 * Where kernels are short, the time between two of them counts. A kernel that calls begin_in_turn (or
 * await_earlier) before it reads or writes what another one does can be given to launch_early: its blocks
 * come to the multiprocessors as those of the kernel before it leave them. */

/* Returns when all that came before in the stream is done. */
static __device__ inline void await_earlier() {
#if defined(HONE_SM90A) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
static __device__ inline void let_next_begin() {
#if defined(HONE_SM90A) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
/* The next one may stand by from the beginning: it waits for the end of this one. (Products of few rows of
 * one x do not, and rely on those before them to have waited: few.cu.) */
static __device__ inline void begin_in_turn() {
    let_next_begin();
    await_earlier();
}

static inline bool launches_early() {
#if defined(HONE_SM90A)
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
           major == 9;
#else
    return false;
#endif
}

/* `cluster`: blocks that are one cluster, neighbours in x; 1 where the GPU has none. */
template <class... P, class... A>
static void launch_early_in(unsigned cluster, void (*kernel)(P...), dim3 blocks, unsigned threads,
                            size_t shared, cudaStream_t stream, const A &...arguments) {
    cudaLaunchAttribute attributes[2] = {};
    unsigned count = 0;
    if (launches_early()) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = cluster;
        attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
        count++;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}
template <class... P, class... A>
static void launch_early(void (*kernel)(P...), dim3 blocks, unsigned threads, size_t shared,
                         cudaStream_t stream, const A &...arguments) {
    launch_early_in(1, kernel, blocks, threads, shared, stream, arguments...);
}

/* ---- clusters of blocks, which reach one another's shared memory ---- */

#if __CUDA_ARCH__ >= 900
/* Writes x into the same shared memory of another block of the cluster. */
static __device__ inline void tell(float2 *to, unsigned block, float2 x) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to), there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(at), "r"(block));
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};\n" ::"r"(there), "f"(x.x), "f"(x.y) : "memory");
}
static __device__ inline void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::
                     : "memory");
}
#else /* never launched there */
static __device__ inline void tell(float2 *, unsigned, float2) {}
static __device__ inline void cluster_sync() {}
#endif

/* Blocks of `threads` for n items, as many as the grid can have; kernels go on from there in strides. */
static inline unsigned blocks_for(int64_t n, int threads) {
    int64_t blocks = (n + threads - 1) / threads, most = 1 << 20;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}
#define EACH(i, n)                                                   \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, \
                 step_ = (int64_t)gridDim.x * blockDim.x;            \
         i < (n); i += step_)

#endif
