/* Gradients of what full fine-tuning trains beside matrices: norms, biases, embeddings; the equations are in
 * src/op. Sums run along the tokens in a fixed order. */
#include "device/cuda/kernel.cuh"

enum { columns = 32, lines = 32 }; /* of a block */

/* sums[c] += Σ_t dy[t, c] (· x[t, c] · rstd[t], where x is there) */
static __global__ void column_sums(float *sums, struct array dy, struct array x, const float *rstd,
                                   int64_t rows, int64_t width) {
    __shared__ float part[lines][columns + 1];
    int64_t c = (int64_t)blockIdx.x * columns + threadIdx.x;
    float sum = 0;
    for (int64_t t = threadIdx.y; c < width && t < rows; t += lines) {
        float value = get1(dy, t * dy.stride + c);
        sum += x.data ? value * get1(x, t * x.stride + c) * rstd[t] : value;
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= width) return;
    for (int i = 1; i < lines; i++) sum += part[i][threadIdx.x];
    sums[c] += sum;
}

void cuda_column_sums(float *sums, struct array dy, struct array x, const float *rstd, int64_t rows,
                      int64_t width, cudaStream_t stream) {
    if (rows)
        column_sums<<<(unsigned)((width + columns - 1) / columns), dim3(columns, lines), 0, stream>>>(
            sums, dy, x, rstd, rows, width);
}

/* A block for each token: the first of several that name one row of dw adds them all, in order. */
template <int N>
static __global__ void embedding_grad(struct array dw, struct array dy, const int32_t *ids, int64_t tokens,
                                      int64_t width) {
    __shared__ int earlier;
    int64_t t = blockIdx.x;
    int id = ids[t];
    if (!threadIdx.x) earlier = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < t; i += blockDim.x)
        if (ids[i] == id) earlier = 1;
    __syncthreads();
    if (earlier) return;
    COLUMNS(c, N, width) {
        lanes<N> sum = get<N>(dw, id * dw.stride + c);
        for (int64_t i = t; i < tokens; i++) {
            if (ids[i] != id) continue;
            lanes<N> more = get<N>(dy, i * dy.stride + c);
            for (int j = 0; j < N; j++) sum.v[j] += more.v[j];
        }
        put<N>(dw, id * dw.stride + c, sum);
    }
}

void cuda_embedding_grad(struct array dw, struct array dy, const int32_t *ids, int64_t tokens, int64_t width,
                         cudaStream_t stream) {
    if (!tokens) return;
    if (width % 8 == 0)
        embedding_grad<8><<<(unsigned)tokens, row_threads(width, 8), 0, stream>>>(dw, dy, ids, tokens, width);
    else
        embedding_grad<1><<<(unsigned)tokens, row_threads(width, 1), 0, stream>>>(dw, dy, ids, tokens, width);
}
