/* The optimizer's passes over contiguous blocks, written for any vector width (simd_vector.h). Included by
 * one file per instruction set. Blocks are cut into pieces of a fixed size: sums do not depend on threads. */
#ifndef HONE_DEVICE_CPU_OPTIMIZER_BODY_H
#define HONE_DEVICE_CPU_OPTIMIZER_BODY_H

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
    const double *loss = call->in[1].data;
    *(float *)call->out[0].data = loss && !isfinite(*loss) ? NAN : (float)sqrt(sum);
}

/* ---- updates; the equations are in op/optimizer.c and op/optimizer_matrix.c ----
 *
 * Scalars are computed in f64, elements in f32 as torch does. A task is a piece of one part. */

struct update {
    const struct op_parts *parts;
    const int32_t *first; /* [parts + 1] task that a part begins at */
    const float *hyper, *gradients;
    float *parameters, *m, *v; /* state 0 and 1; NULL where there is none */
    const void *own;           /* what one optimizer's pieces read besides */
    double *columns;           /* Adafactor: [threads, most columns] scratch */
    int64_t most_columns;
    double norm, step;
    /* Of `n` elements from `at` of the part; offsets of the block are added by update_task. */
    void (*piece)(const struct update *u, const struct op_part *part, const float *hyper, int64_t at,
                  int64_t n);
};

static float clip_of(const struct update *u, const float *hyper) {
    double most = (double)hyper[HYPER_MAX_NORM], clip = most > 0 ? most / (u->norm + 1e-6) : 1;
    return (float)(clip < 1 ? clip : 1);
}

static float keep_of(const float *hyper) {
    return (float)(1 - (double)hyper[HYPER_RATE] * (double)hyper[HYPER_DECAY]);
}

static void update_task(void *user, int task, int worker) {
    (void)worker;
    const struct update *u = user;
    int64_t owner = cpu_task_owner(u->first, u->parts->count, task);
    const struct op_part *part = &u->parts->items[owner];
    int64_t at = (int64_t)(task - u->first[owner]) * optimizer_piece, left = part->rows * part->columns - at;
    u->piece(u, part, u->hyper + part->group * HYPER_COLUMNS, part->offset + at,
             left < optimizer_piece ? left : optimizer_piece);
}

/* False: the gradient is not finite and nothing changes. The step counter is moved on. */
static bool update_begin(struct update *u, const struct cpu_call *call) {
    int32_t *step = call->in[2].data;
    *u = (struct update){.parts = call->attributes->parts,
                         .hyper = call->in[1].data,
                         .parameters = call->in[3].data,
                         .gradients = call->in[4].data,
                         .m = call->in[5].data,
                         .v = call->in[6].data,
                         .norm = (double)*(const float *)call->in[0].data};
    if (!isfinite(u->norm)) return false;
    u->step = (double)++*step;
    return true;
}

/* Runs `piece` over the pieces of all parts, or with `skip_hidden` of those alone that are not hidden.
 * `first` has room for the parts and one more. */
static void update_pieces(struct update *u, struct pool *pool, int32_t *first, bool skip_hidden) {
    int32_t tasks = 0;
    for (int i = 0; i < u->parts->count; i++) {
        const struct op_part *part = &u->parts->items[i];
        first[i] = tasks;
        if (!skip_hidden || !part->hidden) tasks += (int32_t)optimizer_pieces(op_part_elements(part));
    }
    u->first = first;
    pool_run(pool, tasks, update_task, u);
}

static void update_each(const struct cpu_call *call,
                        void (*piece)(const struct update *u, const struct op_part *part, const float *hyper,
                                      int64_t at, int64_t n)) {
    struct update u;
    if (!update_begin(&u, call)) return;
    u.piece = piece;
    update_pieces(&u, call->pool, call->workspace, false);
}

/* A step's numbers. */
struct adamw {
    float clip, keep, beta1, beta2, rate, root, fresh1, fresh2, epsilon;
};

static struct adamw adamw_numbers(const struct update *u, const float *hyper) {
    double beta1 = (double)hyper[HYPER_BETA1], beta2 = (double)hyper[HYPER_BETA2];
    return (struct adamw){.clip = clip_of(u, hyper),
                          .keep = keep_of(hyper),
                          .beta1 = hyper[HYPER_BETA1],
                          .beta2 = hyper[HYPER_BETA2],
                          .rate = (float)((double)hyper[HYPER_RATE] / (1 - pow(beta1, u->step))),
                          .root = (float)(1 / sqrt(1 - pow(beta2, u->step))),
                          .fresh1 = (float)(1 - beta1),
                          .fresh2 = (float)(1 - beta2),
                          .epsilon = hyper[HYPER_EPSILON]};
}

