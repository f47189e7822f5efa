/* DoRA's operations; the equations are in src/op/dora.c. Sums over rows are made in bands of a fixed size,
 * and then along the bands. */
#include "device/cuda/decode.cuh"

enum { band = 256, columns = 32, lines = 8 };

/* m / n, 0 where n is. */
static __device__ inline float ratio(float m, float n) { return n > 0 ? m / n : 0; }

template <int N>
static __global__ void rescale(struct array y, struct array z, const float *m, const float *n,
                               struct array bias, struct array addend, int64_t width) {
    int64_t row = blockIdx.x;
    COLUMNS(i, N, width) {
        lanes<N> x = get<N>(z, row * z.stride + i), more = {}, b = {};
        if (addend.data) more = get<N>(addend, row * addend.stride + i);
        if (bias.data) b = get<N>(bias, i);
        for (int j = 0; j < N; j++) x.v[j] = fmaf(x.v[j], ratio(m[i + j], n[i + j]), more.v[j] + b.v[j]);
        put<N>(y, row * y.stride + i, x);
    }
}

void cuda_rescale(const struct rescale *r, cudaStream_t stream) {
    if (!r->rows) return;
    unsigned rows = (unsigned)r->rows;
    if (r->width % 8 == 0)
        rescale<8><<<rows, row_threads(r->width, 8), 0, stream>>>(r->y, r->z, r->m, r->n, r->bias, r->addend,
                                                                  r->width);
    else
        rescale<1><<<rows, row_threads(r->width, 1), 0, stream>>>(r->y, r->z, r->m, r->n, r->bias, r->addend,
                                                                  r->width);
}

/* sums [bands, width] = Σ dy z of each band */
static __global__ void band_sums(float *sums, struct array dy, struct array z, int64_t rows, int64_t width) {
    __shared__ float part[lines][columns + 1];
    int64_t c = (int64_t)blockIdx.x * columns + threadIdx.x, first = (int64_t)blockIdx.y * band;
    int64_t last = first + band < rows ? first + band : rows;
    float sum = 0;
    for (int64_t t = first + threadIdx.y; c < width && t < last; t += lines)
        sum = fmaf(get1(dy, t * dy.stride + c), get1(z, t * z.stride + c), sum);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= width) return;
    for (int i = 1; i < lines; i++) sum += part[i][threadIdx.x];
    sums[blockIdx.y * width + c] = sum;
}

static __global__ void add_bands(float *dm, const float *sums, const float *n, int64_t bands, int64_t width) {
    EACH(c, width) {
        float sum = 0;
        for (int64_t b = 0; b < bands; b++) sum += sums[b * width + c];
        dm[c] += ratio(sum, n[c]);
    }
}

int64_t cuda_rescale_bands(int64_t rows) { return (rows + band - 1) / band; }

void cuda_rescale_grad(const struct rescale *r, float *dm, float *sums, cudaStream_t stream) {
    int64_t bands = cuda_rescale_bands(r->rows);
    if (!r->rows) return;
    if (dm) {
        dim3 grid((unsigned)((r->width + columns - 1) / columns), (unsigned)bands);
        band_sums<<<grid, dim3(columns, lines), 0, stream>>>(sums, r->dy, r->z, r->rows, r->width);
        add_bands<<<blocks_for(r->width, 128), 128, 0, stream>>>(dm, sums, r->n, bands, r->width);
    }
    struct rescale back = *r; /* dz = dy · m / n, on dy or elsewhere */
    back.z = r->dy;
    back.bias.data = back.addend.data = NULL;
    cuda_rescale(&back, stream);
}

/* A block for `together` rows of w, which share what is read of a. */
enum { together = 4, threads = 256 };

template <int N>
static __global__ void __launch_bounds__(threads)
    row_norms(float *n, const __grid_constant__ struct weight_view w, const float *a, const float *b,
              float alpha, int64_t rows, int64_t rank) {
    __shared__ float levels[16];
    const struct array low = {(void *)a, DTYPE_F32, w.width};
    int64_t first = (int64_t)blockIdx.x * together;
    float sums[together] = {};
    load_levels(levels, w);
    COLUMNS(i, N, w.width) {
        lanes<N> update[together] = {};
        for (int64_t k = 0; k < rank; k++) {
            lanes<N> x = get<N>(low, k * w.width + i);
            for (int r = 0; r < together; r++) {
                float factor = first + r < rows ? b[(first + r) * rank + k] : 0;
                for (int j = 0; j < N; j++) update[r].v[j] = fmaf(factor, x.v[j], update[r].v[j]);
            }
        }
        for (int r = 0; r < together && first + r < rows; r++) {
            lanes<N> base = numbers_at<N>(w, levels, first + r, i);
            for (int j = 0; j < N; j++) {
                float x = fmaf(alpha, update[r].v[j], base.v[j]);
                sums[r] = fmaf(x, x, sums[r]);
            }
        }
    }
    for (int r = 0; r < together; r++) {
        float sum = block_sum(sums[r]);
        if (!threadIdx.x && first + r < rows) n[first + r] = sqrtf(sum);
    }
}

void cuda_row_norms(float *n, const struct matrix *w, const float *a, const float *b, float alpha,
                    int64_t rows, int64_t width, int64_t rank, cudaStream_t stream) {
    struct weight_view view = weight_view_of(w, width);
    unsigned blocks = (unsigned)((rows + together - 1) / together);
    if (width % 8 == 0)
        row_norms<8><<<blocks, threads, 0, stream>>>(n, view, a, b, alpha, rows, rank);
    else
        row_norms<1><<<blocks, threads, 0, stream>>>(n, view, a, b, alpha, rows, rank);
}
