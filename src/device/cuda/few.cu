/* Products of few rows, as decoding makes them, whose time is that of reading the weight: it is read once, as
 * it is stored, and what stands beside the product in a layer is done on the way. More than eight rows of x
 * are pieces, whose blocks read a tile of the weight at the same time: once from memory, then from the cache.
 *
 * With operands in bf16 or f16 the weight's rows are the left operand of mma.m16n8k16, and the eight
 * rows of x the columns of the right one. A block takes tiles of 8 or 16 rows of w in turn; its warps share a
 * tile's columns, each with some of them on their way to shared memory while it multiplies others
 * (few_read.cuh). The first of w are asked for before the kernel that makes x has ended. Fragments pair
 * columns in the order in which they lie, for w and x alike, since a sum has no order but the one that is
 * fixed here.
 *
 *   x lies in shared memory in the type of products: x, or x · norm, whose root mean square is divided by at
 *   the end. Of two weights that are gate and up, a tile has eight rows each, and yields silu(gate) · up.
 *
 * In f32, and where rows are no whole vectors, a warp makes one output. */
#include "device/cuda/few_read.cuh"

constexpr int warps = 8, threads = 32 * warps, tile = 16, most = cuda_few_rows, blocks_each = 2;
constexpr size_t pipeline_bytes = 74 << 10, x_bytes = 32 << 10, fixed_bytes = 9 << 10;

/* What a launch is given beside the product. */
struct few_launch {
    struct few_product f;
    struct weight_view w[few_most];
    int64_t row_bytes; /* of w */
    int width, tiles;
    int tiles_of[few_most]; /* of each weight */
    int turns;              /* of all warps over a tile's columns … */
    int chunk;              /* … of which x has room for so many */
    int halves;             /* a tile has 8 or 16 rows */
    int pieces;             /* of at most `most` rows of x: blocks of the same tile are neighbours */
    int group, groups;      /* log 2 of how many numbers a scale that lies apart serves; how many a row has */
    int part_bytes[2];      /* of a scale, of an offset */
};

/* ---- where a tile lies ---- */

/* Row r of a tile, of 8 or 16 rows of a weight, or eight of both: which one of which; past the last, that
 * one. */
struct tile_row {
    int part, row;
};
static __device__ inline tile_row row_of(const few_launch &l, int tile_index, int r) {
    if (l.f.gated.data) return {r / (tile / 2), tile_index * (tile / 2) + r % (tile / 2)};
    int part = 0;
    for (; part < few_most - 1 && tile_index >= l.tiles_of[part]; part++) tile_index -= l.tiles_of[part];
    return {part, min(tile_index * l.halves * (tile / 2) + r, (int)l.f.part[part].thin.columns - 1)};
}

/* Where a row begins in the matrix, and among its scales or offsets. */
static __device__ inline const uint8_t *codes_at(const few_launch &l, tile_row r) {
    return (const uint8_t *)l.w[r.part].matrix.codes.data + r.row * l.row_bytes;
}
static __device__ inline const uint8_t *part_at(const few_launch &l, tile_row r, int part) {
    return (const uint8_t *)l.w[r.part].matrix.part[part ? PART_OFFSETS : PART_SCALES].data +
           (int64_t)r.row * l.groups * l.part_bytes[part];
}
/* Bytes from there to the scale of column k. */
static __device__ inline int part_offset(const few_launch &l, int k, int part) {
    return (k >> l.group) * l.part_bytes[part];
}

/* A block's way through its tiles, column by column of the warp, from slot to slot of its shared memory. */
template <class S> struct walk {
    int tile_index, turn, slot;
    __device__ bool is_in(const few_launch &l) const { return tile_index < l.tiles; }
    __device__ int unit() const { return turn * warps + (int)threadIdx.x / 32; }
    __device__ int column() const { return unit() * S::columns; }
    /* True when the next tile begins. */
    __device__ bool go_on(const few_launch &l, int stages) {
        slot = slot + 1 == stages ? 0 : slot + 1;
        if (++turn < l.turns) return false;
        turn = 0;
        tile_index += (int)gridDim.x / l.pieces;
        return is_in(l);
    }
};

/* ---- a warp's columns in shared memory ---- */

