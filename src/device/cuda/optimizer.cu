/* The norm of all gradients and the updates; the equations are in src/op/optimizer*.c. A step's numbers are
 * computed once, in f64; elements in f32. Blocks are cut into pieces of a fixed size. */
#include "device/cuda/kernel.cuh"
#include "op/scaling.h"

enum { threads = 256 };

static __device__ double squares_of(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += (double)x[i] * (double)x[i];
    return block_sum(sum);
}

static __global__ void squares(double *sums, const float *x, int64_t n) {
    int64_t at = (int64_t)blockIdx.x * cuda_piece, left = n - at;
    double sum = squares_of(x + at, left < cuda_piece ? left : cuda_piece);
    if (!threadIdx.x) sums[blockIdx.x] = sum;
}

static __global__ void root(float *norm, const double *sums, int64_t pieces, const double *loss) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (!threadIdx.x) *norm = loss && !isfinite(*loss) ? NAN : (float)sqrt(sum);
}

void cuda_gradient_norm(float *norm, const float *gradients, const double *loss, int64_t n, double *sums,
                        cudaStream_t stream) {
    int64_t pieces = (n + cuda_piece - 1) / cuda_piece;
    if (pieces) squares<<<(unsigned)pieces, threads, 0, stream>>>(sums, gradients, n);
    root<<<1, threads, 0, stream>>>(norm, sums, pieces, loss);
}

/* What a step's elements share, one for each group. */
struct scalars {
    bool going; /* the norm is finite */
    float clip, keep, rate, root, beta1, beta2, fresh1, fresh2, epsilon, kept, fresh, momentum, decay;
    bool nesterov;
    double step, factor_beta;
};

size_t cuda_scalar_bytes(int groups) { return (size_t)groups * sizeof(struct scalars); }

/* Counts the step when the gradient is finite, and computes every group's numbers. One block. */
static __global__ void begin(struct update u) {
    struct scalars *all = (struct scalars *)u.scalars;
    double norm = *u.norm;
    bool going = isfinite(norm);
    double step = (double)(*u.step + (going ? 1 : 0));
    __syncthreads();
    if (!threadIdx.x && going) *u.step += 1;
    for (int g = threadIdx.x; g < u.groups; g += blockDim.x) {
        const float *hyper = u.hyper + g * HYPER_COLUMNS;
        struct scalars s = {};
        double most = hyper[HYPER_MAX_NORM], clip = most > 0 ? most / (norm + 1e-6) : 1;
        double beta1 = hyper[HYPER_BETA1], beta2 = hyper[HYPER_BETA2], rate = hyper[HYPER_RATE];
        s.going = going;
        s.step = step;
        s.clip = (float)(clip < 1 ? clip : 1);
        s.keep = (float)(1 - rate * (double)hyper[HYPER_DECAY]);
        s.decay = hyper[HYPER_DECAY];
        s.beta1 = hyper[HYPER_BETA1];
        s.beta2 = hyper[HYPER_BETA2];
        s.fresh1 = (float)(1 - beta1);
        s.fresh2 = (float)(1 - beta2);
        s.epsilon = hyper[HYPER_EPSILON];
        s.rate = hyper[HYPER_RATE];
        if (u.kind == UPDATE_ADAMW || u.kind == UPDATE_ADAMW8BIT || u.kind == UPDATE_MUON) {
            s.rate = (float)(rate / (1 - pow(beta1, step)));
            s.root = (float)(1 / sqrt(1 - pow(beta2, step)));
        }
        s.momentum = hyper[HYPER_MOMENTUM];
        s.kept = step > 1 ? hyper[HYPER_MOMENTUM] : 0;
        s.fresh = step > 1 ? (float)(1 - (double)hyper[HYPER_DAMPENING]) : 1;
        s.nesterov = hyper[HYPER_NESTEROV] > 0;
        s.factor_beta = 1 - pow(step, -(double)hyper[HYPER_DECAY_RATE]);
        all[g] = s;
    }
}

