/* Rows of logits to log-probabilities and gradients, and the loss; the equations are in src/op/head.c. */
#include "device/cuda/kernel.cuh"

enum { threads = 512, step = threads * 4 };

/* e^x; 0 for -∞. */
static __device__ inline float exp_of(float x) { return exp2_of(x * 1.44269504f); }

/* Four logits; -∞ past the end. Rows begin at multiples of 64. */
static __device__ inline void four(float (&x)[4], const float *row, int64_t at, int64_t n) {
    if (at + 4 <= n) {
        float4 v = *(const float4 *)(row + at);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
        for (int j = 0; j < 4; j++) x[j] = at + j < n ? row[at + j] : -INFINITY;
    }
}

/* The larger of two maxima, and the sums of exp(l - maximum) below it. */
static __device__ inline void join(float &most, float &sum, float other_most, float other_sum) {
    float larger = fmaxf(most, other_most);
    sum = (most == -INFINITY ? 0 : sum * expf(most - larger)) +
          (other_most == -INFINITY ? 0 : other_sum * expf(other_most - larger));
    most = larger;
}

/* log Σ exp of a row, one pass. */
static __device__ float log_sum(const float *row, int64_t n) {
    __shared__ float mosts[32], sums[32];
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x * 4; i < n; i += step) {
        float x[4];
        four(x, row, i, n);
        float top = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
        if (top > most) {
            sum *= exp_of(most - top);
            most = top;
        }
        for (int j = 0; j < 4; j++) sum += exp_of(x[j] - most);
    }
    for (int d = 16; d; d /= 2) {
        float other = __shfl_xor_sync(~0u, most, d), more = __shfl_xor_sync(~0u, sum, d);
        join(most, sum, other, more);
    }
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (!lane) {
        mosts[warp] = most;
        sums[warp] = sum;
    }
    __syncthreads();
    most = mosts[0];
    sum = sums[0];
    for (int w = 1; w < threads / 32; w++) join(most, sum, mosts[w], sums[w]);
    return most + logf(sum);
}

/* A block for a row. Gradients of 16 bits take half the room of what they replace: a step's logits are read
 * by all before any is overwritten, and what is written never reaches the logits of a later step. */
static __global__ void __launch_bounds__(threads) rows_of(struct logits l) {
    int64_t m = blockIdx.x;
    float *row = l.logits + m * l.stride;
    int target = l.targets[m];
    float right = row[target], lse = log_sum(row, l.vocabulary);
    if (l.logp && !threadIdx.x) l.logp[m] = right - lse;
    if (!l.dlogp) return;
    float weight = l.dlogp[m];
    struct array out = {row, l.type};
    for (int64_t first = 0; first < l.vocabulary; first += step) {
        int64_t i = first + threadIdx.x * 4;
        float x[4];
        four(x, row, i, l.vocabulary);
        __syncthreads();
        lanes<4> dl;
        for (int j = 0; j < 4; j++) dl.v[j] = weight * ((i + j == target) - exp_of(x[j] - lse));
        if (i < l.vocabulary)
            put<4>(out, i, dl); /* past the vocabulary: the room behind it, which nobody reads */
    }
}

/* ---- rows longer than a block's registers: a cluster of eight blocks holds one, so that it is read once
 * ---- */

enum { cluster = 8, cluster_step = cluster * step };

/* As rows_of. `quads`: vectors of four that a thread holds; vocabulary up to quads · cluster_step. Each block
 * tells all others its maximum and its sum below it; they are joined in the blocks' order. */
template <int quads> static __global__ void __launch_bounds__(threads) rows_of_clusters(struct logits l) {
    __shared__ float2 parts[cluster];
    int64_t m = blockIdx.x / cluster;
    unsigned block = blockIdx.x % cluster;
    float *row = l.logits + m * l.stride, x[quads][4], top = -INFINITY, below = 0;
    int target = l.targets[m];
    int64_t first = block * step + threadIdx.x * 4;
#pragma unroll
    for (int k = 0; k < quads; k++) four(x[k], row, first + k * cluster_step, l.vocabulary);
    float right = row[target];
#pragma unroll
    for (int k = 0; k < quads; k++)
        for (int j = 0; j < 4; j++) top = fmaxf(top, x[k][j]);
    top = block_max(top);
    float base = top == -INFINITY ? 0 : top;
#pragma unroll
    for (int k = 0; k < quads; k++)
        for (int j = 0; j < 4; j++) below += x[k][j] = exp_of(x[k][j] - base);
    below = block_sum(below);
    cluster_sync(); /* all blocks run: their memory is there */
    if (threadIdx.x < cluster) tell(&parts[block], threadIdx.x, make_float2(top, below));
    cluster_sync(); /* and all have read the row */
    float most = parts[0].x, sum = parts[0].y;
    for (int i = 1; i < cluster; i++) join(most, sum, parts[i].x, parts[i].y);
    float lse = most + logf(sum);
    if (l.logp && !block && !threadIdx.x) l.logp[m] = right - lse;
    if (!l.dlogp) return;
    float weight = l.dlogp[m], factor = expf(base - lse);
    struct array out = {row, l.type};
#pragma unroll
    for (int k = 0; k < quads; k++) {
        int64_t i = first + k * cluster_step;
        lanes<4> dl;
        for (int j = 0; j < 4; j++) dl.v[j] = weight * ((i + j == target) - x[k][j] * factor);
        if (i < l.vocabulary) put<4>(out, i, dl); /* past it: as in rows_of */
    }
}

/* False where the vocabulary is too large, or so small that a block does as well. */
static bool launch_clusters(const struct logits *l, cudaStream_t stream) {
    const struct {
        int64_t quads;
        void (*kernel)(struct logits);
    } rows[] = {{4, rows_of_clusters<4>},
                {8, rows_of_clusters<8>},
                {10, rows_of_clusters<10>},
                {16, rows_of_clusters<16>}};
    if (!l->clusters || l->vocabulary < 2 * cluster_step) return false;
    cudaLaunchAttribute shape = {.id = cudaLaunchAttributeClusterDimension};
    shape.val.clusterDim.x = cluster;
    shape.val.clusterDim.y = shape.val.clusterDim.z = 1;
    cudaLaunchConfig_t launch = {.gridDim = dim3((unsigned)(l->rows * cluster)),
                                 .blockDim = dim3(threads),
                                 .stream = stream,
                                 .attrs = &shape,
                                 .numAttrs = 1};
    for (const auto &row : rows)
        if (l->vocabulary <= row.quads * cluster_step) {
            cudaLaunchKernelEx(&launch, row.kernel, *l);
            return true;
        }
    return false;
}

void cuda_logits(const struct logits *l, cudaStream_t stream) {
    if (l->rows && !launch_clusters(l, stream)) rows_of<<<(unsigned)l->rows, threads, 0, stream>>>(*l);
}

static __global__ void __launch_bounds__(threads)
    add_loss(double *loss, const float *logp, const float *weights, int64_t n) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += threads) sum += (double)logp[i] * (double)weights[i];
    sum = block_sum(sum);
    if (!threadIdx.x) *loss += sum;
}

void cuda_loss(double *loss, const float *logp, const float *weights, int64_t n, cudaStream_t stream) {
    add_loss<<<1, threads, 0, stream>>>(loss, logp, weights, n);
}
