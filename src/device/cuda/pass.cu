/* Adapters' products, which have one wide side and one of rank 16 or so, take as long as reading the wide
 * rows v. Here a tile of v is put into shared memory once, made from what it is a function of where it is
 * cheap, and all products that need it are made from there:
 *
 *   along the rows   sums[t, r] = Σ_c v[t, c] f[c, r]      x Aᵀ, dy B
 *   across them      sums[c, r] = Σ_t v[t, c] f[t, r]      dA = dlowᵀ x, dB = dyᵀ low
 *
 * A block has 256 columns and a range of rows, in tiles, where something is summed across; else a tile of
 * rows and all columns. What other blocks sum of the same number is added up by a kernel of its own, in the
 * order of the parts, whose number follows from the shape. While a tile is multiplied, the next one is on its
 * way: in registers, or, of the gradient of GLU, two tiles in shared memory. */
#include "device/cuda/pass.cuh"

/* ---- the products of a tile ---- */

template <class S> using along_sums = float[S::along_each ? S::along_each : 1][2][4];
template <class S> using across_sums = float[S::across_each ? S::streams * S::across_each : 1][2][2][4];

/* 16 rows, and of the columns the warp's share. */
template <int X, class S>
static __device__ inline void multiply_along(along_sums<S> &sum, bf16 *tile, const bf16 *factors) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first = warp % (S::lines / 16) * 16, stream = warp % S::owners / (S::lines / 16),
        part = warp / S::owners;
    constexpr int steps = columns / 16 / S::parts;
    tile += stream * S::lines * columns;
#pragma unroll 4
    for (int k = part * steps; k < (part + 1) * steps; k++) {
        uint32_t a[4], b[4];
        load_matrices(a, piece_of(tile, first + lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int e = 0; e < S::along_each; e++) {
            const bf16 *factor = factors + (stream * S::along_each + e) * S::along;
            if constexpr (X > 0)
                factor_of(b, factor, k * 16);
            else
                turned_of(b, factor, k * 16);
            multiply(sum[e][0], a, b[0], b[1]);
            multiply(sum[e][1], a, b[2], b[3]);
        }
    }
}

/* All rows, and 32 columns of the warp's own. */
template <class S>
static __device__ inline void multiply_across(across_sums<S> &sum, bf16 *tile, const bf16 *factors) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < S::lines / 16; k++)
#pragma unroll
        for (int s = 0; s < S::streams; s++) {
            uint32_t a[4], b[S::across_each][4];
#pragma unroll
            for (int e = 0; e < S::across_each; e++)
                factor_of(b[e], factors + (s * S::across_each + e) * S::lines * stride, k * 16);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                load_transposed(a, piece_of(tile + s * S::lines * columns, k * 16 + lane % 8 + lane / 16 * 8,
                                            warp * 4 + m * 2 + lane / 8 % 2));
#pragma unroll
                for (int e = 0; e < S::across_each; e++) {
                    multiply(sum[s * S::across_each + e][m][0], a, b[e][0], b[e][1]);
                    multiply(sum[s * S::across_each + e][m][1], a, b[e][2], b[e][3]);
                }
            }
        }
}

/* A fragment of 16 rows and `ranks` columns, to sums [part, most, ranks] from row `first` on. */
static __device__ inline void write_sums(const struct pass_factor &f, int64_t part, int64_t first,
                                         int64_t most, const float (&sum)[2][4]) {
    int lane = threadIdx.x % 32;
    if (!f.sums) return;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t row = first + lane / 4 + 8 * i;
            if (row < most)
                *(float2 *)(f.sums + (part * most + row) * ranks + n * 8 + lane % 4 * 2) =
                    make_float2(sum[n][2 * i], sum[n][2 * i + 1]);
        }
}

