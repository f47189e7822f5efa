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

/* A block for each row. */
static __global__ void __launch_bounds__(1024) likeliest(int32_t *ids, struct array x, int64_t width) {
    __shared__ place of_warp[32];
    const float *row = (const float *)x.data + blockIdx.x * x.stride;
    place best = {-INFINITY, INT_MAX};
    begin_in_turn();
#pragma unroll 8
    for (int i = threadIdx.x; i < width; i += 1024) {
        float y = row[i];
        if (y > best.x) best = {y, i};
    }
    best = best_of_warp(best);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    best = best_of_warp(of_warp[threadIdx.x]);
    if (!threadIdx.x) ids[blockIdx.x] = best.at == INT_MAX ? 0 : best.at;
}

void cuda_likeliest(int32_t *ids, struct array x, int64_t rows, int64_t width, cudaStream_t stream) {
    if (rows) launch_early(likeliest, dim3((unsigned)rows), 1024, 0, stream, ids, x, width);
}
