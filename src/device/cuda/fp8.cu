/* Numbers of 8 bits (e4m3) with a factor for each row, and the copies of weights and adapters that products
 * of them read (fp8.c). */
#include "device/cuda/decode.cuh"
#include "device/cuda/fp8.cuh"

static __device__ inline uint8_t e4m3(float x) {
    return (uint8_t)__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
static __device__ inline float from_e4m3(uint8_t bits) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}

/* A block for a row; the second reading comes out of the first cache. */
static __global__ void rows_of(struct fp8_rows y, struct array x, int64_t width) {
    int64_t row = blockIdx.x;
    float most = 0;
    COLUMNS(i, 8, width) most = largest_of(get<8>(x, row * x.stride + i), most);
    code_row(y, x, row, width, most);
}

void cuda_fp8_rows(const struct fp8_rows *y, struct array x, int64_t rows, int64_t width,
                   cudaStream_t stream) {
    if (rows) rows_of<<<(unsigned)rows, row_threads(width, 8), 0, stream>>>(*y, x, width);
}

/* ---- weights, when they are loaded ---- */

/* *bits: the largest |x| of all, as its bits, whose order is that of the numbers. */
static __global__ void largest(unsigned *bits, const __grid_constant__ struct weight_view w) {
    __shared__ float levels[16];
    float most = 0;
    load_levels(levels, w);
    COLUMNS(i, 1, w.width) most = fmaxf(most, fabsf(numbers_at<1>(w, levels, blockIdx.x, i).v[0]));
    most = block_max(most);
    if (!threadIdx.x) atomicMax(bits, __float_as_uint(most));
}

static __global__ void fill_scales(float *scales, const unsigned *bits, int64_t n) {
    float most = __uint_as_float(*bits);
    EACH(i, n) scales[i] = most > 0 ? most / largest_e4m3 : 1;
}

enum { tile = 32, lines = 8 };

/* Both ways round, over tiles; the second through shared memory. */
static __global__ void both_ways(struct fp8_weight y, const __grid_constant__ struct weight_view w,
                                 int64_t rows) {
    __shared__ uint8_t codes[tile][tile + 1];
    __shared__ float levels[16];
    int64_t row = (int64_t)blockIdx.y * tile, column = (int64_t)blockIdx.x * tile;
    float inverse = 1 / y.scales[0];
    if (threadIdx.y == 0 && threadIdx.x < 16) levels[threadIdx.x] = w.levels[threadIdx.x];
    __syncthreads();
    for (int r = threadIdx.y; r < tile; r += lines) {
        int64_t at = column + threadIdx.x;
        if (row + r >= rows || at >= w.width) continue;
        codes[r][threadIdx.x] = e4m3(numbers_at<1>(w, levels, row + r, at).v[0] * inverse);
        y.codes[(row + r) * y.stride + at] = codes[r][threadIdx.x];
    }
    __syncthreads();
    for (int c = threadIdx.y; c < tile; c += lines)
        if (column + c < w.width && row + threadIdx.x < rows)
            y.transposed[(column + c) * y.transposed_stride + row + threadIdx.x] = codes[threadIdx.x][c];
}

void cuda_fp8_weight(const struct fp8_weight *y, const struct matrix *x, int64_t rows, int64_t width,
                     cudaStream_t stream) {
    struct weight_view w = weight_view_of(x, width);
    unsigned *bits = (unsigned *)y->codes; /* not written yet */
    cudaMemsetAsync(bits, 0, sizeof *bits, stream);
    largest<<<(unsigned)rows, row_threads(width, 1), 0, stream>>>(bits, w);
    fill_scales<<<blocks_for(rows > width ? rows : width, 256), 256, 0, stream>>>(
        y->scales, bits, rows > width ? rows : width);
    dim3 tiles((unsigned)((width + tile - 1) / tile), (unsigned)((rows + tile - 1) / tile));
    both_ways<<<tiles, dim3(tile, lines), 0, stream>>>(*y, w, rows);
}

/* ---- the product of low rank, as three times its rank more numbers of each row ---- */

/* A number is two of e4m3, the second what the first leaves: as many bits as bf16 has. */
struct two {
    uint8_t first, second;
};
static __device__ inline struct two split(float x) {
    uint8_t first = e4m3(x);
    return {first, e4m3(x - from_e4m3(first))};
}

/* *bits: the largest |up|, as its bits. */
static __global__ void largest_up(unsigned *bits, struct array up, int64_t rows, int64_t width) {
    float most = 0;
    EACH(i, rows * width) most = fmaxf(most, fabsf(get1(up, i / width * up.stride + i % width)));
    most = block_max(most);
    if (!threadIdx.x) atomicMax(bits, __float_as_uint(most));
}