/* Parameter i, whose moments are read and written at m and v. */
static __device__ inline void adamw(const struct update &u, const struct scalars &s, int64_t i, float &m_of,
                                    float &v_of) {
    float g = u.gradients[i] * s.clip, m = m_of * s.beta1 + g * s.fresh1,
          v = v_of * s.beta2 + g * g * s.fresh2;
    m_of = m;
    v_of = v;
    u.parameters[i] = u.parameters[i] * s.keep - s.rate * m / (sqrtf(v) * s.root + s.epsilon);
}

static __device__ inline void sgd(const struct update &u, const struct scalars &s, int64_t i) {
    float p = u.parameters[i], g = u.gradients[i] * s.clip + p * s.decay, change = g;
    if (u.m) {
        float m = u.m[i] * s.kept + g * s.fresh;
        change = s.nesterov ? g + m * s.momentum : m;
        u.m[i] = m;
    }
    u.parameters[i] = p - change * s.rate;
}

static __device__ inline void lion(const struct update &u, const struct scalars &s, int64_t i) {
    float g = u.gradients[i] * s.clip, m = u.m[i], p = u.parameters[i] * s.keep,
          mixed = m * s.beta1 + g * s.fresh1;
    u.parameters[i] = p - ((mixed > 0 ? s.rate : 0) - (mixed < 0 ? s.rate : 0));
    u.m[i] = m * s.beta2 + g * s.fresh2;
}

static __global__ void each(struct update u) {
    struct update_piece piece = u.pieces[blockIdx.x];
    const struct scalars s = ((const struct scalars *)u.scalars)[piece.group];
    if (!s.going || piece.code[0] >= 0) return;
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
        int64_t at = piece.offset + i;
        if (u.kind == UPDATE_SGD)
            sgd(u, s, at);
        else if (u.kind == UPDATE_LION)
            lion(u, s, at);
        else
            adamw(u, s, at, u.m[piece.moment[0] + i], u.v[piece.moment[1] + i]);
    }
}

/* ---- AdamW in 8 bits (op/optimizer_8bit.c): a thread for each number of a block of 256 ---- */

static_assert((int)cuda_piece % (int)optimizer_block == 0, "a piece is made of whole blocks");

/* What encoding compares with: bound[k] lies between magnitude k and k + 1, of which there are `count`. */
static __device__ inline void load_bounds(float *bound, const float *magnitudes, int count) {
    int k = threadIdx.x;
    bound[k] = k + 1 < count ? (magnitudes[k] + magnitudes[k + 1]) / 2 : INFINITY;
}

/* How many bounds lie below a magnitude. */
static __device__ inline int nearest(const float *bound, float magnitude) {
    int k = 0;
    for (int jump = optimizer_codes / 2; jump; jump /= 2)
        if (bound[k + jump - 1] < magnitude) k += jump;
    return k;
}

/* Codes of the second moment are magnitudes; those of the first have 127 levels below 0, and 128 above it. */
static __device__ inline uint8_t encode(const float *bound, float x, bool is_signed) {
    int k = nearest(bound, is_signed ? fabsf(x) : x);
    return (uint8_t)(!is_signed ? k : x < 0 ? 127 - min(k, 127) : 127 + k);
}

static __global__ void __launch_bounds__(optimizer_block) eight_bits(struct update u) {
    __shared__ float level[2][optimizer_codes], bound[2][optimizer_codes];
    struct update_piece piece = u.pieces[blockIdx.x];
    const struct scalars s = ((const struct scalars *)u.scalars)[piece.group];
    if (!s.going || piece.code[0] < 0) return;
    for (int k = 0; k < 2; k++) {
        level[k][threadIdx.x] = u.levels[k * optimizer_codes + threadIdx.x];
        load_bounds(bound[k], u.levels + (k ? optimizer_codes : 127), k ? optimizer_codes : 129);
    }
    float *largest[2] = {u.m + piece.moment[0], u.v + piece.moment[1]};
    __syncthreads();
    for (int i = threadIdx.x; i - (int)threadIdx.x < piece.count; i += optimizer_block) {
        bool there = i < piece.count;
        int block = i / optimizer_block;
        float x[2] = {};
        for (int k = 0; there && k < 2; k++) x[k] = level[k][u.codes[piece.code[k] + i]] * largest[k][block];
        if (there) adamw(u, s, piece.offset + i, x[0], x[1]);
        for (int k = 0; k < 2; k++) {
            float most = block_max(fabsf(x[k])), inverse = 1 / fmaxf(most, 1e-38f);
            if (there) u.codes[piece.code[k] + i] = encode(bound[k], x[k] * inverse, !k);
            if (!threadIdx.x) largest[k][block] = most;
        }
    }
}

