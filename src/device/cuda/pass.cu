/* Adapters' products, which have one wide side and one of rank 16 or so, take as long as reading the wide
 * rows v. Here a tile of v is put into shared memory once, made from what it is a function of where it is
 * cheap, and all products that need it are made from there:
 *
 *   along the rows   sums[t, r] = Σ_c v[t, c] f[c, r]      x Aᵀ, dy B
 *   across them      sums[c, r] = Σ_t v[t, c] f[t, r]      dA = dlowᵀ x, dB = dyᵀ low
 *
 * A block has 256 columns and a range of rows, in tiles of 32, where something is summed across; else 64 rows
 * and all columns. What other blocks sum of the same number is added up by a kernel of its own, in the order
 * of the parts, whose number follows from the shape. */
#include "device/cuda/fragments.cuh"

enum { threads = 256, warps = threads / 32, columns = 256, chunks = columns / 8, ranks = pass_ranks };
enum { stride = ranks + 8 }; /* of a factor's rows in shared memory: eight of them lie in different banks */
enum { each = 4 };           /* rows of a thread that are on their way at once */

/* Sums that leave registers for fewer blocks. */
static constexpr bool is_large(enum pass_kind kind, int alongs, int acrosses) {
    return kind == PASS_GLU_GRAD || alongs + acrosses + (kind == PASS_NORM) > 2;
}

template <enum pass_kind K, int A, int X> struct shape {
    static constexpr int streams = K == PASS_GLU_GRAD ? 3 : 1, inputs = K == PASS_GLU ? 2 : streams;
    static constexpr int along_streams = K == PASS_GLU_GRAD ? 2 : 1;
    static constexpr int along_each = A / along_streams, across_each = X / streams; /* factors of a stream */
    static constexpr int lines = X ? 32 : 64;                                       /* rows of a tile */
    static constexpr int owners = lines / 16 * along_streams; /* fragments of sums along */
    static constexpr int parts = warps / owners;              /* warps that share one */
    static constexpr int tile = streams * lines * columns, along = A * columns * stride,
                         across = X * lines * stride;
    static constexpr int shared = (parts - 1) * owners * along_each * 32 * 8; /* floats */
    static constexpr int bytes = (tile + along + across) * 2 + shared * 4;
    static constexpr int blocks = is_large(K, A, X) ? 2 : 3; /* of a multiprocessor */
};

/* ---- tiles: row i has its 16-byte pieces at other places than its neighbours, so that pieces of eight rows
 * lie in different banks ---- */

static __device__ inline bf16 *piece_of(bf16 *tile, int line, int piece) {
    return tile + (line * chunks + (piece ^ (line & 7))) * 8;
}