/* A power of two by which up is multiplied and low divided, so that both keep away from the ends of e4m3. */
static __device__ inline float balance_of(const struct fp8_tails &t) {
    float most = __uint_as_float(*t.largest) * fabsf(t.factor) / *t.w_scales;
    float half = most > 0 ? floorf(log2f(largest_e4m3 / most) / 2) : 0;
    return exp2f(fminf(fmaxf(half, -30), 30));
}

/* Byte c of what is put behind a row; a bit of `seconds` for each third of it: the second number, not the
 * first. */
template <class Number>
static __device__ inline uint8_t tail_byte(int c, int rank, int seconds, Number number) {
    if (c >= 3 * rank) return 0;
    int third = c / rank;
    struct two t = split(number(c - third * rank));
    return seconds >> third & 1 ? t.second : t.first;
}

/* A thread for four bytes: of low first, [first | second | first] of low / (the row's factor · balance), then
 * of up, [first | first | second] of up · factor · balance / the weight's factor. */
static __global__ void tails(const __grid_constant__ struct fp8_tails t) {
    int words = t.extra / 4;
    float balance = balance_of(t);
    EACH(i, (t.rows + t.columns) * words) {
        int row = (int)(i / words), word = (int)(i % words), of_w = row >= t.rows;
        uint8_t *to = of_w ? t.w + (row - t.rows) * t.w_stride : t.x + row * t.x_stride;
        float factor = of_w ? t.factor * balance / *t.w_scales : 1 / (t.x_scales[row] * balance);
        const struct array &from = of_w ? t.up : t.low;
        int64_t begin = of_w ? (row - t.rows) * t.along : row * t.low.stride, step = of_w ? t.across : 1;
        uint32_t bits = 0;
        for (int j = 0; j < 4; j++)
            bits |= (uint32_t)tail_byte(4 * word + j, t.rank, of_w ? 4 : 2,
                                        [&](int r) { return get1(from, begin + r * step) * factor; })
                    << 8 * j;
        ((uint32_t *)to)[word] = bits;
    }
}

void cuda_fp8_tails(const struct fp8_tails *t, cudaStream_t stream) {
    /* Of up as it lies: rows of `rank`, or `rank` rows. */
    int64_t rows = t->across == 1 ? t->columns : t->rank, width = t->across == 1 ? t->rank : t->columns;
    cudaMemsetAsync(t->largest, 0, sizeof *t->largest, stream);
    largest_up<<<blocks_for(rows * width, 1024), 256, 0, stream>>>(t->largest, t->up, rows, width);
    tails<<<blocks_for((t->rows + t->columns) * (t->extra / 4), 256), 256, 0, stream>>>(*t);
}

/* ---- several products as one ---- */

static __global__ void join_rows(const __grid_constant__ struct fp8_join j) {
    int64_t row = blockIdx.x, at = 0;
    float most = 0, factor[fp8_most_joined];
    for (int p = 0; p < j.count; p++) {
        const struct fp8_part &part = j.part[p];
        float largest = 0;
        factor[p] = part.factor * (*part.w_scale / *j.part[0].w_scale);
        COLUMNS(i, 8, part.width) largest = largest_of(get<8>(part.x, row * part.x.stride + i), largest);
        most = fmaxf(most, largest * fabsf(factor[p]));
    }
    most = block_max(most);
    float scale = most > 0 ? most / largest_e4m3 : 1;
    if (!threadIdx.x) j.x.scales[row] = scale;
    for (int p = 0; p < j.count; at += j.part[p].width, p++)
        code_columns(j.x.data + row * j.x.stride + at, j.part[p].x, row, j.part[p].width, factor[p] / scale);
}

static __global__ void join_weights(const __grid_constant__ struct fp8_join j) {
    int64_t row = blockIdx.x;
    uint8_t *to = j.w + row * j.w_stride;
    for (int p = 0; p < j.count; to += j.part[p].width, p++) COLUMNS(i, 16, j.part[p].width) {
            *(uint4 *)(to + i) = *(const uint4 *)(j.part[p].w + row * j.part[p].w_stride + i);
        }
}

void cuda_fp8_join(const struct fp8_join *join, cudaStream_t stream) {
    int64_t most = 0;
    for (int p = 0; p < join->count; p++) most = join->part[p].width > most ? join->part[p].width : most;
    join_rows<<<(unsigned)join->rows, row_threads(most, 8), 0, stream>>>(*join);
    join_weights<<<(unsigned)join->columns, row_threads(most, 16), 0, stream>>>(*join);
}