/* ---- Muon (op/optimizer_muon.c) ---- */

static __global__ void __launch_bounds__(threads) muon_gather(struct muon m) {
    const struct scalars s = ((const struct scalars *)m.update.scalars)[m.group];
    int64_t first = (int64_t)blockIdx.x * cuda_piece, left = m.elements - first;
    const float *g = m.update.gradients + m.offset;
    float *moment = m.update.m + m.moment, fresh = (float)(1 - (double)s.momentum);
    if (!s.going) return;
    for (int64_t i = first + threadIdx.x; i < first + (left < cuda_piece ? left : cuda_piece);
         i += blockDim.x) {
        float x = g[i] * s.clip, moved = moment[i] + fresh * (x - moment[i]);
        moment[i] = moved;
        m.x[i] = s.nesterov ? x + s.momentum * (moved - x) : moved;
    }
    __syncthreads();
    double sum = squares_of(m.x + first, left < cuda_piece ? left : cuda_piece);
    if (!threadIdx.x) m.sums[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(threads) muon_scale(float *x, int64_t n, const double *sums) {
    int64_t first = (int64_t)blockIdx.x * cuda_piece, left = n - first;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += sums[i];
    float inverse = (float)(1 / fmax(sqrt(block_sum(sum)), MUON_EPSILON));
    for (int64_t i = first + threadIdx.x; i < first + (left < cuda_piece ? left : cuda_piece);
         i += blockDim.x)
        x[i] *= inverse;
}

static __global__ void __launch_bounds__(threads) muon_move(struct muon m) {
    const struct scalars s = ((const struct scalars *)m.update.scalars)[m.group];
    float *p = m.update.parameters + m.offset;
    float factor = (float)((double)m.update.hyper[m.group * HYPER_COLUMNS + HYPER_RATE] * m.ratio);
    if (!s.going) return;
    EACH(i, m.elements) p[i] = p[i] * s.keep - factor * m.x[i];
}

void cuda_muon_begin(const struct muon *m, cudaStream_t stream) {
    unsigned pieces = (unsigned)((m->elements + cuda_piece - 1) / cuda_piece);
    muon_gather<<<pieces, threads, 0, stream>>>(*m);
    muon_scale<<<pieces, threads, 0, stream>>>(m->x, m->elements, m->sums);
}

void cuda_muon_end(const struct muon *m, cudaStream_t stream) {
    muon_move<<<blocks_for(m->elements, threads), threads, 0, stream>>>(*m);
}

/* ---- Adafactor: a block for a whole part, since its sums run over rows and columns ---- */

/* Moves the factors of a matrix by its squares; gives the mean of the rows'. */
static __device__ double move_factors(const struct op_part &part, const float *g, double clip, double beta,
                                      float *rows, float *columns) {
    double squares = clip * clip, mean = 0;
    for (int64_t r = 0; r < part.rows; r++) {
        double row = squares_of(g + r * part.columns, part.columns) * squares / (double)part.columns + 1e-30;
        double moved = beta * (double)rows[r] + (1 - beta) * row;
        __syncthreads();
        if (!threadIdx.x) rows[r] = (float)moved;
        mean += (double)(float)moved / (double)part.rows;
    }
    for (int64_t c = threadIdx.x; c < part.columns; c += blockDim.x) {
        double sum = 0;
        for (int64_t r = 0; r < part.rows; r++)
            sum += (double)g[r * part.columns + c] * (double)g[r * part.columns + c];
        columns[c] =
            (float)(beta * (double)columns[c] + (1 - beta) * (sum * squares / (double)part.rows + 1e-30));
    }
    __syncthreads();
    return mean;
}

static __global__ void adafactor(struct update u) {
    const struct op_part part = u.parts[blockIdx.x];
    const struct scalars s = ((const struct scalars *)u.scalars)[part.group];
    const float *hyper = u.hyper + part.group * HYPER_COLUMNS, *g = u.gradients + part.offset;
    if (!s.going) return;
    int64_t n = part.rows * part.columns;
    bool vector = part.columns == 1;
    float *p = u.parameters + part.offset, *rows = u.m + part.slot[0];
    float *columns = rows + ((part.rows + 15) & ~(int64_t)15);
    double mean = 1, rate = hyper[HYPER_RATE];
    if (vector)
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            double x = (double)g[i] * (double)s.clip;
            rows[i] = (float)(s.factor_beta * (double)rows[i] + (1 - s.factor_beta) * (x * x + 1e-30));
        }
    else
        mean = move_factors(part, g, (double)s.clip, s.factor_beta, rows, columns);
    __syncthreads();
    if (hyper[HYPER_SCALE] > 0) rate *= fmax(1e-3, sqrt(squares_of(p, n) / (double)n));
    double sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        double most = pass ? fmax(1.0, sqrt(block_sum(sum) / (double)n) / (double)hyper[HYPER_CLIP]) : 1;
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            int64_t r = i / part.columns, c = i % part.columns;
            float moment = sqrtf(vector ? rows[i] : columns[c]);
            float factor = vector ? s.clip : (float)((double)s.clip / sqrt((double)rows[r] / mean));
            float change = g[i] * factor / (moment > 0 ? moment : 1);
            if (pass)
                p[i] = p[i] * (float)(1 - rate * (double)s.decay) - change * (float)(rate / most);
            else
                sum += (double)change * (double)change;
        }
    }
}