/* Adds up what the warps of one fragment have, writes it and clears it; all threads come here. */
template <class S>
static __device__ inline void end_along(along_sums<S> &sum, float *shared, const struct pass &p,
                                        int64_t row) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, owner = warp % S::owners, part = warp / S::owners;
    for (int e = 0; e < S::along_each && part; e++)
        for (int i = 0; i < 8; i++)
            shared[((((part - 1) * S::owners + owner) * S::along_each + e) * 8 + i) * 32 + lane] =
                sum[e][i / 4][i % 4];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < S::along_each; e++) {
#pragma unroll
        for (int other = 0; other < S::parts - 1; other++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (!part)
                    sum[e][i / 4][i % 4] +=
                        shared[(((other * S::owners + owner) * S::along_each + e) * 8 + i) * 32 + lane];
        int stream = owner / (S::lines / 16);
        if (!part)
            write_sums(p.along[stream * S::along_each + e], blockIdx.x, row + owner % (S::lines / 16) * 16,
                       p.rows, sum[e]);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[e][i / 4][i % 4] = 0;
    }
}

/* ---- the kernel: blocks (columns, rows) ---- */

template <enum pass_kind K, int A, int X>
static __global__ void __launch_bounds__(threads, 2)
    pass_over(const __grid_constant__ struct pass p, int64_t block_rows) {
    using S = shape<K, A, X>;
    extern __shared__ __align__(16) unsigned char memory[];
    bf16 *tiles = (bf16 *)memory, *along = tiles + S::tiles * S::tile, *across = along + A * S::along;
    float *shared = (float *)(across + 2 * S::across);
    along_sums<S> low = {};
    across_sums<S> sum = {};
    parcel<S> in;
    lanes<8> weight = {};
    int64_t first = blockIdx.y * block_rows, last = first + block_rows < p.rows ? first + block_rows : p.rows;
    int64_t c0 = X ? (int64_t)blockIdx.x * columns : 0;
    int wide = X ? 1 : (int)((p.width + columns - 1) / columns); /* tiles beside one another */
    int count = (int)((last - first + S::lines - 1) / S::lines) * wide;
    auto row_of = [&](int i) { return first + (int64_t)(i / wide) * S::lines; };
    auto place_at = [&](int i) { return place_of(p, row_of(i), c0 + (int64_t)(i % wide) * columns); };
    auto fetch = [&](int i) {
        if constexpr (S::queued)
            queue_rows<S>(tiles + i % S::tiles * S::tile, p, place_at(i), i < count);
        else if (i < count)
            fetch_rows<K, S>(in, p, place_at(i));
    };
    for (int i = 0; i < S::ahead; i++) fetch(i);
    if constexpr (X > 0) fetch_factor<X, S>(in, p, first);
    if constexpr (K == PASS_NORM) {
        place at = place_at(0);
        if (at.within) weight = get<8>(p.weight, at.column);
    }
    if constexpr (A > 0 && X > 0) load_along<A, S>(along, p, c0);
    for (int i = 0; i < count; i++) {
        bf16 *tile = tiles + i % S::tiles * S::tile, *factors = across + i % 2 * S::across;
        if (!X) __syncthreads(); /* the tile before is read no more */
        if constexpr (A > 0 && X == 0) load_turned<A, S>(along, p, i % wide * columns);
        if constexpr (X > 0) keep_factor<X, S>(factors, p, in);
        if constexpr (S::queued) {
            copies_wait<S::ahead - 1>();
            keep_queued<S>(tile, p, place_at(i));
        } else {
            keep_rows<K, S>(tile, p, in, place_at(i), weight);
        }
        if constexpr (!S::queued) fetch(i + 1);
        if constexpr (X > 0) fetch_factor<X, S>(in, p, row_of(i + 1));
        __syncthreads();
        if constexpr (S::queued) fetch(i + S::ahead); /* where the tile before was */
        if constexpr (A > 0) multiply_along<X, S>(low, tile, along);
        if constexpr (X > 0) multiply_across<S>(sum, tile, factors);
        if constexpr (A > 0)
            if (i % wide == wide - 1) end_along<S>(low, shared, p, row_of(i));
    }
    if constexpr (X > 0)
        for (int f = 0; f < X; f++)
#pragma unroll
            for (int m = 0; m < 2; m++)
                write_sums(p.across[f], blockIdx.y, c0 + threadIdx.x / 32 * 32 + m * 16, p.width, sum[f][m]);
}

/* Rows of a block: two blocks on each multiprocessor of an H100, whatever the GPU, so that the sums are the
 * same. */
