/* Stored types to f32, bf16 or f16, a thread for eight numbers (decode.cuh). */
#include "device/cuda/decode.cuh"

/* y[row] = w[index ? index[row] : row] */
template <int N>
static __global__ void take(struct array y, const __grid_constant__ struct weight_view w,
                            const int32_t *index) {
    __shared__ float levels[16];
    int64_t row = blockIdx.x;
    begin_in_turn();
    load_levels(levels, w);
    int64_t source = index ? index[row] : row;
    COLUMNS(i, N, w.width) put<N>(y, row * y.stride + i, numbers_at<N>(w, levels, source, i));
}

void cuda_take_rows(struct array y, const struct matrix *x, const int32_t *index, int64_t rows, int64_t width,
                    cudaStream_t stream) {
    if (!rows) return;
    struct weight_view w = weight_view_of(x, width);
    if (width % 8 == 0)
        launch_early(take<8>, dim3((unsigned)rows), row_threads(width, 8), 0, stream, y, w, index);
    else
        launch_early(take<1>, dim3((unsigned)rows), row_threads(width, 1), 0, stream, y, w, index);
}

void cuda_decode(struct array y, const struct matrix *x, int64_t rows, int64_t width, cudaStream_t stream) {
    cuda_take_rows(y, x, NULL, rows, width, stream);
}
