/* Tiles of wide rows and the factors of their products, on their way to shared memory: what pass.cu
 * multiplies.
 */
#ifndef HONE_DEVICE_CUDA_PASS_CUH
#define HONE_DEVICE_CUDA_PASS_CUH

#include "device/cuda/fragments.cuh"

constexpr int threads = 256, warps = threads / 32, columns = 256, chunks = columns / 8, ranks = pass_ranks;
/* Of a factor's rows in shared memory, [c or t, r] or [r, c]: eight of them lie in different banks. */
constexpr int stride = ranks + 8, turned_stride = columns + 8;

template <enum pass_kind K, int A, int X> struct shape {
    static constexpr bool queued = K == PASS_GLU_GRAD; /* tiles come to shared memory by themselves */
    static constexpr int streams = queued ? 3 : 1, inputs = K == PASS_GLU ? 2 : streams;
    static constexpr int along_streams = queued ? 2 : 1;
    static constexpr int along_each = A / along_streams, across_each = X / streams; /* factors of a stream */
    static constexpr int lines = queued ? 16 : K == PASS_ROWS && !X ? 64 : 32;      /* rows of a tile */
    static constexpr int each = lines / warps;                                      /* of a thread */
    static constexpr int words = X && !queued ? 2 : 1;        /* 16 bytes of eight numbers: they may be f32 */
    static constexpr int owners = lines / 16 * along_streams; /* fragments of sums along */
    static constexpr int parts = warps / owners;              /* warps that share one */
    static constexpr int tiles = queued ? 3 : X ? 2 : 1, ahead = queued ? 2 : 1;
    static constexpr int tile = streams * lines * columns;
    static constexpr int along = X ? columns * stride : ranks * turned_stride, across = X * lines * stride;
    static constexpr int shared = (parts - 1) * owners * along_each * 32 * 8; /* floats */
    static constexpr int bytes = (tiles * tile + A * along + 2 * across) * 2 + shared * 4;
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
static __device__ inline place place_of(const struct pass &p, int64_t row, int64_t column) {
    place at = {row + threadIdx.x / 32, column + threadIdx.x % 32 * 8, false};
    at.within = at.column < p.width;
    return at;
}

/* What a thread has on its way to a tile. */
template <class S> struct parcel {
    uint4 rows[S::inputs][S::each][S::words];
    float rstd[S::each];
    uint4 factor[2]; /* eight numbers of a factor across, as they are stored, or bf16 */
};

static __device__ inline uint4 load16(const void *data, int64_t at, bool there) {
    return there ? ((const uint4 *)data)[at] : make_uint4(0, 0, 0, 0);
}

template <enum pass_kind K, class S>
static __device__ inline void fetch_rows(parcel<S> &in, const struct pass &p, const place &at) {
#pragma unroll
    for (int i = 0; i < S::each; i++) {
        int64_t row = at.row + i * warps;
        bool there = at.within && row < p.rows;
        if constexpr (K == PASS_NORM) in.rstd[i] = there ? p.rstd[row] : 0;
#pragma unroll
        for (int k = 0; k < S::inputs; k++) {
            int64_t first = row * p.in[k].stride + at.column;
            if (S::words == 2 && (K == PASS_NORM || p.in[k].type == DTYPE_F32)) {
                in.rows[k][i][0] = load16(p.in[k].data, first / 4, there);
                in.rows[k][i][S::words - 1] = load16(p.in[k].data, first / 4 + 1, there);
            } else {
                in.rows[k][i][0] = load16(p.in[k].data, first / 8, there);
            }
        }
    }
}

static __device__ inline uint4 narrow_words(const uint4 &low, const uint4 &high) {
    return make_uint4(two_bf16(__uint_as_float(low.x), __uint_as_float(low.y)),
                      two_bf16(__uint_as_float(low.z), __uint_as_float(low.w)),
                      two_bf16(__uint_as_float(high.x), __uint_as_float(high.y)),
                      two_bf16(__uint_as_float(high.z), __uint_as_float(high.w)));
}

/* Said so, since the compiler makes four stores of a uint4 that is assigned. */
static __device__ inline void write_row(const struct array &y, int64_t row, int64_t column, const uint4 &x) {
    asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};\n" ::"l"((bf16 *)y.data + row * y.stride + column),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
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

/* What was fetched, to the tile and to memory. weight: of PASS_NORM, of the thread's columns. */
template <enum pass_kind K, class S>
static __device__ inline void keep_rows(bf16 *tile, const struct pass &p, parcel<S> &in, const place &at,
                                        const lanes<8> &weight) {
    int piece = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < S::each; i++) {
        int64_t row = at.row + i * warps;
        bool there = at.within && row < p.rows;
        const uint4 &low = in.rows[0][i][0], &high = in.rows[0][i][S::words - 1];
        uint4 y = low;
        if constexpr (K == PASS_NORM) {
            lanes<8> x = {{__uint_as_float(low.x), __uint_as_float(low.y), __uint_as_float(low.z),
                           __uint_as_float(low.w), __uint_as_float(high.x), __uint_as_float(high.y),
                           __uint_as_float(high.z), __uint_as_float(high.w)}};
            for (int j = 0; j < 8; j++) x.v[j] = x.v[j] * in.rstd[i] * weight.v[j];
            y = narrow(x);
        } else if constexpr (K == PASS_GLU) {
            y = gated<K>(in.rows[0][i][0], in.rows[1][i][0], low);
            if (there) write_row(p.out[0], row, at.column, y);
        } else {
            if (S::words == 2 && p.in[0].type == DTYPE_F32) y = narrow_words(low, high);
            if (there && p.out[0].data) write_row(p.out[0], row, at.column, y);
        }
        *(uint4 *)piece_of(tile, threadIdx.x / 32 + i * warps, piece) = y;
    }
}

