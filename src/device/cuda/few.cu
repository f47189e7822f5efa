/* Products of few rows, as decoding makes them, whose time is that of reading the weight: it is read once, as
 * it is stored.
 *
 * With operands in bf16 or f16 the weight's rows are the left operand of mma.m16n8k16, and the up to eight
 * rows of x the columns of the right one. A block has 16 rows of w; its warps take turns at 64 columns, each
 * thread 16 bytes at a time of what it multiplies: fragments pair columns in the order in which they lie, for
 * w and x alike, since a sum has no order but the one that is fixed here. Reads of w are some steps ahead of
 * the products, and the first ones begin before the kernel that makes x has ended.
 *
 * In f32, and where rows are no whole vectors, a warp makes one output. */
#include "device/cuda/attention_tile.cuh"
#include "device/cuda/decode.cuh"

constexpr int warps = 8, tile = 16, step = 64, ahead = 4, most = cuda_few_rows;

/* ---- on tensor cores ---- */

template <class T> static __device__ inline uint4 rounded(const lanes<8> &x) {
    return make_uint4(two_of<T>(x.v[0], x.v[1]), two_of<T>(x.v[2], x.v[3]), two_of<T>(x.v[4], x.v[5]),
                      two_of<T>(x.v[6], x.v[7]));
}

/* 16 bytes that no kernel of this program writes; each is read once. */
static __device__ inline uint4 read_once(const void *at) {
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(at));
    return x;
}

/* What a thread has of a row's 64 columns: eight from its own on, and eight of the next 32. `fetch` starts to
 * read them, `take` yields them in T. Types in which 64 columns have parts in common read these once; they
 * serve rows of whole 64s. */
template <class T> struct as_stored { /* in T */
    struct piece {
        uint4 half[2];
    };
    static __device__ void fetch(piece &p, const struct weight_view &w, int64_t row, int64_t k) {
        const struct array &codes = w.matrix.codes;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            p.half[h] = make_uint4(0, 0, 0, 0);
            if (k + 32 * h < w.width)
                p.half[h] = read_once((const number16 *)codes.data + row * codes.stride + k + 32 * h);
        }
    }
    static __device__ void take(uint4 (&to)[2], const piece &p, const struct weight_view &, const float *,
                                int64_t, int64_t) {
        for (int h = 0; h < 2; h++) to[h] = p.half[h];
    }
};

template <class T> struct decoded { /* any type */
    struct piece {};
    static __device__ void fetch(piece &, const struct weight_view &, int64_t, int64_t) {}
    static __device__ void take(uint4 (&to)[2], const piece &, const struct weight_view &w,
                                const float *levels, int64_t row, int64_t k) {
#pragma unroll
        for (int h = 0; h < 2; h++)
            to[h] = k + 32 * h < w.width ? rounded<T>(numbers_at<8>(w, levels, row, k + 32 * h))
                                         : make_uint4(0, 0, 0, 0);
    }
};

template <class T> struct in_nf4 { /* one scale for the 64 */
    struct piece {
        uint32_t codes[2];
        uint32_t scale;
    };
    static __device__ void fetch(piece &p, const struct weight_view &w, int64_t row, int64_t k) {
        int64_t at = row * w.width + k;
        const struct stored_part &scales = w.matrix.part[PART_SCALES];
        for (int h = 0; h < 2; h++)
            p.codes[h] = __ldg((const uint32_t *)((const uint8_t *)w.matrix.codes.data + at / 2 + 16 * h));
        p.scale = scales.dtype == DTYPE_F32 ? __ldg((const uint32_t *)scales.data + at / nf4_block)
                                            : __ldg((const uint8_t *)scales.data + at / nf4_block);
    }
    static __device__ void take(uint4 (&to)[2], const piece &p, const struct weight_view &w,
                                const float *levels, int64_t row, int64_t k) {
        int64_t block = (row * w.width + k) / nf4_block;
        float scale = w.matrix.part[PART_SCALES].dtype == DTYPE_F32 ? __uint_as_float(p.scale)
                                                                    : nf4_scale_of(w, block, (int)p.scale);
        for (int h = 0; h < 2; h++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++)
                x.v[j] = levels[p.codes[h] >> (8 * (j / 2) + (j % 2 ? 0 : 4)) & 15] * scale;
            to[h] = rounded<T>(x);
        }
    }
};