template <class S> struct room {
    /* Rows of 16 bytes times an odd number: eight of them lie in different banks. */
    static constexpr bool aligned = S::unit % 16 == 0; /* each row begins at a multiple of 16 bytes */
    static constexpr int pieces = (S::bytes + (aligned ? 0 : 30)) / 16, pitch = (pieces | 1) * 16,
                         part_pitch = S::columns / 8 + 4, parts = S::apart * part_pitch,
                         bytes = tile * ((S::bytes ? pitch : 0) + parts),
                         fit = S::bytes ? (int)pipeline_bytes / (warps * bytes) : 2,
                         stages = fit < 2   ? 2
                                  : fit > 4 ? 4
                                            : fit;
};

static __device__ inline void copy4(unsigned to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(to), "l"(from));
}

/* Copies tiles to the warp's shared memory: a lane has parts of rows lane / 4 and lane / 4 + 8, and where
 * there are some, the scales or offsets of row lane % 16. */
template <class S> struct copier {
    using R = room<S>;
    walk<S> at;
    unsigned to; /* the warp's shared memory */
    const uint8_t *codes[2], *part;

    __device__ void begin_tile(const few_launch &l) {
        int lane = threadIdx.x % 32;
        for (int h = 0; h < 2; h++) codes[h] = codes_at(l, row_of(l, at.tile_index, lane / 4 + 8 * h));
        if (S::apart > 0 && lane < tile * S::apart)
            part = part_at(l, row_of(l, at.tile_index, lane % tile), lane / tile);
    }
    /* Whole pieces of 16 bytes, of which the first and the last may have bytes of the neighbours. */
    __device__ void copy_codes(const few_launch &l, int columns) const {
        int lane = threadIdx.x % 32, bytes = columns * S::bytes / S::columns, first = lane % 4 * 16;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (h >= l.halves) break;
            const uint8_t *from = codes[h] + at.unit() * S::bytes;
            int skew = R::aligned ? 0 : (int)((uintptr_t)from & 15);
            unsigned there = to + at.slot * R::bytes + (lane / 4 + 8 * h) * R::pitch + first;
            from += first - skew;
#pragma unroll
            for (int b = 0; b < R::pieces * 16; b += 64)
                if (b + first < skew + bytes) copy16(there + b, from + b, true);
        }
    }
    __device__ void copy_parts(const few_launch &l, int columns) const {
        int lane = threadIdx.x % 32, which = lane / tile, k = at.column();
        if (which >= S::apart) return;
        const uint8_t *from = part + part_offset(l, k, which);
        int skew = (int)((uintptr_t)from & 3),
            bytes = skew + part_offset(l, columns - 1, which) + l.part_bytes[which];
        unsigned there = to + at.slot * R::bytes + tile * R::pitch + lane * R::part_pitch;
        for (int b = 0; b < bytes; b += 4) copy4(there + b, from - skew + b);
    }
    __device__ void step(const few_launch &l) {
        if constexpr (S::bytes > 0) {
            int columns = min(S::columns, l.width - at.column());
            if (at.is_in(l) && columns > 0) {
                copy_codes(l, columns);
                if constexpr (S::apart > 0) copy_parts(l, columns);
            }
        }
        copies_commit();
        if (at.go_on(l, R::stages)) begin_tile(l);
    }
};

/* ---- x ---- */

static __device__ inline float fresh1(const struct array &x, int64_t at) {
    if (x.type == DTYPE_F32) return __ldcg((const float *)x.data + at);
    unsigned short bits = __ldcg((const unsigned short *)x.data + at);
    return x.type == DTYPE_BF16 ? __uint_as_float((unsigned)bits << 16)
                                : __half2float(__ushort_as_half(bits));
}

/* The block's rows of x: the first, and how many. */
struct x_rows {
    int first, count;
};
static __device__ inline x_rows rows_of(const few_launch &l) {
    int first = (int)blockIdx.x % l.pieces * most;
    return {first, min(most, (int)l.f.part[0].thin.rows - first)};
}

/* Columns of x at a time, and numbers from a row of them to the next: another bank. */
template <class S> static __device__ inline int chunk_columns(const few_launch &l) {
    return l.chunk * warps * S::columns;
}
template <class S> static __device__ inline int x_pitch(const few_launch &l) {
    return chunk_columns<S>(l) + 8;
}

/* Puts columns [first, …) of x into shared memory, zeros past the end; squares[m][warp] of what is
 * normalised. A few vectors are on their way at a time. */
