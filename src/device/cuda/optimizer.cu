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

static __global__ void root(float *norm, const double *sums, int64_t pieces) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (!threadIdx.x) *norm = (float)sqrt(sum);
}

void cuda_gradient_norm(float *norm, const float *gradients, int64_t n, double *sums, cudaStream_t stream) {
    int64_t pieces = (n + cuda_piece - 1) / cuda_piece;
    if (pieces) squares<<<(unsigned)pieces, threads, 0, stream>>>(sums, gradients, n);
    root<<<1, threads, 0, stream>>>(norm, sums, pieces);
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
        if (u.kind == UPDATE_ADAMW) {
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

static __device__ inline void adamw(const struct update &u, const struct scalars &s, int64_t i) {
    float g = u.gradients[i] * s.clip, m = u.m[i] * s.beta1 + g * s.fresh1,
          v = u.v[i] * s.beta2 + g * g * s.fresh2;
    u.m[i] = m;
    u.v[i] = v;
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
    if (!s.going) return;
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
        int64_t at = piece.offset + i;
        if (u.kind == UPDATE_ADAMW)
            adamw(u, s, at);
        else if (u.kind == UPDATE_SGD)
            sgd(u, s, at);
        else
            lion(u, s, at);
    }
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