/* n numbers of a part. */
static void adamw_span(const struct adamw *a, float *p, const float *g, float *m, float *v, int64_t n) {
    for (int64_t i = 0; i < n; i += lanes) {
        int64_t left = n - i;
        vf x = v_read(g, DTYPE_F32, i, left) * a->clip;
        vf m1 = v_read(m, DTYPE_F32, i, left) * a->beta1 + x * a->fresh1;
        vf v1 = v_read(v, DTYPE_F32, i, left) * a->beta2 + x * x * a->fresh2;
        vf moved = v_read(p, DTYPE_F32, i, left) * a->keep;
        moved -= a->rate * m1 / (v_sqrt(v1) * a->root + a->epsilon);
        v_write(m, DTYPE_F32, i, left, m1);
        v_write(v, DTYPE_F32, i, left, v1);
        v_write(p, DTYPE_F32, i, left, moved);
    }
}

static void adamw_piece(const struct update *u, const struct op_part *part, const float *hyper, int64_t at,
                        int64_t n) {
    struct adamw a = adamw_numbers(u, hyper);
    (void)part;
    adamw_span(&a, u->parameters + at, u->gradients + at, u->m + at, u->v + at, n);
}

static void sgd_piece(const struct update *u, const struct op_part *part, const float *hyper, int64_t at,
                      int64_t n) {
    (void)part;
    float clip = clip_of(u, hyper), momentum = hyper[HYPER_MOMENTUM];
    float fresh = u->step > 1 ? (float)(1 - (double)hyper[HYPER_DAMPENING]) : 1;
    float kept = u->step > 1 ? momentum : 0;
    for (int64_t i = at; i < at + n; i += lanes) {
        int64_t left = at + n - i;
        vf p = v_read(u->parameters, DTYPE_F32, i, left);
        vf g = v_read(u->gradients, DTYPE_F32, i, left) * clip + p * hyper[HYPER_DECAY], change = g;
        if (u->m) {
            vf m = v_read(u->m, DTYPE_F32, i, left) * kept + g * fresh;
            change = hyper[HYPER_NESTEROV] > 0 ? g + m * momentum : m;
            v_write(u->m, DTYPE_F32, i, left, m);
        }
        v_write(u->parameters, DTYPE_F32, i, left, p - change * hyper[HYPER_RATE]);
    }
}

static void lion_piece(const struct update *u, const struct op_part *part, const float *hyper, int64_t at,
                       int64_t n) {
    (void)part;
    float clip = clip_of(u, hyper), keep = keep_of(hyper), beta1 = hyper[HYPER_BETA1],
          beta2 = hyper[HYPER_BETA2];
    float fresh1 = (float)(1 - (double)beta1), fresh2 = (float)(1 - (double)beta2);
    const vf rate = v_splat(hyper[HYPER_RATE]), none = {0};
    for (int64_t i = at; i < at + n; i += lanes) {
        int64_t left = at + n - i;
        vf g = v_read(u->gradients, DTYPE_F32, i, left) * clip, m = v_read(u->m, DTYPE_F32, i, left);
        vf p = v_read(u->parameters, DTYPE_F32, i, left) * keep, mixed = m * beta1 + g * fresh1;
        p -= v_select(mixed > none, rate, none) - v_select(mixed < none, rate, none);
        v_write(u->m, DTYPE_F32, i, left, m * beta2 + g * fresh2);
        v_write(u->parameters, DTYPE_F32, i, left, p);
    }
}

static void adamw_run(const struct cpu_call *call) { update_each(call, adamw_piece); }
static void sgd_run(const struct cpu_call *call) { update_each(call, sgd_piece); }
static void lion_run(const struct cpu_call *call) { update_each(call, lion_piece); }

struct average_job {
    const float *parameters;
    float *average;
    int64_t elements;
    float fresh;
};

static void average_task(void *user, int task, int worker) {
    (void)worker;
    const struct average_job *job = user;
    int64_t at = (int64_t)task * optimizer_piece, end = at + piece_length(job->elements, task);
    for (int64_t i = at; i < end; i += lanes) {
        vf p = v_read(job->parameters, false, i, end - i), a = v_read(job->average, false, i, end - i);
        v_write(job->average, false, i, end - i, job->fresh < 1 ? a + (p - a) * job->fresh : p);
    }
}