/* 16 bits at a place that is a multiple of two bytes. */
static __device__ inline uint32_t short_at(const uint8_t *at) { return __ldg((const unsigned short *)at); }
static __device__ inline uint32_t word_at(const uint8_t *at) { return short_at(at) | short_at(at + 2) << 16; }
static __device__ inline float f16_of(uint32_t bits) {
    return __half2float(__ushort_as_half((unsigned short)bits));
}
static __device__ inline const uint8_t *block_at(const struct weight_view &w, int64_t row, int64_t k,
                                                 int elements, int bytes) {
    return (const uint8_t *)w.matrix.codes.data + (row * w.width + k) / elements * bytes;
}

template <class T> struct in_q8_0 { /* a block for each 32 */
    struct piece {
        uint32_t codes[2][2], scale[2];
    };
    static __device__ void fetch(piece &p, const struct weight_view &w, int64_t row, int64_t k) {
        for (int h = 0; h < 2; h++) {
            const uint8_t *at = block_at(w, row, k, 32, 34) + 34 * h;
            p.scale[h] = short_at(at);
            for (int i = 0; i < 2; i++) p.codes[h][i] = word_at(at + 2 + k % 32 + 4 * i);
        }
    }
    static __device__ void take(uint4 (&to)[2], const piece &p, const struct weight_view &, const float *,
                                int64_t, int64_t) {
        for (int h = 0; h < 2; h++) {
            lanes<8> x;
            for (int j = 0; j < 8; j++)
                x.v[j] = f16_of(p.scale[h]) * (float)(int8_t)(p.codes[h][j / 4] >> j % 4 * 8);
            to[h] = rounded<T>(x);
        }
    }
};

template <class T>
struct in_q4_k { /* 32 bytes: the low nibbles are one group of 32, the high ones the next */
    struct piece {
        uint4 head; /* of the block of 256: d, m, 12 bytes of scales */
        uint2 codes;
    };
    static __device__ void fetch(piece &p, const struct weight_view &w, int64_t row, int64_t k) {
        const uint8_t *at = block_at(w, row, k, 256, 144);
        p.head = __ldg((const uint4 *)at);
        p.codes = __ldg((const uint2 *)(at + 16 + k % 256 / 64 * 32 + k % 32));
    }
    static __device__ void take(uint4 (&to)[2], const piece &p, const struct weight_view &, const float *,
                                int64_t, int64_t k) {
        uint64_t low = (uint64_t)p.head.z << 32 | p.head.y; /* bytes 0 to 7 of the scales; 8 to 11 in w */
        int first = (int)(k % 256 / 64 * 2);
        for (int h = 0; h < 2; h++) {
            int g = first + h, scale, minimum;
            if (g < 4) {
                scale = (int)(low >> 8 * g) & 63;
                minimum = (int)(low >> (8 * g + 32)) & 63;
            } else {
                int both = (int)(p.head.w >> 8 * (g - 4));
                scale = (both & 15) | (int)(low >> (8 * (g - 4) + 6) & 3) << 4;
                minimum = (both >> 4 & 15) | (int)(low >> (8 * g + 6) & 3) << 4;
            }
            float s = f16_of(p.head.x) * (float)scale, m = f16_of(p.head.x >> 16) * (float)minimum;
            lanes<8> x;
            for (int j = 0; j < 8; j++)
                x.v[j] = s * (float)((j < 4 ? p.codes.x : p.codes.y) >> (j % 4 * 8 + 4 * h) & 15) - m;
            to[h] = rounded<T>(x);
        }
    }
};