template <class T, class S>
static __device__ inline void load_x(const few_launch &l, int first, number16 *to, const float *norm,
                                     float (*squares)[warps]) {
    constexpr int vectors = 4, step = threads * 8;
    const struct few_product &f = l.f;
    int columns = chunk_columns<S>(l), pitch = x_pitch<S>(l);
    x_rows rows = rows_of(l);
    for (int m = 0; m < rows.count; m++) {
        int64_t row = (rows.first + m) * f.x.stride + first;
        float square = 0;
        for (int i0 = threadIdx.x * 8; i0 < columns; i0 += vectors * step) {
            eight_bits bits[vectors] = {};
#pragma unroll
            for (int v = 0; v < vectors; v++)
                if (i0 + v * step < columns && first + i0 + v * step < l.width)
                    bits[v] = bits_of(f.x, row + i0 + v * step);
#pragma unroll
            for (int v = 0; v < vectors; v++) {
                int i = i0 + v * step;
                if (i >= columns) break;
                lanes<8> x = numbers_of(f.x, bits[v]);
                if (f.norm.data && first + i < l.width) {
                    lanes<8> w = *(const lanes<8> *)(norm + first + i);
                    for (int j = 0; j < 8; j++) {
                        square = fmaf(x.v[j], x.v[j], square);
                        x.v[j] *= w.v[j];
                    }
                }
                *(uint4 *)(to + m * pitch + i) = rounded<T>(x);
            }
        }
        if (!f.norm.data) continue;
        square = warp_sum(square);
        if (threadIdx.x % 32 == 0) squares[m][threadIdx.x / 32] = square;
    }
}

/* The norm's weight, to where load_x reads it: each thread has the same columns there. */
static __device__ inline void load_norm(const few_launch &l, float *to) {
    for (int i = threadIdx.x * 8; l.f.norm.data && i < l.width; i += threads * 8)
        *(lanes<8> *)(to + i) = get<8>(l.f.norm, i);
}

/* ---- results ---- */

typedef float tile_sums[warps][tile * most];

/* Element (r, m) of a tile, from the warps' sums. */
static __device__ inline float whole_sum(const tile_sums &sums, int r, int m) {
    float y = 0;
    for (int w = 0; w < warps; w++) y += sums[w][r * most + m];
    return y;
}

/* 1 / the root mean square of a row of x; 1 where it is not normalised. */
static __device__ inline float norm_factor(const struct few_product &f, const float (*squares)[warps],
                                           int m) {
    float sum = 0;
    if (!f.norm.data) return 1;
    for (int w = 0; w < warps; w++) sum += squares[m][w];
    return 1 / sqrtf(sum / (float)f.width + f.epsilon);
}

/* What the product is added to. */
static __device__ inline float added(const struct thin &t, int64_t m, int64_t n) {
    float low = 0, y = 0;
    for (int64_t r = 0; t.low.data && r < t.rank; r++)
        low = fmaf(get1(t.low, m * t.low.stride + r), get1(t.up, r * t.along + n * t.across), low);
    if (t.addend.data) y = fresh1(t.addend, m * t.addend.stride + n);
    if (t.bias.data) y += get1(t.bias, n);
    return y + t.beta * low;
}

template <class T> static __device__ inline float rounded_one(float x) {
    return is_bf16<T> ? __bfloat162float(__float2bfloat16(x)) : __half2float(__float2half_rn(x));
}

/* The results of a tile: a thread for each of 16 · 8, or of 8 · 8 with both gate and up. */
struct own_result {
    int part, row, m; /* part -1: none */
    float beside[2];  /* what is added to it, to up */