void cuda_update(const struct update *u, cudaStream_t stream) {
    begin<<<1, 32, 0, stream>>>(*u);
    if (!u->count) return;
    if (u->kind == UPDATE_ADAFACTOR)
        adafactor<<<(unsigned)u->count, threads, 0, stream>>>(*u);
    else
        each<<<(unsigned)u->count, threads, 0, stream>>>(*u);
    if (u->kind == UPDATE_ADAMW8BIT) eight_bits<<<(unsigned)u->count, optimizer_block, 0, stream>>>(*u);
}

static __global__ void average(float *a, const float *p, const float *norm, const float *hyper,
                               const int32_t *step, int64_t n) {
    if (!isfinite(*norm)) return;
    float fresh = *step > 1 ? (float)(1 - (double)hyper[HYPER_AVERAGE]) : 1;
    EACH(i, n) a[i] = fresh < 1 ? a[i] + (p[i] - a[i]) * fresh : p[i];
}

void cuda_average(float *a, const float *p, const float *norm, const float *hyper, const int32_t *step,
                  int64_t n, cudaStream_t stream) {
    if (n) average<<<blocks_for(n, threads), threads, 0, stream>>>(a, p, norm, hyper, step, n);
}

/* ---- the scale of the loss (op/scaling.h): a power of two, so nothing is rounded ---- */

static __global__ void scale(float *y, const float *x, const float *scaling, bool inverse, int64_t n) {
    float factor = inverse ? 1 / scaling[SCALING_FACTOR] : scaling[SCALING_FACTOR];
    EACH(i, n) y[i] = x[i] * factor;
}

void cuda_scale(float *y, const float *x, const float *scaling, bool inverse, int64_t n,
                cudaStream_t stream) {
    if (n) scale<<<blocks_for(n, threads), threads, 0, stream>>>(y, x, scaling, inverse, n);
}

static __global__ void scale_update(float *scaling, const float *norm) {
    float *factor = &scaling[SCALING_FACTOR], *good = &scaling[SCALING_GOOD];
    if (!isfinite(*norm)) {
        *factor = fmaxf(*factor / 2, SCALING_LEAST);
        *good = 0;
    } else if (++*good >= SCALING_INTERVAL) {
        *factor = fminf(*factor * 2, SCALING_MOST);
        *good = 0;
    }
}

void cuda_scale_update(float *scaling, const float *norm, cudaStream_t stream) {
    scale_update<<<1, 1, 0, stream>>>(scaling, norm);
}