template <class T> struct in_q6_k { /* four bits, two more elsewhere; a scale for each 16 */
    struct piece {
        uint32_t nibbles[2][2], twos[2], scales, d;
    };
    static __device__ void fetch(piece &p, const struct weight_view &w, int64_t row, int64_t k) {
        const uint8_t *at = block_at(w, row, k, 256, 210);
        int i = (int)(k % 256);
        for (int j = 0; j < 2; j++) {
            for (int h = 0; h < 2; h++)
                p.nibbles[h][j] = word_at(at + 64 * (i / 128) + i % 64 + 32 * h + 4 * j);
            p.twos[j] = word_at(at + 128 + 32 * (i / 128) + i % 32 + 4 * j);
        }
        p.scales = __ldg(at + 192 + i / 16) | (uint32_t)__ldg(at + 194 + i / 16) << 8;
        p.d = short_at(at + 208);
    }
    static __device__ void take(uint4 (&to)[2], const piece &p, const struct weight_view &, const float *,
                                int64_t, int64_t k) {
        int high = (int)(k / 64 % 2); /* which nibble, and which pair of twos */
        for (int h = 0; h < 2; h++) {
            float s = f16_of(p.d) * (float)(int8_t)(p.scales >> 8 * h);
            lanes<8> x;
            for (int j = 0; j < 8; j++) {
                uint32_t four = p.nibbles[h][j / 4] >> (j % 4 * 8 + 4 * high) & 15,
                         two = p.twos[j / 4] >> (j % 4 * 8 + 4 * high + 2 * h) & 3;
                x.v[j] = s * (float)((int)(four | two << 4) - 32);
            }
            to[h] = rounded<T>(x);
        }
    }
};

/* Eight numbers of a row of x. Not through L1: the kernel that wrote them may have run beside this one. */
template <class T>
static __device__ inline uint4 eight_of(const struct array &x, int64_t rows, int64_t row, int64_t column) {
    if (row >= rows) return make_uint4(0, 0, 0, 0);
    if (x.type == DTYPE_F32) {
        const float4 *at = (const float4 *)((const float *)x.data + row * x.stride + column);
        float4 a = __ldcg(at), b = __ldcg(at + 1);
        return rounded<T>({{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}});
    }
    uint4 bits = __ldcg((const uint4 *)((const number16 *)x.data + row * x.stride + column));
    if (x.type == (is_bf16<T> ? DTYPE_BF16 : DTYPE_F16)) return bits;
    return rounded<T>(get<8>({&bits, x.type, 8}, 0));
}

/* What a thread has of 64 columns: rows l/4 and l/4 + 8 of w, row l/4 of x. */
template <class S> struct columns {
    typename S::piece w[2];
    uint4 x[2];
};

template <class T> static __device__ inline void multiply_eight(float (&sum)[4], uint4 a, uint4 b, uint4 x) {
    multiply<T>(sum, {a.x, b.x, a.y, b.y}, x.x, x.y);
    multiply<T>(sum, {a.z, b.z, a.w, b.w}, x.z, x.w);
}

/* y of 16 rows of w, from the warps' sums; a thread for each of 16 · 8. */
static __device__ inline void finish(const struct thin &t, const float (*sums)[tile * most], int64_t n, int m,
                                     float alpha) {
    float y = 0, low = 0;
    if (m >= t.rows || n >= t.columns) return;
    for (int w = 0; w < warps; w++) y += sums[w][threadIdx.x];
    for (int64_t r = 0; t.low.data && r < t.rank; r++)
        low = fmaf(get1(t.low, m * t.low.stride + r), get1(t.up, r * t.along + n * t.across), low);
    y = alpha * y + t.beta * low;
    if (t.bias.data) y += get1(t.bias, n);
    if (t.addend.data) y += get1(t.addend, m * t.addend.stride + n);
    put1(t.y, m * t.y.stride + n, y);
}