    __device__ void begin_tile(const few_launch &l, int tile_index) {
        bool gated = l.f.gated.data != NULL;
        int r = threadIdx.x / most;
        m = rows_of(l).first + (int)threadIdx.x % most;
        part = -1;
        if (r >= (gated ? tile / 2 : l.halves * (tile / 2)) || m >= l.f.part[0].thin.rows) return;
        tile_row at = row_of(l, tile_index, r);
        /* Past a weight's last row, rows are that one again. */
        if (r > 0 && !gated && row_of(l, tile_index, r - 1).row == at.row) return;
        part = at.part;
        row = at.row;
    }
    __device__ void add(const few_launch &l) {
        if (part < 0) return;
        beside[0] = added(l.f.part[part].thin, m, row);
        if (l.f.gated.data) beside[1] = added(l.f.part[1].thin, m, row);
    }
    template <class T>
    __device__ void finish(const few_launch &l, const tile_sums &sums, const float (*squares)[warps]) const {
        const struct few_product &f = l.f;
        if (part < 0) return;
        int r = threadIdx.x / most, own = threadIdx.x % most;
        float factor = f.alpha * norm_factor(f, squares, own),
              y = fmaf(factor, whole_sum(sums, r, own), beside[0]);
        if (!f.gated.data) {
            const struct array &to = f.part[part].thin.y;
            put1(to, m * to.stride + row, y);
            return;
        }
        float up = fmaf(factor, whole_sum(sums, r + tile / 2, own), beside[1]);
        put1(f.gated, m * f.gated.stride + row, glu_of(rounded_one<T>(y), rounded_one<T>(up)));
    }
};

/* ---- the kernel ---- */

template <class T> static __device__ inline void multiply_eight(float (&sum)[4], uint4 a, uint4 b, uint4 x) {
    multiply<T>(sum, {a.x, b.x, a.y, b.y}, x.x, x.y);
    multiply<T>(sum, {a.z, b.z, a.w, b.w}, x.z, x.w);
}

/* Reads a warp's columns: a lane has rows lane / 4 and lane / 4 + 8. */
template <class T, class S> struct reader {
    using R = room<S>;
    walk<S> at;
    const uint8_t *from; /* the warp's shared memory */
    const float *levels;
    float sum[4];
    tile_row rows[2];
    unsigned codes[2], parts[2][2]; /* the low bits of where they lie in the matrix */

    __device__ void begin_tile(const few_launch &l) {
        for (int i = 0; i < 4; i++) sum[i] = 0;
        for (int h = 0; h < 2; h++) {
            rows[h] = row_of(l, at.tile_index, threadIdx.x % 32 / 4 + 8 * h);
            codes[h] = (unsigned)(uintptr_t)codes_at(l, rows[h]);
            for (int p = 0; p < S::apart; p++) parts[h][p] = (unsigned)(uintptr_t)part_at(l, rows[h], p);
        }
    }
    __device__ stored_columns columns_of(const few_launch &l, int h) const {
        int r = threadIdx.x % 32 / 4 + 8 * h, k = at.column();
        stored_columns out = {.levels = levels, .w = &l.w[rows[h].part], .row = rows[h].row, .first = k};
        const uint8_t *slot = from + at.slot * R::bytes, *part = slot + tile * R::pitch + r * R::part_pitch;
        if (S::bytes)
            out.codes = slot + r * R::pitch + (R::aligned ? 0 : (codes[h] + at.unit() * S::bytes) & 15);
        if (S::apart > 0) out.scales = part + ((parts[h][0] + part_offset(l, k, 0)) & 3);
        if (S::apart > 1)
            out.offsets = part + tile * R::part_pitch + ((parts[h][1] + part_offset(l, k, 1)) & 3);
        return out;
    }
    /* sum += the warp's columns times x, whose row of this lane is at `x`, or absent. */
    __device__ void multiply_columns(const few_launch &l, const number16 *x) {
        constexpr int eights = S::run / 8;
        int columns = min(S::columns, l.width - at.column());
        stored_columns low = columns_of(l, 0), high = columns_of(l, 1);
#pragma unroll 1
        for (int i0 = 0; i0 < columns; i0 += 4 * S::run) {
            int i = i0 + threadIdx.x % 4 * S::run;
            uint4 a[eights] = {}, b[eights] = {};
            if (i < columns) {
                S::take(a, low, i);
                if (l.halves > 1) S::take(b, high, i);
            }
#pragma unroll
            for (int e = 0; e < eights; e++) {
                uint4 c = x ? *(const uint4 *)(x + i + 8 * e) : make_uint4(0, 0, 0, 0);
                multiply_eight<T>(sum, a[e], b[e], c);
            }
        }
    }
    __device__ void give(float (&to)[tile * most]) const {
        float2 *pair = (float2 *)&to[threadIdx.x % 32 * 2];
        pair[0] = make_float2(sum[0], sum[1]);
        pair[tile * most / 4] = make_float2(sum[2], sum[3]);
    }
};