static __device__ inline lanes<8> widen(const uint4 &bits) {
    lanes<8> out;
    const uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int i = 0; i < 4; i++) {
        out.v[2 * i] = __uint_as_float(word[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
    return out;
}

static __device__ inline uint4 narrow(const lanes<8> &x) {
    return make_uint4(two_bf16(x.v[0], x.v[1]), two_bf16(x.v[2], x.v[3]), two_bf16(x.v[4], x.v[5]),
                      two_bf16(x.v[6], x.v[7]));
}

/* Where a thread's numbers of a tile lie: rows `warp` + 8 i, eight columns. */
struct place {
    int64_t row, column;
    bool within; /* the width */
};

/* `each` rows of an input, from the `first` of the thread's rows on. */
template <enum pass_kind K>
static __device__ inline void read_rows(uint4 (&out)[each], const struct pass &p, int input, const place &at,
                                        int first) {
    const struct array &x = p.in[input];
    int64_t rows = p.rows;
    if (K == PASS_NORM || (K == PASS_ROWS && x.type == DTYPE_F32)) {
        float4 half[each][2];
#pragma unroll
        for (int i = 0; i < each; i++) {
            int64_t row = at.row + (first + i) * warps;
            const float4 *from = (const float4 *)((const float *)x.data + row * x.stride + at.column);
            bool there = at.within && row < rows;
            half[i][0] = there ? from[0] : make_float4(0, 0, 0, 0);
            half[i][1] = there ? from[1] : make_float4(0, 0, 0, 0);
        }
        if constexpr (K == PASS_NORM) {
            lanes<8> w = {};
            if (at.within) w = get<8>(p.weight, at.column);
#pragma unroll
            for (int i = 0; i < each; i++) {
                int64_t row = at.row + (first + i) * warps;
                float r = row < rows ? p.rstd[row] : 0, *v = &half[i][0].x;
#pragma unroll
                for (int j = 0; j < 8; j++) v[j] = v[j] * r * w.v[j];
            }
        }
#pragma unroll
        for (int i = 0; i < each; i++)
            out[i] = make_uint4(two_bf16(half[i][0].x, half[i][0].y), two_bf16(half[i][0].z, half[i][0].w),
                                two_bf16(half[i][1].x, half[i][1].y), two_bf16(half[i][1].z, half[i][1].w));
    } else {
#pragma unroll
        for (int i = 0; i < each; i++) {
            int64_t row = at.row + (first + i) * warps;
            const uint4 *from = (const uint4 *)((const bf16 *)x.data + row * x.stride + at.column);
            out[i] = at.within && row < rows ? *from : make_uint4(0, 0, 0, 0);
        }
    }
}

static __device__ inline void write_row(const struct array &y, int64_t row, int64_t column, const uint4 &x) {
    *(uint4 *)((bf16 *)y.data + row * y.stride + column) = x;
}

static __device__ inline float sigmoid_of(float x) { return __fdividef(1, 1 + exp2_of(-1.44269504f * x)); }

/* silu(gate) · up; with GLU_GRAD gate and up become their gradients. */
template <enum pass_kind K> static __device__ inline uint4 gated(uint4 &gate, uint4 &up, const uint4 &dy) {
    lanes<8> g = widen(gate), u = widen(up), d = widen(dy), y;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float sigmoid = sigmoid_of(g.v[j]), silu = g.v[j] * sigmoid;
        y.v[j] = silu * u.v[j];
        if constexpr (K == PASS_GLU_GRAD) {
            g.v[j] = d.v[j] * u.v[j] * sigmoid * (1 + g.v[j] * (1 - sigmoid));
            u.v[j] = d.v[j] * silu;
        }
    }
    if constexpr (K == PASS_GLU_GRAD) {
        gate = narrow(g);
        up = narrow(u);
    }
    return narrow(y);
}

/* What was read, to the tile and to memory. */
template <enum pass_kind K, class S>
static __device__ inline void keep_rows(bf16 *tile, const struct pass &p, uint4 (&in)[S::inputs][each],
                                        const place &at, int first) {
    int piece = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < each; i++) {
        int line = threadIdx.x / 32 + (first + i) * warps;
        int64_t row = at.row + (first + i) * warps;
        bool there = at.within && row < p.rows;
        if constexpr (K == PASS_ROWS || K == PASS_NORM) {
            if (K == PASS_ROWS && there && p.out[0].data) write_row(p.out[0], row, at.column, in[0][i]);
            *(uint4 *)piece_of(tile, line, piece) = in[0][i];
        } else if constexpr (K == PASS_GLU) {
            uint4 y = gated<K>(in[0][i], in[1][i], in[0][i]);
            if (there) write_row(p.out[0], row, at.column, y);
            *(uint4 *)piece_of(tile, line, piece) = y;
        } else {
            uint4 y = gated<K>(in[0][i], in[1][i], in[2][i]);
            if (there) {
                write_row(p.out[0], row, at.column, in[0][i]);
                write_row(p.out[1], row, at.column, in[1][i]);
            }
            *(uint4 *)piece_of(tile, line, piece) = in[0][i];
            *(uint4 *)piece_of(tile + S::lines * columns, line, piece) = in[1][i];
            *(uint4 *)piece_of(tile + 2 * S::lines * columns, line, piece) = y;
        }
    }
}

/* ---- factors ---- */

/* Eight numbers of row i of a factor, from rank r on. */
static __device__ inline uint4 factor_piece(const struct pass_factor &f, int64_t i, int r, bool there) {
    int64_t at = i * f.numbers.stride + r * f.column;
    there = there && f.numbers.data;
    lanes<8> x;
    if (f.numbers.type == DTYPE_F32) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            x.v[j] = there && r + j < f.rank ? ((const float *)f.numbers.data)[at + j * f.column] : 0;
        return narrow(x);
    }
    bf16 raw[8];
