/* The head on Hopper without its logits in memory: the product's epilogue writes
 *
 *   e[m, v] = exp(l[m, v] - reference[m]) as bf16, 0 at the target,     parts[tile, m] = Σ e of the tile, f32
 *
 * so that with rest = Σ_v e and own = exp(l[target] - reference) of each row
 *
 *   logp = log(own / (rest + own)),    dx = dlogp · (rest / (rest + own) · w[target] - e w / (rest + own))
 *
 * which rounds e to bf16 where the other way rounds e / (rest + own) · dlogp: the same relative error. The
 * reference is the target's logit, by a sum of its own. Where the sum shows it to be too far from the row's
 * largest logit, that is found by a second product and taken instead, and the row's tiles are computed again;
 * the launches for that are always there, and do nothing when no row asks for them. */
#include "device/cuda/wide_wgmma.cuh"

namespace {

constexpr float most_sum = 1e26f, least_sum = 1e-17f; /* e^60, e^-40: e and their sums stay normal numbers */

enum { pair_rows = 2 * wide::tile_m };
enum purpose { keep_e, sums_only, maxima };

/* What a warpgroup does with a tile's logits. */
template <purpose what> struct epilogue {
    const float *reference;
    const int32_t *targets;
    float *own, *parts; /* own: the target's logit */
    int64_t part_stride;
    int rows, vocabulary;

    int target[2], first; /* of the thread's rows, from its own first column on; its first row */
    float zero[2];        /* reference · log2 e */

    __device__ void begin(const wide::place &place) {
        first = place.row + (int)threadIdx.x / 32 % 4 * 16 + (int)threadIdx.x % 32 / 4;
        for (int i = 0; i < 2; i++) {
            int row = first + 8 * i;
            target[i] = row < rows ? targets[row] - place.column - (int)threadIdx.x % 4 * 2 : -1;
            zero[i] = row < rows ? reference[row] * log2_e : 0;
        }
    }

    __device__ void take_targets(float (&sums)[32][4]) {
        bool here = (unsigned)target[0] < wide::tile_n || (unsigned)target[1] < wide::tile_n;
        if (!__any_sync(~0u, here)) return;
#pragma unroll
        for (int j = 0; j < 32; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (target[c / 2] == j * 8 + c % 2) {
                    own[first + c / 2 * 8] = sums[j][c];
                    sums[j][c] = -INFINITY;
                }
    }

    __device__ void cut(float (&sums)[32][4], int column) {
        int left = vocabulary - column - (int)threadIdx.x % 4 * 2;
        if (vocabulary - column >= wide::tile_n) return;
#pragma unroll
        for (int j = 0; j < 32; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (j * 8 + c % 2 >= left) sums[j][c] = -INFINITY;
    }

    __device__ void give(const wide::place &place, float (&part)[2]) {
        for (int i = 0; i < 2; i++)
            if (threadIdx.x % 4 == 0 && first + 8 * i < rows)
                parts[place.column_tile * part_stride + first + 8 * i] = part[i];
    }

    __device__ void end(const wide::product &product, const wide::place &place, float (&sums)[32][4]) {
        cut(sums, place.column);
        if constexpr (what == maxima) {
            float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
            for (int j = 0; j < 32; j++)
                for (int c = 0; c < 4; c++) most[c / 2] = fmaxf(most[c / 2], sums[j][c]);
            for (int i = 0; i < 2; i++) most[i] = quad_max(most[i]);
            give(place, most);
            return;
        }
        take_targets(sums);
        float part[2][2] = {};
        auto pair = [&](int j, int i) {
            float a = exp2_of(fmaf(sums[j][2 * i], log2_e, -zero[i])),
                  b = exp2_of(fmaf(sums[j][2 * i + 1], log2_e, -zero[i]));
            part[i][0] += a;
            part[i][1] += b;
            return two_bf16(a, b);
        };
        if constexpr (what == keep_e) {
            wide::store_bf16(place, &product.y, pair);
        } else {
#pragma unroll
            for (int j = 0; j < 32; j++) {
                pair(j, 0);
                pair(j, 1);
            }
        }
        float total[2] = {quad_sum(part[0][0] + part[0][1]), quad_sum(part[1][0] + part[1][1])};
        give(place, total);
    }
};

/* A warp for a row: the target's logit. Clears the marks of the pairs of tiles. */
static __global__ void __launch_bounds__(256)
    references(float *reference, int *marks, struct array x, struct array w, const int32_t *targets, int rows,
               int64_t width) {
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0;
    for (int64_t c = lane * 8; c < width; c += 256) {
        lanes<8> a = get<8>(x, row * x.stride + c), b = get<8>(w, targets[row] * w.stride + c);
        for (int i = 0; i < 8; i++) sum = fmaf(a.v[i], b.v[i], sum);
    }
    sum = warp_sum(sum);
    if (lane) return;
    reference[row] = sum;
    if (row % pair_rows == 0) marks[row / pair_rows] = 0;
}

struct joined {
    float *reference;
    const float *own, *parts, *dlogp;
    float *logp, *near, *far; /* factors of w[target] and of e w */
    int *marks;
    int64_t part_stride;
    int rows, tiles;
};

enum { join_warps = 16, join_threads = join_warps * 32 };

/* 32 rows of the tiles' parts, each warp joining every 16th tile's. */
template <bool largest> static __device__ inline float join(const joined &a, int row) {
    __shared__ float some[join_warps][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float x = largest ? -INFINITY : 0;
#pragma unroll 8
    for (int t = warp; t < a.tiles; t += join_warps) {
        float part = row < a.rows ? a.parts[t * a.part_stride + row] : 0;
        x = largest ? fmaxf(x, part) : x + part;
    }
    some[warp][lane] = x;
    __syncthreads();
    x = some[0][lane];
    for (int w = 1; w < join_warps; w++) x = largest ? fmaxf(x, some[w][lane]) : x + some[w][lane];
    return x;
}

/* What the sums give; marks rows whose reference does not serve. `again`: of marked pairs of tiles alone. */
template <bool again> static __global__ void __launch_bounds__(join_threads) finish_rows(joined a) {
    int row = blockIdx.x * 32 + threadIdx.x % 32;
    if (again && !a.marks[blockIdx.x * 32 / pair_rows]) return;
    float rest = join<false>(a, row);
    if (row >= a.rows || threadIdx.x >= 32) return;
    float above = a.own[row] - a.reference[row], own = expf(above), sum = rest + own;
    if (!again && !(sum <= most_sum && sum >= least_sum)) a.marks[row / pair_rows] = 1;
    if (a.logp) a.logp[row] = rest < own ? -log1pf(rest / own) : above - logf(sum);
    if (!a.dlogp) return;
    a.near[row] = a.dlogp[row] * (rest / sum);
    a.far[row] = a.dlogp[row] / sum;
}

static __global__ void __launch_bounds__(join_threads) take_maxima(joined a) {
    int row = blockIdx.x * 32 + threadIdx.x % 32;
    if (!a.marks[blockIdx.x * 32 / pair_rows]) return;
    float most = join<true>(a, row);
    if (row < a.rows && threadIdx.x < 32) a.reference[row] = most;
}

/* dx = near · w[target] - far · y */
static __global__ void __launch_bounds__(512)
    finish_dx(struct array dx, const float *y, struct array w, const int32_t *targets, const float *near,
              const float *far, int64_t width) {
    int64_t row = blockIdx.x;
    float a = near[row], b = far[row];
    COLUMNS(c, 8, width) {
        lanes<8> sum = get<8>({(void *)y, DTYPE_F32}, row * width + c),
                 own = get<8>(w, targets[row] * w.stride + c);
        for (int i = 0; i < 8; i++) sum.v[i] = fmaf(-b, sum.v[i], a * own.v[i]);
        put<8>(dx, row * dx.stride + c, sum);
    }
}

static int64_t round_rows(int64_t rows) { return (rows + pair_rows - 1) / pair_rows * pair_rows; }
static int64_t tiles_of(int64_t vocabulary) { return (vocabulary + wide::tile_n - 1) / wide::tile_n; }

template <purpose what>
static void launch(const struct wide_head *h, wide::product product, const joined &rows, const int *only,
                   cudaStream_t stream) {
    epilogue<what> epilogue = {.reference = rows.reference,
                               .targets = h->targets,
                               .own = (float *)rows.own,
                               .parts = (float *)rows.parts,
                               .part_stride = rows.part_stride,
                               .rows = rows.rows,
                               .vocabulary = (int)h->vocabulary};
    product.only = only;
    wide::launch(product, epilogue, h->processors, stream);
}

template <purpose what>
static void sums_of(const struct wide_head *h, const wide::product &product, const joined &rows,
                    cudaStream_t stream) {
    unsigned blocks = (unsigned)((rows.rows + 31) / 32);
    launch<what>(h, product, rows, NULL, stream);
    finish_rows<false><<<blocks, join_threads, 0, stream>>>(rows);
    launch<maxima>(h, product, rows, rows.marks, stream);
    take_maxima<<<blocks, join_threads, 0, stream>>>(rows);
    launch<what>(h, product, rows, rows.marks, stream);
    finish_rows<true><<<blocks, join_threads, 0, stream>>>(rows);
}

} // namespace

size_t cuda_wide_head_scratch(int64_t rows, int64_t vocabulary) {
    return (size_t)(round_rows(rows) * (tiles_of(vocabulary) + 5)) * sizeof(float);
}

static joined divide(const struct wide_head *h) {
    int64_t stride = round_rows(h->rows);
    float *at = (float *)h->scratch, *parts = at + 5 * stride;
    return {.reference = at,
            .own = at + stride,
            .parts = parts,
            .dlogp = h->dlogp,
            .logp = h->logp,
            .near = at + 2 * stride,
            .far = at + 3 * stride,
            .marks = (int *)(at + 4 * stride),
            .part_stride = stride,
            .rows = (int)h->rows,
            .tiles = (int)tiles_of(h->vocabulary)};
}

bool cuda_wide_head(const struct wide_head *h, cudaStream_t stream) {
    joined rows = divide(h);
    wide::product product = {.row_pairs = (int)(round_rows(h->rows) / pair_rows),
                             .column_tiles = rows.tiles,
                             .steps = (int)((h->width + wide::tile_k - 1) / wide::tile_k)};
    if (!map_of(&product.x, h->x.data, h->rows, h->width, h->x.stride, 128) ||
        !map_of(&product.w, h->w.data, h->vocabulary, h->width, h->w.stride, 128) ||
        (h->e.data && !map_of(&product.y, h->e.data, h->rows, h->vocabulary, h->e.stride, 64)))
        return false;
    references<<<(unsigned)((h->rows + 7) / 8), 256, 0, stream>>>(rows.reference, rows.marks, h->x, h->w,
                                                                  h->targets, rows.rows, h->width);
    if (h->e.data)
        sums_of<keep_e>(h, product, rows, stream);
    else
        sums_of<sums_only>(h, product, rows, stream);
    return true;
}

void cuda_wide_head_dx(const struct wide_head *h, struct array dx, const float *y, cudaStream_t stream) {
    joined rows = divide(h);
    finish_dx<<<(unsigned)h->rows, row_threads(h->width, 8), 0, stream>>>(dx, y, h->w, h->targets, rows.near,
                                                                          rows.far, h->width);
}