template <class T, class S>
static __global__ void __launch_bounds__(threads, 2) few_tiles(const __grid_constant__ struct few_launch l) {
    using R = room<S>;
    extern __shared__ uint4 few_shared[];
    __shared__ float levels[16], squares[most][warps];
    __shared__ tile_sums sums[2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, which = 0, loaded = 0;
    uint8_t *mine = (uint8_t *)few_shared + warp * R::stages * R::bytes;
    number16 *x = (number16 *)((uint8_t *)few_shared + warps * R::stages * R::bytes);
    float *norm = (float *)(x + rows_of(l).count * x_pitch<S>(l));
    const number16 *row_x = lane / 4 < rows_of(l).count ? x + lane / 4 * x_pitch<S>(l) : NULL;
    walk<S> begin = {(int)blockIdx.x / l.pieces, 0, 0};
    copier<S> copies = {.at = begin, .to = shared_address(mine)};
    reader<T, S> read = {.at = begin, .from = mine, .levels = levels};
    own_result own;
    copies.begin_tile(l);
#pragma unroll 1
    for (int i = 0; i < R::stages - 1; i++) copies.step(l);
    load_norm(l, norm);
    load_levels(levels, l.w[0]);
    bool beside = l.f.start == FEW_BESIDE;
    if (!beside) await_earlier();
    let_next_begin();
#pragma unroll 1
    while (read.at.is_in(l)) {
        if (!read.at.turn) {
            read.begin_tile(l);
            own.begin_tile(l, read.at.tile_index);
            if (!beside) own.add(l);
        }
        int turn = read.at.turn % l.chunk;
        if (!turn && (!loaded || l.turns > l.chunk)) {
            __syncthreads(); /* what was there is read */
            load_x<T, S>(l, read.at.turn * warps * S::columns, x, norm, squares);
            __syncthreads();
            loaded = 1;
        }
        copies_wait<R::stages - 2>();
        __syncwarp();
        copies.step(l);
        if (read.at.column() < l.width)
            read.multiply_columns(l, row_x ? row_x + (turn * warps + warp) * S::columns : NULL);
        if (read.at.turn + 1 == l.turns) {
            read.give(sums[which][warp]);
            if (beside) await_earlier();
            __syncthreads();
            if (beside) own.add(l);
            own.finish<T>(l, sums[which], squares);
            which ^= 1;
        }
        read.at.go_on(l, R::stages);
    }
}

/* ---- a warp for each output ---- */

/* N numbers a lane at a time; up to M rows of x. */
template <int N, int M>
static __global__ void __launch_bounds__(threads)
    warp_rows(const __grid_constant__ struct thin t, struct array x,
              const __grid_constant__ struct weight_view w, float alpha) {
    __shared__ float levels[16];
    int lane = threadIdx.x % 32, rows = (int)t.rows;
    int64_t n = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    float sum[M] = {}, low[M] = {};
    load_levels(levels, w);
    if (n >= t.columns) return;
#pragma unroll 4
    for (int64_t i = lane * N; i < w.width; i += 32 * N) {
        lanes<N> b = numbers_at<N>(w, levels, n, i);
        for (int m = 0; m < M; m++) {
            if (m >= rows) break;
            lanes<N> a = get<N>(x, m * x.stride + i);
            for (int j = 0; j < N; j++) sum[m] = fmaf(a.v[j], b.v[j], sum[m]);
        }
    }
    for (int64_t r = lane; t.low.data && r < t.rank; r += 32)
        for (int m = 0; m < M && m < rows; m++)
            low[m] = fmaf(get1(t.low, m * t.low.stride + r), get1(t.up, r * t.along + n * t.across), low[m]);
    for (int m = 0; m < M; m++) {
        if (m >= rows) break;
        float y = alpha * warp_sum(sum[m]) + t.beta * warp_sum(low[m]);
        if (t.bias.data) y += get1(t.bias, n);
        if (t.addend.data) y += get1(t.addend, m * t.addend.stride + n);
        __syncwarp(); /* y may lie on the addend */
        if (!lane) put1(t.y, m * t.y.stride + n, y);
    }
}

/* ---- launches ---- */

template <int N> static void launch_rows(const struct few_product *f, cudaStream_t stream) {
    for (int p = 0; p < f->parts; p++) {
        const struct thin *t = &f->part[p].thin;
        unsigned blocks = (unsigned)((t->columns + warps - 1) / warps);
        auto kernel = t->rows == 1 ? warp_rows<N, 1> : t->rows <= 4 ? warp_rows<N, 4> : warp_rows<N, 8>;
        kernel<<<blocks, threads, 0, stream>>>(*t, f->x, weight_view_of(&f->part[p].w, f->width), f->alpha);
    }
}

struct tiles_kernel {
    void (*run)(struct few_launch);
    int columns;   /* of a warp at a time */
    size_t shared; /* bytes of shared memory without x */
};
template <class T, class S> static constexpr struct tiles_kernel kernel_row() {
    return {few_tiles<T, S>, S::columns, (size_t)warps * room<S>::stages * room<S>::bytes};
}

template <class T> static struct tiles_kernel kernel_of_affine(int bits) {
    switch (bits) {
    case 2: return kernel_row<T, in_affine<T, 2>>();
    case 3: return kernel_row<T, in_affine<T, 3>>();
    case 4: return kernel_row<T, in_affine<T, 4>>();
    case 5: return kernel_row<T, in_affine<T, 5>>();
    case 6: return kernel_row<T, in_affine<T, 6>>();
    default: return kernel_row<T, in_affine<T, 8>>();
    }
}

/* Widths that are no multiple of what the reader of a type takes at a time have the one of any type. */
template <class T> static struct tiles_kernel kernel_of(const struct matrix &m, int64_t width) {
    struct tiles_kernel any = kernel_row<T, in_any<T>>();
    if (m.form == FORM_AFFINE) return kernel_of_affine<T>(m.bytes * 8 / m.block);
    if (m.form == FORM_LEVELS) return width % nf4_block ? any : kernel_row<T, in_nf4<T>>();
    if (m.form == FORM_MICRO) return kernel_row<T, in_micro<T>>();
    if (m.form == FORM_ROWS) return width % 32 ? any : kernel_row<T, in_int8<T>>();
    switch (m.codes.type) {
    case DTYPE_Q4_0: return kernel_row<T, in_nibbles<T, false, false>>();
    case DTYPE_Q4_1: return kernel_row<T, in_nibbles<T, true, false>>();
    case DTYPE_Q5_0: return kernel_row<T, in_nibbles<T, false, true>>();
    case DTYPE_Q5_1: return kernel_row<T, in_nibbles<T, true, true>>();
    case DTYPE_Q8_0: return kernel_row<T, in_q8_0<T>>();
    case DTYPE_Q2_K: return kernel_row<T, in_q2_k<T>>();
    case DTYPE_Q3_K: return kernel_row<T, in_q3_k<T>>();
    case DTYPE_Q4_K: return kernel_row<T, in_sixes<T, false>>();
    case DTYPE_Q5_K: return kernel_row<T, in_sixes<T, true>>();
    case DTYPE_Q6_K: return kernel_row<T, in_q6_k<T>>();
    case DTYPE_IQ4_NL: return kernel_row<T, in_iq4_nl<T>>();
    case DTYPE_IQ4_XS: return kernel_row<T, in_iq4_xs<T>>();
    case DTYPE_MXFP4: return kernel_row<T, in_mxfp4<T>>();
    default: break;
    }
    bool plain = m.codes.type == (is_bf16<T> ? DTYPE_BF16 : DTYPE_F16);
    return plain && width % 16 == 0 && m.codes.stride % 8 == 0 ? kernel_row<T, in_t<T>>() : any;
}

/* Shared memory beside x: weights on their way, what pads the rows of x, the norm's. Arrays of fixed size, of
 * less than fixed_bytes, come on top. */
static size_t shared_beside(const struct few_product *f, const struct tiles_kernel &kernel, int64_t rows) {
    return kernel.shared + (size_t)rows * 8 * 2 + (f->norm.data ? (size_t)f->width * sizeof(float) : 0);
}

/* Turns of all warps over the columns of x that there is room for: GPUs of 8.6, 8.9 and 12.0 have 99 KiB. */
static int chunk_of(const struct few_product *f, const struct tiles_kernel &kernel, int64_t rows) {
    size_t beside = shared_beside(f, kernel, rows) + fixed_bytes;
    size_t left = f->shared_most > beside ? f->shared_most - beside : 0;
    size_t turn = (size_t)rows * warps * kernel.columns * 2, room = left < x_bytes ? left : x_bytes;
    return turn >= room ? 1 : (int)(room / turn);
}

template <class T> static void launch_tiles(const struct few_product *f, cudaStream_t stream) {
    const struct matrix &m = f->part[0].w;
    const struct tiles_kernel kernel = kernel_of<T>(m, f->width);
    struct few_launch l = {.f = *f, .width = (int)f->width};
    int64_t rows = f->part[0].thin.rows, columns = 0;
    l.pieces = (int)((rows + most - 1) / most);
    for (int p = 0; p < f->parts; p++) columns += f->part[p].thin.columns;
    l.halves = f->gated.data || columns * l.pieces > tile * f->processors ? 2 : 1;
    for (int p = 0; p < f->parts; p++) {
        int size = l.halves * (tile / 2);
        l.w[p] = weight_view_of(&f->part[p].w, f->width);
        l.tiles_of[p] = (int)((f->part[p].thin.columns + size - 1) / size);
        l.tiles += l.tiles_of[p];
    }
    if (f->gated.data) l.tiles = (int)(columns / tile);
    l.row_bytes =
        m.form == FORM_BLOCK && m.block == 1 ? m.codes.stride * m.bytes : f->width / m.block * m.bytes;
    int group = m.form == FORM_LEVELS                             ? (int)nf4_block
                : m.form == FORM_AFFINE || m.form == FORM_MICRO ? m.block
                                                                : 0;
    l.group = group ? (int)log2(group) : 30;
    l.groups = group ? l.width / group : 1;
    for (int p = 0; p < 2; p++) {
        enum dtype type = m.part[p ? PART_OFFSETS : PART_SCALES].dtype;
        l.part_bytes[p] = type == DTYPE_F32 ? 4 : type == DTYPE_U8 ? 1 : 2;
    }
    l.turns = (l.width + warps * kernel.columns - 1) / (warps * kernel.columns);
    int64_t at_once = rows < most ? rows : most;
    int chunk = chunk_of(f, kernel, at_once);
    l.chunk = chunk < l.turns ? chunk : l.turns;
    size_t shared =
        shared_beside(f, kernel, at_once) + (size_t)(at_once * l.chunk * warps * kernel.columns) * 2;
    cudaFuncSetAttribute(kernel.run, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    /* As many tiles for each block, of which a multiprocessor has two. */
    int places = (blocks_each * f->processors + l.pieces - 1) / l.pieces,
        rounds = (l.tiles + places - 1) / places;
    dim3 blocks((unsigned)((l.tiles + rounds - 1) / rounds * l.pieces));
    if (f->start == FEW_IN_TURN)
        kernel.run<<<blocks, threads, shared, stream>>>(l);
    else
        launch_early(kernel.run, blocks, threads, shared, stream, l);
}

static bool is_vectors(const struct few_product *f) { return f->width % 8 == 0 && f->x.stride % 8 == 0; }

bool cuda_few_serves(const struct few_product *f) {
    const struct few_part *first = &f->part[0];
    bool ok = is_vectors(f) && (f->compute == DTYPE_BF16 || f->compute == DTYPE_F16);
    for (int p = 1; p < f->parts; p++)
        ok = ok && f->part[p].w.codes.type == first->w.codes.type &&
             f->part[p].w.codes.stride == first->w.codes.stride;
    if (f->gated.data)
        ok = ok && f->parts == 2 && first->thin.columns == f->part[1].thin.columns &&
             first->thin.columns % 8 == 0;
    if (!ok || !f->norm.data) return ok;
    /* x · norm is as large as it is in f32; all of it has to be there at once. */
    const struct tiles_kernel kernel = kernel_of<__nv_bfloat16>(first->w, f->width);
    int64_t columns = warps * kernel.columns, rows = first->thin.rows < most ? first->thin.rows : most;
    return f->compute == DTYPE_BF16 && (f->width + columns - 1) / columns <= chunk_of(f, kernel, rows);
}

void cuda_few(const struct few_product *f, cudaStream_t stream) {
    if (!f->part[0].thin.rows || !f->part[0].thin.columns) return;
    if (is_vectors(f) && f->compute == DTYPE_BF16)
        launch_tiles<__nv_bfloat16>(f, stream);
    else if (is_vectors(f) && f->compute == DTYPE_F16)
        launch_tiles<__half>(f, stream);
    else if (f->width % 8 == 0)
        launch_rows<8>(f, stream);
    else
        launch_rows<1>(f, stream);
}
