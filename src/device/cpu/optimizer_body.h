/* The optimizer's passes over contiguous blocks, written for any vector width (simd_vector.h). Included by
 * one file per instruction set. Blocks are cut into pieces of a fixed size: sums do not depend on threads. */
#include "device/cpu/optimizer_kernels.h"
#include "device/cpu/simd_vector.h"

static inline int64_t piece_length(int64_t elements, int task) {
    int64_t left = elements - (int64_t)task * optimizer_piece;
    return left < optimizer_piece ? left : optimizer_piece;
}

/* Sum of squares in f64, where no f32 squared overflows; NaN and infinity stay in the sum. */
static double squares_of(const float *p, int64_t n) {
    vd low = {0}, high = {0};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        vf_half a, b;
        memcpy(&a, p + i, sizeof a);
        memcpy(&b, p + i + lanes / 2, sizeof b);
        vd x = __builtin_convertvector(a, vd), y = __builtin_convertvector(b, vd);
        low += x * x;
        high += y * y;
    }
    double sum = 0;
    low += high;
    for (int j = 0; j < lanes / 2; j++) sum += low[j];
    for (; i < n; i++) sum += (double)p[i] * (double)p[i];
    return sum;
}

struct squares_job {
    const float *data;
    int64_t elements;
    double *sums; /* [pieces] */
};

static void squares_task(void *user, int task, int worker) {
    (void)worker;
    const struct squares_job *job = user;
    job->sums[task] =
        squares_of(job->data + (int64_t)task * optimizer_piece, piece_length(job->elements, task));
}

static void gradient_norm_run(const struct cpu_call *call) {
    int64_t elements = optimizer_elements(&call->in[0]);
    int pieces = (int)optimizer_pieces(elements);
    struct squares_job job = {.data = call->in[0].data, .elements = elements, .sums = call->workspace};
    pool_run(call->pool, pieces, squares_task, &job);
    double sum = 0;
    for (int i = 0; i < pieces; i++) sum += job.sums[i];
    *(float *)call->out[0].data = (float)sqrt(sum);
}

struct adamw_job {
    float *parameters, *m, *v;
    const float *gradients;
    int64_t elements;
    float clip, keep;                   /* factors of the gradient and, for weight decay, of the parameter */
    float beta1, beta2, fresh1, fresh2; /* fresh = 1 - beta */
    float rate, root, epsilon;          /* rate / (1 - β1ᵗ), 1 / √(1 - β2ᵗ) */
};

static void adamw_task(void *user, int task, int worker) {
    (void)worker;
    const struct adamw_job *job = user;
    int64_t first = (int64_t)task * optimizer_piece, n = piece_length(job->elements, task);
    float *parameters = job->parameters + first, *ms = job->m + first, *vs = job->v + first;
    const float *gradients = job->gradients + first;
    for (int64_t i = 0; i < n; i += lanes) {
        int64_t left = n - i;
        vf g = v_read(gradients, false, i, left) * job->clip;
        vf m = v_read(ms, false, i, left) * job->beta1 + g * job->fresh1;
        vf v = v_read(vs, false, i, left) * job->beta2 + g * g * job->fresh2;
        vf p = v_read(parameters, false, i, left) * job->keep;
        p -= job->rate * m / (v_sqrt(v) * job->root + job->epsilon);
        v_write(ms, false, i, left, m);
        v_write(vs, false, i, left, v);
        v_write(parameters, false, i, left, p);
    }
}

/* The equations are in op/optimizer.c. Scalars are computed in f64, elements in f32 as torch does. */
static void adamw_run(const struct cpu_call *call) {
    double norm = (double)*(const float *)call->in[0].data;
    const float *hyper = call->in[1].data;
    int32_t *step = call->in[6].data;
    if (!isfinite(norm)) return;
    double beta1 = (double)hyper[1], beta2 = (double)hyper[2], most = (double)hyper[5], t = (double)*step + 1;
    double clip = most > 0 ? most / (norm + 1e-6) : 1;
    struct adamw_job job = {
        .parameters = call->in[2].data,
        .gradients = call->in[3].data,
        .m = call->in[4].data,
        .v = call->in[5].data,
        .elements = optimizer_elements(&call->in[2]),
        .clip = (float)(clip < 1 ? clip : 1),
        .keep = (float)(1 - (double)hyper[0] * (double)hyper[4]),
        .beta1 = hyper[1],
        .beta2 = hyper[2],
        .fresh1 = (float)(1 - beta1),
        .fresh2 = (float)(1 - beta2),
        .rate = (float)((double)hyper[0] / (1 - pow(beta1, t))),
        .root = (float)(1 / sqrt(1 - pow(beta2, t))),
        .epsilon = hyper[3],
    };
    pool_run(call->pool, (int)optimizer_pieces(job.elements), adamw_task, &job);
    *step += 1;
}