/* Runs after the update, which has moved the step counter. */
static void average_run(const struct cpu_call *call) {
    if (!isfinite(*(const float *)call->in[0].data)) return;
    double keep =
        *(const int32_t *)call->in[2].data > 1 ? (double)((const float *)call->in[1].data)[HYPER_AVERAGE] : 0;
    struct average_job job = {.parameters = call->in[3].data,
                              .average = call->in[4].data,
                              .elements = optimizer_elements(&call->in[3]),
                              .fresh = (float)(1 - keep)};
    pool_run(call->pool, (int)optimizer_pieces(job.elements), average_task, &job);
}

/* Adafactor: a task is a whole part, since its sums run over rows and columns. */

/* r and c of one matrix move by its squares; returns the mean of r. */
static double move_factors(const struct op_part *part, const float *g, double clip, double beta, float *rows,
                           float *columns, double *sums) {
    double mean = 0, squares = clip * clip;
    memset(sums, 0, (size_t)part->columns * sizeof *sums);
    for (int64_t r = 0; r < part->rows; r++) {
        const float *line = g + r * part->columns;
        double row = squares_of(line, part->columns) * squares / (double)part->columns + 1e-30;
        for (int64_t c = 0; c < part->columns; c++) sums[c] += (double)line[c] * (double)line[c];
        rows[r] = (float)(beta * (double)rows[r] + (1 - beta) * row);
        mean += (double)rows[r] / (double)part->rows;
    }
    for (int64_t c = 0; c < part->columns; c++)
        columns[c] = (float)(beta * (double)columns[c] +
                             (1 - beta) * (sums[c] * squares / (double)part->rows + 1e-30));
    return mean;
}

/* One row of the update is g · row_factor / √columns (columns NULL: a vector's own second moments stand
 * there, an element each). Returns the sum of its squares; with p it is also taken off: p = keep p - rate u.
 */
static double row_update(const float *g, const float *moments, float factor, int64_t n, float *p, float keep,
                         float rate) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += lanes) {
        vf root = v_sqrt(v_read(moments, DTYPE_F32, i, n - i));
        vf u = v_read(g, DTYPE_F32, i, n - i) * factor / v_select(root > (vf){0}, root, v_splat(1));
        if (p)
            v_write(p, DTYPE_F32, i, n - i, v_read(p, DTYPE_F32, i, n - i) * keep - u * rate);
        else
            sum += (double)v_sum(u * u);
    }
    return sum;
}

static void adafactor_task(void *user, int task, int worker) {
    const struct update *u = user;
    const struct op_part *part = &u->parts->items[task];
    const float *hyper = u->hyper + part->group * HYPER_COLUMNS, *g = u->gradients + part->offset;
    bool vector = part->columns == 1;
    int64_t n = part->rows * part->columns, lines = vector ? 1 : part->rows,
            width = vector ? n : part->columns;
    float *p = u->parameters + part->offset, *rows = u->m + part->slot[0];
    float *moments = vector ? rows : rows + op_padded(part->rows), clip = clip_of(u, hyper);
    double beta = 1 - pow(u->step, -(double)hyper[HYPER_DECAY_RATE]), rate = (double)hyper[HYPER_RATE],
           sum = 0;
    double mean = 1;
    if (vector)
        for (int64_t i = 0; i < n; i++) {
            double x = (double)g[i] * (double)clip;
            rows[i] = (float)(beta * (double)rows[i] + (1 - beta) * (x * x + 1e-30));
        }
    else
        mean =
            move_factors(part, g, (double)clip, beta, rows, moments, u->columns + worker * u->most_columns);
    if (hyper[HYPER_SCALE] > 0) rate *= fmax(1e-3, sqrt(squares_of(p, n) / (double)n));
    for (int pass = 0; pass < 2; pass++) {
        double most = fmax(1, sqrt(sum / (double)n) / (double)hyper[HYPER_CLIP]);
        for (int64_t r = 0; r < lines; r++) {
            float factor = vector ? clip : (float)((double)clip / sqrt((double)rows[r] / mean));
            sum += row_update(g + r * width, moments, factor, width, pass ? p + r * width : NULL,
                              (float)(1 - rate * (double)hyper[HYPER_DECAY]), (float)(rate / most));
        }
    }
}

static void adafactor_run(const struct cpu_call *call) {
    struct update u;
    if (!update_begin(&u, call)) return;
    u.columns = call->workspace;
    for (int i = 0; i < u.parts->count; i++)
        if (u.parts->items[i].columns > u.most_columns) u.most_columns = u.parts->items[i].columns;
    pool_run(call->pool, u.parts->count, adafactor_task, &u);
}

#endif
