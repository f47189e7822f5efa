/* Root-mean-square norm and its gradient, a block for each row; the equations are in src/op/norm.c. A row is
 * read a second time out of the caches. */
#include "device/cuda/fp8.cuh"

template <int N>
static __global__ void norm(struct array y, struct fp8_rows codes, float *rstd, struct array x,
                            struct array w, float epsilon, int64_t width) {
    int64_t row = blockIdx.x;
    float squares = 0, most = 0;
    begin_in_turn();
    COLUMNS(i, N, width) {
        lanes<N> a = get<N>(x, row * x.stride + i);
        for (int j = 0; j < N; j++) squares = fmaf(a.v[j], a.v[j], squares);
    }
    float r = 1 / sqrtf(block_sum(squares) / (float)width + epsilon);
    if (rstd && !threadIdx.x) rstd[row] = r;
    COLUMNS(i, N, width) {
        lanes<N> a = get<N>(x, row * x.stride + i), b = get<N>(w, i);
        for (int j = 0; j < N; j++) a.v[j] = a.v[j] * r * b.v[j];
        put<N>(y, row * y.stride + i, a);
        most = largest_of(a, most);
    }
    if (codes.data) code_row(codes, y, row, width, most);
}

void cuda_norm(struct array y, const struct fp8_rows *codes, float *rstd, struct array x, struct array w,
               float epsilon, int64_t rows, int64_t width, cudaStream_t stream) {
    if (!rows) return;
    if (width % 8 == 0)
        launch_early(norm<8>, dim3((unsigned)rows), row_threads(width, 8), 0, stream, y, *codes, rstd, x, w,
                     epsilon, width);
    else
        launch_early(norm<1>, dim3((unsigned)rows), row_threads(width, 1), 0, stream, y, *codes, rstd, x, w,
                     epsilon, width);
}

template <int N>
static __global__ void norm_grad(struct array dx, struct fp8_rows codes, struct array copy, struct array dy,
                                 struct array x, struct array w, const float *rstd, struct array addend,
                                 int64_t width) {
    int64_t row = blockIdx.x;
    float r = rstd[row], sum = 0, most = 0;
    COLUMNS(i, N, width) {
        lanes<N> d = get<N>(dy, row * dy.stride + i), a = get<N>(x, row * x.stride + i), b = get<N>(w, i);
        for (int j = 0; j < N; j++) sum = fmaf(d.v[j] * b.v[j], a.v[j], sum);
    }
    float shift = block_sum(sum) / (float)width * r * r * r;
    COLUMNS(i, N, width) {
        lanes<N> d = get<N>(dy, row * dy.stride + i), a = get<N>(x, row * x.stride + i), b = get<N>(w, i),
                 c = {};
        if (addend.data) c = get<N>(addend, row * addend.stride + i);
        for (int j = 0; j < N; j++) d.v[j] = r * d.v[j] * b.v[j] - a.v[j] * shift + c.v[j];
        put<N>(dx, row * dx.stride + i, d);
        if (copy.data) put<N>(copy, row * copy.stride + i, d);
        most = largest_of(d, most);
    }
    if (codes.data) code_row(codes, dx, row, width, most);
}

void cuda_norm_grad(struct array dx, const struct fp8_rows *codes, struct array copy, struct array dy,
                    struct array x, struct array w, const float *rstd, struct array addend, int64_t rows,
                    int64_t width, cudaStream_t stream) {
    if (!rows) return;
    if (width % 8 == 0)
        norm_grad<8><<<(unsigned)rows, row_threads(width, 8), 0, stream>>>(dx, *codes, copy, dy, x, w, rstd,
                                                                           addend, width);
    else
        norm_grad<1><<<(unsigned)rows, row_threads(width, 1), 0, stream>>>(dx, *codes, copy, dy, x, w, rstd,
                                                                           addend, width);
}