static int64_t rows_of_block(const struct pass *p) {
    int64_t bands = (p->width + columns - 1) / columns, splits = bands < 264 ? 264 / bands : 1;
    int64_t rows = ((p->rows + splits - 1) / splits + 31) / 32 * 32;
    if (!p->acrosses) return p->kind == PASS_ROWS ? 64 : 32;
    return rows > 0 ? rows : 32;
}

int64_t cuda_pass_along_parts(const struct pass *p) {
    return p->acrosses ? (p->width + columns - 1) / columns : 1;
}
int64_t cuda_pass_across_parts(const struct pass *p) {
    int64_t rows = rows_of_block(p);
    return (p->rows + rows - 1) / rows;
}

template <enum pass_kind K, int A, int X> static void launch(const struct pass *p, cudaStream_t stream) {
    int64_t rows = rows_of_block(p);
    dim3 grid((unsigned)cuda_pass_along_parts(p), (unsigned)((p->rows + rows - 1) / rows));
    cudaFuncSetAttribute(pass_over<K, A, X>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         shape<K, A, X>::bytes);
    pass_over<K, A, X><<<grid, threads, shape<K, A, X>::bytes, stream>>>(*p, rows);
}

void cuda_pass(const struct pass *p, cudaStream_t stream) {
    static const struct {
        enum pass_kind kind;
        int alongs, acrosses;
        void (*run)(const struct pass *p, cudaStream_t stream);
    } rows[] = {{PASS_ROWS, 1, 0, launch<PASS_ROWS, 1, 0>},        {PASS_ROWS, 2, 0, launch<PASS_ROWS, 2, 0>},
                {PASS_ROWS, 3, 0, launch<PASS_ROWS, 3, 0>},        {PASS_ROWS, 0, 1, launch<PASS_ROWS, 0, 1>},
                {PASS_ROWS, 0, 2, launch<PASS_ROWS, 0, 2>},        {PASS_ROWS, 0, 3, launch<PASS_ROWS, 0, 3>},
                {PASS_ROWS, 1, 1, launch<PASS_ROWS, 1, 1>},        {PASS_ROWS, 2, 2, launch<PASS_ROWS, 2, 2>},
                {PASS_NORM, 0, 1, launch<PASS_NORM, 0, 1>},        {PASS_NORM, 0, 2, launch<PASS_NORM, 0, 2>},
                {PASS_NORM, 0, 3, launch<PASS_NORM, 0, 3>},        {PASS_GLU, 1, 0, launch<PASS_GLU, 1, 0>},
                {PASS_GLU_GRAD, 2, 3, launch<PASS_GLU_GRAD, 2, 3>}};
    if (!p->rows) return;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].kind == p->kind && rows[i].alongs == p->alongs && rows[i].acrosses == p->acrosses)
            rows[i].run(p, stream);
}

/* ---- parts added up: a thread for four numbers ---- */

struct pass_sum_list {
    struct pass_sum items[pass_most + 1];
};

static __global__ void add_parts(const __grid_constant__ struct pass_sum_list list) {
    const struct pass_sum &s = list.items[blockIdx.y];
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, i = at / (ranks / 4);
    if (i >= s.rows) return;
    const float4 *from = (const float4 *)s.sums + at;
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
    for (int64_t part = 0; part < s.parts; part++) {
        float4 more = from[part * s.rows * (ranks / 4)];
        sum.x += more.x;
        sum.y += more.y;
        sum.z += more.z;
        sum.w += more.w;
    }
    const float four[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int j = 0; j < 4; j++) {
        int r = (int)(at % (ranks / 4)) * 4 + j;
        if (r >= s.rank) return;
        int64_t to = i * s.row + r * s.column;
        put1(s.y, to, s.factor * four[j] + (s.adds ? get1(s.y, to) : 0));
    }
}

void cuda_pass_sums(const struct pass_sum *sums, int count, cudaStream_t stream) {
    struct pass_sum_list list = {};
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        list.items[i] = sums[i];
        if (sums[i].rows > rows) rows = sums[i].rows;
    }
    if (rows)
        add_parts<<<dim3((unsigned)((rows * (ranks / 4) + 255) / 256), (unsigned)count), 256, 0, stream>>>(
            list);
}