template <class T, class S>
static __global__ void __launch_bounds__(32 * warps, 2)
    few_tiles(const __grid_constant__ struct thin t, const struct array x,
              const __grid_constant__ struct weight_view w, float alpha, bool beside) {
    __shared__ float levels[16], sums[warps][tile * most];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t n0 = (int64_t)blockIdx.x * tile, rows[2];
    for (int r = 0; r < 2; r++) rows[r] = min(n0 + lane / 4 + 8 * r, t.columns - 1);
    struct columns<S> at[ahead];
    float sum[4] = {};
    auto column = [&](int64_t turn) { return (turn * warps + warp) * step + lane % 4 * 8; };
    auto fetch = [&](columns<S> &to, int64_t turn) {
        for (int r = 0; r < 2 && column(turn) < w.width; r++) S::fetch(to.w[r], w, rows[r], column(turn));
    };
    auto fetch_x = [&](columns<S> &to, int64_t turn) {
        for (int h = 0; h < 2; h++)
            if (column(turn) + 32 * h < w.width)
                to.x[h] = eight_of<T>(x, t.rows, lane / 4, column(turn) + 32 * h);
    };
#pragma unroll
    for (int i = 0; i < ahead; i++) fetch(at[i], i);
    load_levels(levels, w);
    if (!beside) await_earlier();
    let_next_begin();
#pragma unroll
    for (int i = 0; i < ahead; i++) fetch_x(at[i], i);
    for (int64_t turn = 0; (turn * warps + warp) * step < w.width; turn += ahead) {
#pragma unroll
        for (int i = 0; i < ahead; i++) {
            uint4 a[2] = {}, b[2] = {}, zero = make_uint4(0, 0, 0, 0);
            int64_t k = column(turn + i);
            if (k < w.width) {
                S::take(a, at[i].w[0], w, levels, rows[0], k);
                S::take(b, at[i].w[1], w, levels, rows[1], k);
            }
            multiply_eight<T>(sum, a[0], b[0], k < w.width ? at[i].x[0] : zero);
            multiply_eight<T>(sum, a[1], b[1], k + 32 < w.width ? at[i].x[1] : zero);
            fetch(at[i], turn + i + ahead);
            fetch_x(at[i], turn + i + ahead);
        }
    }
    float2 *to = (float2 *)&sums[warp][lane * 2];
    to[0] = make_float2(sum[0], sum[1]);
    to[tile * most / 4] = make_float2(sum[2], sum[3]);
    if (beside) await_earlier();
    __syncthreads();
    if (threadIdx.x < tile * most) finish(t, sums, n0 + threadIdx.x / most, threadIdx.x % most, alpha);
}

/* ---- a warp for each output ---- */

/* N numbers a lane at a time; up to M rows of x. */
template <int N, int M>
static __global__ void __launch_bounds__(32 * warps)
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

template <int N>
static void launch(const struct few_product *f, const struct weight_view &w, cudaStream_t stream) {
    unsigned blocks = (unsigned)((f->thin.columns + warps - 1) / warps);
    auto kernel = f->thin.rows == 1 ? warp_rows<N, 1> : f->thin.rows <= 4 ? warp_rows<N, 4> : warp_rows<N, 8>;
    kernel<<<blocks, 32 * warps, 0, stream>>>(f->thin, f->x, w, f->alpha);
}

typedef void tiles_kernel(struct thin, struct array, struct weight_view, float, bool);

template <class T> static tiles_kernel *kernel_of(const struct weight_view &w) {
    const struct matrix &m = w.matrix;
    if (m.form == FORM_BLOCK && m.codes.type == (is_bf16<T> ? DTYPE_BF16 : DTYPE_F16) &&
        m.codes.stride % 8 == 0)
        return few_tiles<T, as_stored<T>>;
    if (w.width % step == 0 && m.form == FORM_LEVELS) return few_tiles<T, in_nf4<T>>;
    if (w.width % step == 0 && m.codes.type == DTYPE_Q8_0) return few_tiles<T, in_q8_0<T>>;
    if (w.width % step == 0 && m.codes.type == DTYPE_Q4_K) return few_tiles<T, in_q4_k<T>>;
    if (w.width % step == 0 && m.codes.type == DTYPE_Q6_K) return few_tiles<T, in_q6_k<T>>;
    return few_tiles<T, decoded<T>>;
}

template <class T>
static void launch_tiles(const struct few_product *f, const struct weight_view &w, cudaStream_t stream) {
    auto kernel = kernel_of<T>(w);
    dim3 blocks((unsigned)((f->thin.columns + tile - 1) / tile));
    if (f->start == FEW_IN_TURN)
        kernel<<<blocks, 32 * warps, 0, stream>>>(f->thin, f->x, w, f->alpha, false);
    else
        launch_early(kernel, blocks, 32 * warps, 0, stream, f->thin, f->x, w, f->alpha,
                     f->start == FEW_BESIDE);
}

void cuda_few(const struct few_product *f, cudaStream_t stream) {
    int64_t width = f->width;
    struct weight_view view = weight_view_of(&f->w, width);
    if (!f->thin.rows || !f->thin.columns) return;
    if (width % 8 == 0 && f->x.stride % 8 == 0 && f->compute == DTYPE_BF16)
        launch_tiles<__nv_bfloat16>(f, view, stream);
    else if (width % 8 == 0 && f->x.stride % 8 == 0 && f->compute == DTYPE_F16)
        launch_tiles<__half>(f, view, stream);
    else if (width % 8 == 0)
        launch<8>(f, view, stream);
    else
        launch<1>(f, view, stream);
}