#pragma unroll
    for (int j = 0; j < 8; j++)
        raw[j] = there && r + j < f.rank ? ((const bf16 *)f.numbers.data)[at + j * f.column] : bf16(0.0f);
#pragma unroll
    for (int j = 0; j < 8; j++) x.v[j] = __bfloat162float(raw[j]);
    return narrow(x);
}

/* `lines` rows of N factors from `first` on, of which there are `most`. */
template <int N, int lines>
static __device__ inline void load_factors(bf16 *to, const struct pass_factor (&factors)[pass_most],
                                           int64_t first, int64_t most) {
    for (int i = threadIdx.x; i < N * lines * 2; i += threads) {
        int line = i % lines, r = i / lines % 2 * 8, n = i / lines / 2;
        *(uint4 *)(to + (n * lines + line) * stride + r) =
            factor_piece(factors[n], first + line, r, first + line < most);
    }
}

/* 16 rows of a factor, which are summed over. */
static __device__ inline void factor_of(uint32_t (&b)[4], const bf16 *factor, int row) {
    int lane = threadIdx.x % 32;
    load_transposed(b, factor + (row + lane % 16) * stride + lane / 16 * 8);
}

/* ---- the products of a tile ---- */

template <class S> using along_sums = float[S::along_each ? S::along_each : 1][2][4];
template <class S> using across_sums = float[S::across_each ? S::streams * S::across_each : 1][2][2][4];

/* 16 rows, and of the columns the warp's share. */
template <class S>
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
            factor_of(b, factors + (stream * S::along_each + e) * columns * stride, k * 16);
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
static __global__ void __launch_bounds__(threads, (shape<K, A, X>::blocks))
    pass_over(const __grid_constant__ struct pass p, int64_t block_rows) {
    using S = shape<K, A, X>;
    extern __shared__ __align__(16) unsigned char memory[];
    bf16 *tile = (bf16 *)memory, *along = tile + S::tile, *across = along + S::along;
    float *shared = (float *)(across + S::across);
    along_sums<S> low = {};
    across_sums<S> sum = {};
    int64_t first = blockIdx.y * block_rows, last = first + block_rows < p.rows ? first + block_rows : p.rows;
    int64_t c0 = X ? (int64_t)blockIdx.x * columns : 0, end = X ? c0 + 1 : p.width;
    uint4 in[S::inputs][each];
    for (int64_t row = first; row < last; row += S::lines)
        for (int64_t column = c0; column < end; column += columns) {
            place at = {row + threadIdx.x / 32, column + threadIdx.x % 32 * 8, false};
            at.within = at.column < p.width;
#pragma unroll
            for (int i = 0; i < S::inputs; i++) read_rows<K>(in[i], p, i, at, 0);
            __syncthreads(); /* the tile before may still be read */
            if (A && (!X || row == first)) load_factors<A, columns>(along, p.along, column, p.width);
            if (X) load_factors<X, S::lines>(across, p.across, row, p.rows);
#pragma unroll
            for (int line = 0; line < S::lines / warps; line += each) {
                if (line)
#pragma unroll
                    for (int i = 0; i < S::inputs; i++) read_rows<K>(in[i], p, i, at, line);
                keep_rows<K, S>(tile, p, in, at, line);
            }
            __syncthreads();
            if constexpr (A > 0) multiply_along<S>(low, tile, along);
            if constexpr (X > 0) multiply_across<S>(sum, tile, across);
            if constexpr (A > 0)
                if (column + columns >= end) end_along<S>(low, shared, p, row);
        }
    if constexpr (X > 0)
        for (int f = 0; f < X; f++)
#pragma unroll
            for (int m = 0; m < 2; m++)
                write_sums(p.across[f], blockIdx.y, c0 + threadIdx.x / 32 * 32 + m * 16, p.width, sum[f][m]);
}

/* As many blocks as an H100 has room for at once, whatever the GPU, so that the sums are the same. */
static int64_t rows_of_block(const struct pass *p) {
    if (!p->acrosses) return 64;
    int64_t blocks = is_large(p->kind, p->alongs, p->acrosses) ? 256 : 384;
    int64_t bands = (p->width + columns - 1) / columns, splits = blocks > bands ? blocks / bands : 1;
    int64_t rows = ((p->rows + splits - 1) / splits + 31) / 32 * 32;
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