/* Of the gradient of GLU: copies to a tile, whose three streams are gate, up and dy at first; each thread
 * makes of its own numbers there what is multiplied. */
template <class S>
static __device__ inline void queue_rows(bf16 *tile, const struct pass &p, const place &at, bool there) {
#pragma unroll
    for (int i = 0; i < S::each; i++) {
        int64_t row = at.row + i * warps;
        bool within = there && at.within && row < p.rows;
#pragma unroll
        for (int k = 0; k < S::inputs; k++)
            copy16(shared_address(piece_of(tile + k * S::lines * columns, threadIdx.x / 32 + i * warps,
                                           threadIdx.x % 32)),
                   (const bf16 *)p.in[k].data + (within ? row * p.in[k].stride + at.column : 0), within);
    }
    copies_commit();
}

template <class S>
static __device__ inline void keep_queued(bf16 *tile, const struct pass &p, const place &at) {
#pragma unroll
    for (int i = 0; i < S::each; i++) {
        uint4 *to[3];
        int64_t row = at.row + i * warps;
        for (int k = 0; k < 3; k++)
            to[k] = (uint4 *)piece_of(tile + k * S::lines * columns, threadIdx.x / 32 + i * warps,
                                      threadIdx.x % 32);
        uint4 gate = *to[0], up = *to[1], y = gated<PASS_GLU_GRAD>(gate, up, *to[2]);
        if (at.within && row < p.rows) {
            write_row(p.out[0], row, at.column, gate);
            write_row(p.out[1], row, at.column, up);
        }
        *to[0] = gate;
        *to[1] = up;
        *to[2] = y;
    }
}

/* ---- factors ---- */

static __device__ inline bool is_aligned(const struct array &a) { return ((uintptr_t)a.data & 15) == 0; }

/* Whole vectors of eight ranks can be read. */
static __device__ inline bool is_packed(const struct pass_factor &f) {
    return f.numbers.data && f.column == 1 && f.rank == ranks && f.numbers.stride % 8 == 0 &&
           is_aligned(f.numbers);
}

/* Eight numbers of row i of a factor, from rank r on; all are asked for before the first is used. */
static __device__ inline uint4 factor_piece(const struct pass_factor &f, int64_t i, int r, bool there) {
    int64_t at = i * f.numbers.stride + r * f.column;
    lanes<8> x;
    there = there && f.numbers.data;
    if (f.numbers.type == DTYPE_F32) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            x.v[j] = there && r + j < f.rank ? ((const float *)f.numbers.data)[at + j * f.column] : 0;
    } else {
        bf16 numbers[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            numbers[j] =
                there && r + j < f.rank ? ((const bf16 *)f.numbers.data)[at + j * f.column] : bf16(0.0f);
#pragma unroll
        for (int j = 0; j < 8; j++) x.v[j] = __bfloat162float(numbers[j]);
    }
    return narrow(x);
}

