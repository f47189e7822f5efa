/* Where a row's largest number is: what decoding without chance takes, so that logits need not leave the GPU.
 */
#include <climits>

#include "device/cuda/kernel.cuh"

struct place {
    float x;
    int at;
};

/* The larger, or the earlier of two that are as large; NaN never comes here. */
static __device__ inline place better(place a, place b) {
    return b.x > a.x || (b.x == a.x && b.at < a.at) ? b : a;
}

static __device__ inline place best_of_warp(place best) {
    for (int step = 16; step; step /= 2)
        best = better(best, {__shfl_xor_sync(~0u, best.x, step), __shfl_xor_sync(~0u, best.at, step)});
    return best;
}

enum { cluster = 8, threads = 1024 };

/* `blocks` for each row, which have a part each; they are a cluster, or one. */
static __global__ void __launch_bounds__(threads)
    likeliest(int32_t *ids, struct array x, int64_t width, int blocks) {
    __shared__ place of_warp[32];
    __shared__ float2 of_block[cluster];
    const float *row = (const float *)x.data + blockIdx.x / blocks * x.stride;
    int part = (int)((width + blocks - 1) / blocks), block = (int)blockIdx.x % blocks, first = block * part;
    int end = first + part < width ? first + part : (int)width;
    place best = {-INFINITY, INT_MAX};
    begin_in_turn();
#pragma unroll 8
    for (int i = first + threadIdx.x; i < end; i += threads) {
        float y = row[i];
        if (y > best.x) best = {y, i};
    }
    best = best_of_warp(best);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x < 32) best = best_of_warp(of_warp[threadIdx.x]);
    if (blocks > 1) {   /* the first block hears of all */
        cluster_sync(); /* it runs: its memory is there */
        if (!threadIdx.x) tell(&of_block[block], 0, make_float2(best.x, __int_as_float(best.at)));
        cluster_sync();
        if (block) return;
        for (int b = 0; b < blocks; b++) best = better(best, {of_block[b].x, __float_as_int(of_block[b].y)});
    }
    if (!threadIdx.x) ids[blockIdx.x / blocks] = best.at == INT_MAX ? -1 : best.at;
}

void cuda_likeliest(int32_t *ids, struct array x, int64_t rows, int64_t width, bool clusters,
                    cudaStream_t stream) {
    int blocks = clusters && width >= cluster * threads ? cluster : 1;
    if (rows)
        launch_early_in((unsigned)blocks, likeliest, dim3((unsigned)(rows * blocks)), threads, 0, stream, ids,
                        x, width, blocks);
}
