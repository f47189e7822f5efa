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

/* A block for a row. bf16 gradients take half the room of what they replace: a step's logits are read by all
 * before any is overwritten, and what is written never reaches the logits of a later step. */
static __global__ void __launch_bounds__(threads) rows_of(struct logits l) {
    int64_t m = blockIdx.x;
    float *row = l.logits + m * l.stride;
    int target = l.targets[m];
    float right = row[target], lse = log_sum(row, l.vocabulary);
    if (l.logp && !threadIdx.x) l.logp[m] = right - lse;
    if (!l.dlogp) return;
    float weight = l.dlogp[m];
    struct array out = {row, l.bf16 ? DTYPE_BF16 : DTYPE_F32};
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

void cuda_logits(const struct logits *l, cudaStream_t stream) {
    if (l->rows) rows_of<<<(unsigned)l->rows, threads, 0, stream>>>(*l);
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