/* The thread's numbers of the factors across, which are there for a tile of rows. */
template <int X, class S>
static __device__ inline void fetch_factor(parcel<S> &in, const struct pass &p, int64_t row) {
    int line = threadIdx.x % S::lines, r = threadIdx.x / S::lines % 2 * 8, n = threadIdx.x / S::lines / 2;
    if (n >= X) return;
    const struct pass_factor &f = p.across[n];
    bool there = row + line < p.rows;
    int64_t at = (row + line) * f.numbers.stride + r;
    if (!is_packed(f)) {
        in.factor[0] = factor_piece(f, row + line, r, there);
    } else if (f.numbers.type == DTYPE_F32) {
        in.factor[0] = load16(f.numbers.data, at / 4, there);
        in.factor[1] = load16(f.numbers.data, at / 4 + 1, there);
    } else {
        in.factor[0] = load16(f.numbers.data, at / 8, there);
    }
}

template <int X, class S>
static __device__ inline void keep_factor(bf16 *to, const struct pass &p, const parcel<S> &in) {
    int line = threadIdx.x % S::lines, r = threadIdx.x / S::lines % 2 * 8, n = threadIdx.x / S::lines / 2;
    if (n >= X) return;
    const struct pass_factor &f = p.across[n];
    bool wide = is_packed(f) && f.numbers.type == DTYPE_F32;
    *(uint4 *)(to + (n * S::lines + line) * stride + r) =
        wide ? narrow_words(in.factor[0], in.factor[1]) : in.factor[0];
}

/* Factors along, for the columns of a tile: [c, r] where they stay for the block, else [r, c], of which whole
 * vectors can be read where they lie so in memory. */
template <int A, class S>
static __device__ inline void load_along(bf16 *to, const struct pass &p, int64_t column) {
    for (int i = threadIdx.x; i < A * columns * 2; i += threads) {
        int c = i % columns, r = i / columns % 2 * 8, n = i / columns / 2;
        *(uint4 *)(to + n * S::along + c * stride + r) =
            factor_piece(p.along[n], column + c, r, column + c < p.width);
    }
}
template <int A, class S>
static __device__ inline void load_turned(bf16 *to, const struct pass &p, int64_t column) {
    constexpr int lines = threads / (columns / 4), each = ranks / lines; /* ranks at once */
    int c = threadIdx.x % (columns / 4) * 4, line = threadIdx.x / (columns / 4);
    float4 numbers[A][each];
#pragma unroll
    for (int n = 0; n < A; n++) {
        const struct pass_factor &f = p.along[n];
        bool whole = f.numbers.type == DTYPE_F32 && f.numbers.stride == 1 && f.column % 4 == 0 &&
                     is_aligned(f.numbers);
#pragma unroll
        for (int i = 0; i < each; i++) {
            int r = line + i * lines;
            bool there = r < f.rank && column + c < p.width;
            float4 &x = numbers[n][i];
            x = make_float4(0, 0, 0, 0);
            if (there && whole) {
                x = ((const float4 *)f.numbers.data)[(r * f.column + column + c) / 4];
            } else if (there) {
                int64_t at = r * f.column + (column + c) * f.numbers.stride;
                x = make_float4(get1(f.numbers, at), get1(f.numbers, at + f.numbers.stride),
                                get1(f.numbers, at + 2 * f.numbers.stride),
                                get1(f.numbers, at + 3 * f.numbers.stride));
            }
        }
    }
#pragma unroll
    for (int n = 0; n < A; n++)
#pragma unroll
        for (int i = 0; i < each; i++)
            *(uint2 *)(to + n * S::along + (line + i * lines) * turned_stride + c) = make_uint2(
                two_bf16(numbers[n][i].x, numbers[n][i].y), two_bf16(numbers[n][i].z, numbers[n][i].w));
}

/* 16 rows of a factor, which are summed over. */
static __device__ inline void factor_of(uint32_t (&b)[4], const bf16 *factor, int row) {
    int lane = threadIdx.x % 32;
    load_transposed(b, factor + (row + lane % 16) * stride + lane / 16 * 8);
}

/* 16 columns of one that lies [r, c]. */
static __device__ inline void turned_of(uint32_t (&b)[4], const bf16 *factor, int column) {
    int lane = threadIdx.x % 32;
    load_matrices(b, factor + (lane % 8 + lane / 16 * 8) * turned_stride + column + lane / 8 % 2 * 8);
}

#endif
