/* Attention without a matrix of all scores (Dao et al. 2022, algorithms 1 and 4), written for any vector
 * width (simd_vector.h). Included by one file per instruction set. Equations: op/attention.c.
 *
 * A task is one block of queries of one kv head of one segment, with all query heads that share it: keys
 * and values are brought to the form of the products once for the group. Blocks and tasks follow from the
 * segments alone. */
#include "device/cpu/attention_layout.h"
#include "device/cpu/attention_tile.h"
#include "device/cpu/gemm.h"

struct flash;
struct forward;
struct forward_part;
struct keys;
struct key_block;
struct query_block;

/* How the products inside are made: from f32 (here), or from pairs of bf16 (attention_pair_body.h). */
struct attention_form {
    void (*attend)(const struct flash *flash, const struct forward *f, const struct forward_part *part,
                   const struct keys *keys);
    /* A block of keys and one of queries of a head, from row `row` of the micro-batch on. */
    void (*load_keys)(const struct flash *flash, const struct key_block *k, int64_t row, int64_t head);
    void (*load_queries)(const struct flash *flash, const struct query_block *q, int64_t row, int64_t head);
    /* What the two give each other's gradients; those whose place is NULL are not wanted. */
    void (*backward)(const struct flash *flash, const struct key_block *k, const struct query_block *q,
                     bool diagonal);
};

struct flash {
    const struct cpu_call *call;
    const struct attention_form *form;
    const struct gemm_kernel *pairs; /* what multiplies pairs of bf16, where the form does */
    int64_t heads, kv_heads, group, d, padded;
    float scale;
    const int32_t *segments;
    int64_t segment_count;
    int32_t *starts; /* [S+1] the first task of each segment */
    float *delta;    /* gradient: [T, H] Σ dy · y; decoding: what pieces of keys have summed */
    char *scratch;   /* of worker 0 */
    size_t scratch_bytes;
};

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* Element `at` of an operand that is f32, bf16 or f16. */
static inline void *element(const struct operand *operand, int64_t at) {
    return (char *)operand->data + (size_t)(at * v_bytes(operand->dtype));
}

/* Shares out the workspace: starts, `floats` of delta, then each worker's scratch. */
static struct flash flash_open(const struct cpu_call *call, const struct attention_form *form,
                               const struct operand *segments, int64_t floats, int64_t scratch) {
    const struct attributes *a = call->attributes;
    struct flash flash = {.call = call,
                          .form = form,
                          .pairs = call->gemm ? call->gemm->kernel : NULL,
                          .heads = a->heads,
                          .kv_heads = a->kv_heads,
                          .group = a->heads / a->kv_heads,
                          .d = a->head_dim,
                          .padded = attention_padded(a->head_dim),
                          .scale = a->scale,
                          .segments = segments->data,
                          .segment_count = segments->dim[0] - 1};
    char *at = call->workspace;
    flash.starts = (int32_t *)(void *)at;
    at += attention_table_bytes(segments->dim[0]);
    flash.delta = (float *)(void *)at;
    at += attention_table_bytes(floats);
    flash.scratch = at;
    flash.scratch_bytes = attention_table_bytes(scratch);
    return flash;
}

static inline float *worker_scratch(const struct flash *flash, int worker) {
    return (float *)(void *)(flash->scratch + (size_t)worker * flash->scratch_bytes);
}

static int64_t segment_of(const struct flash *flash, int task) {
    return cpu_task_owner(flash->starts, flash->segment_count, task);
}

static inline int64_t segment_length(const struct flash *flash, int64_t s) {
    return flash->segments[s + 1] - flash->segments[s];
}

/* The running softmax of some rows: the largest score so far, the sum of e^(score - most), and y, which is
 * summed with these weights. */
struct running {
    float *most, *sum; /* [rows] */
    float *y;          /* [rows, padded] */
    int64_t padded;
};

/* When a row's maximum grows, what was summed so far shrinks. */
static inline void running_raise(const struct running *run, int64_t row, float largest) {
    if (!(largest > run->most[row])) return;
    vf shrink = v_exp(v_splat(run->most[row] - largest)); /* e^-∞ = 0 at the first block */
    run->most[row] = largest;
    run->sum[row] *= shrink[0];
    float *y = run->y + row * run->padded;
    for (int64_t i = 0; i < run->padded; i += lanes) v_store(y + i, v_load(y + i) * shrink);
}

/* How many keys a row sees, and how many the next one sees more, up to `all`. */
struct sight {
    int64_t first, step, all;
};

/* Turns `rows` neighbouring rows of scores, `stride` apart, into weights e^(scale · s - most). Keys that a
 * row does not see get 0; without `masked`, all rows see all of them. Rows go side by side, since one alone
 * waits for its own maximum and sum. */
static inline __attribute__((always_inline)) void softmax_some(const int rows, const bool masked,
                                                               float *scores, int64_t stride, int64_t columns,
                                                               const struct sight *sight, float scale,
                                                               const struct running *run, int64_t row) {
    vf top[row_step], total[row_step];
    vi seen[row_step];
    for (int r = 0; r < rows; r++) {
        top[r] = v_splat(-INFINITY);
        total[r] = (vf){0};
        seen[r] = (vi){0} + (int32_t)smaller(sight->first + (row + r) * sight->step, sight->all);
    }
    for (int64_t j = 0; j < columns; j += lanes)
        for (int r = 0; r < rows; r++) {
            vf s = v_load(scores + r * stride + j) * scale;
            if (masked) s = v_select(v_iota() + (int32_t)j < seen[r], s, v_splat(-INFINITY));
            v_store(scores + r * stride + j, s);
            top[r] = v_max(s, top[r]);
        }
    for (int r = 0; r < rows; r++) running_raise(run, row + r, v_most(top[r]));
    for (int64_t j = 0; j < columns; j += lanes)
        for (int r = 0; r < rows; r++) {
            vf weight = v_exp(v_load(scores + r * stride + j) - run->most[row + r]);
            v_store(scores + r * stride + j, weight);
            total[r] += weight;
        }
    for (int r = 0; r < rows; r++) run->sum[row + r] += v_sum(total[r]);
}

/* The same for any number of rows; columns: a multiple of `lanes`. */
static inline void softmax_rows(float *scores, int64_t stride, int64_t rows, int64_t columns,
                                const struct sight *sight, float scale, const struct running *run) {
    bool masked = smaller(sight->first, sight->all) < columns;
    for (int64_t r = 0; r < rows; r += row_step, scores += row_step * stride) {
        if (rows - r >= row_step && !masked) {
            softmax_some(row_step, false, scores, stride, columns, sight, scale, run, r);
            continue;
        }
        switch (rows - r) {
        case 1: softmax_some(1, true, scores, stride, columns, sight, scale, run, r); break;
        case 2: softmax_some(2, true, scores, stride, columns, sight, scale, run, r); break;
        case 3: softmax_some(3, true, scores, stride, columns, sight, scale, run, r); break;
        default: softmax_some(row_step, true, scores, stride, columns, sight, scale, run, r); break;
        }
    }
}

/* The keys and values of one kv head of one segment. */
struct keys {
    const void *k, *v;
    enum dtype k_type, v_type;
    int64_t stride; /* elements between neighbouring keys */
    int64_t past;   /* keys before the segment's first query */
};

static struct keys keys_of(const struct flash *flash, int64_t s, int64_t head) {
    const struct operand *in = flash->call->in;
    if (!in[4].data) {
        int64_t stride = flash->kv_heads * flash->d, at = flash->segments[s] * stride + head * flash->d;
        return (struct keys){.k = element(&in[1], at),
                             .v = element(&in[2], at),
                             .k_type = in[1].dtype,
                             .v_type = in[2].dtype,
                             .stride = stride};
    }
    int64_t slot = ((const int32_t *)in[4].data)[s],
            at = (slot * flash->kv_heads + head) * in[6].dim[2] * flash->d;
    return (struct keys){.k = element(&in[6], at),
                         .v = element(&in[7], at),
                         .k_type = in[6].dtype,
                         .v_type = in[7].dtype,
                         .stride = flash->d,
                         .past = ((const int32_t *)in[5].data)[s]};
}

/* Scratch of a forward task. */
struct forward {
    float *q, *y, *most, *sum;  /* [group, block, padded] twice, [group, block] twice */
    float *k, *kt, *v, *scores; /* [block, padded], [padded, block], [block, padded], [block, block] */
};

static struct forward forward_open(const struct flash *flash, int worker) {
    int64_t rows = flash->group * attention_block, block = attention_block * flash->padded;
    struct forward f;
    f.y = worker_scratch(flash, worker);
    f.most = f.y + rows * flash->padded;
    f.sum = f.most + rows;
    f.k = f.sum + rows; /* from here on the other form has a layout of its own */
    f.kt = f.k + block;
    f.v = f.kt + block;
    f.scores = f.v + block;
    f.q = f.scores + attention_block * attention_block;
    return f;
}

/* One block of keys for `queries` rows of scratch from row `first` on. Row i sees keys j <= ahead + i. */
static void forward_block(const struct flash *flash, const struct forward *f, int64_t first, int64_t queries,
                          int64_t keys, int64_t ahead) {
    float *q = f->q + first * flash->padded, *y = f->y + first * flash->padded;
    const int64_t band = ahead >= keys - 1 ? attention_block : attention_band;
    for (int64_t b = 0; b < queries; b += band) {
        int64_t rows = smaller(band, queries - b), columns = smaller(keys, ahead + b + rows);
        if (columns <= 0) continue;
        struct running run = {f->most + first + b, f->sum + first + b, y + b * flash->padded, flash->padded};
        block_multiply(false, rows, columns, flash->d, q + b * flash->padded, flash->padded, 1, f->kt,
                       attention_block, f->scores, attention_block);
        softmax_rows(f->scores, attention_block, rows, round_up(columns, lanes),
                     &(struct sight){ahead + b + 1, 1, keys}, flash->scale, &run);
        block_multiply(true, rows, flash->padded, columns, f->scores, attention_block, 1, f->v, flash->padded,
                       run.y, flash->padded);
    }
}

/* What a forward task covers: the queries of one kv head's group. Several queries have a block of scratch
 * rows per head; a single one (decoding) has the heads of its group as neighbouring rows of one block. */
struct forward_part {
    int64_t segment, head, row, begin,
        queries;                  /* row: the first query's in the micro-batch; begin: in its segment */
    int64_t blocks, rows, stride; /* blocks of scratch rows, rows in each; rows between heads */
    bool stacked;
};

static struct forward_part forward_part_of(const struct flash *flash, int task) {
    struct forward_part part = {.segment = segment_of(flash, task)};
    int64_t length = segment_length(flash, part.segment), local = task - flash->starts[part.segment];
    part.head = local % flash->kv_heads;
    part.begin =
        (attention_blocks(length) - 1 - local / flash->kv_heads) * attention_block; /* the longest first */
    part.queries = smaller(attention_block, length - part.begin);
    part.row = flash->segments[part.segment] + part.begin;
    bool stacked = part.queries == 1 && flash->group <= attention_block;
    part.blocks = stacked ? 1 : flash->group;
    part.rows = stacked ? flash->group : part.queries;
    part.stacked = stacked;
    part.stride = stacked ? 1 : attention_block;
    return part;
}

/* Sums of no key yet. */
static void clear_forward(const struct flash *flash, const struct forward *f,
                          const struct forward_part *part) {
    int64_t padded = flash->padded, rounded = round_up(part->rows, row_step);
    for (int64_t b = 0; b < part->blocks; b++) {
        int64_t first = b * attention_block;
        memset(f->y + first * padded, 0, (size_t)(rounded * padded) * sizeof(float));
        for (int64_t i = 0; i < part->rows; i++) {
            f->most[first + i] = -INFINITY;
            f->sum[first + i] = 0;
        }
    }
}

static void load_forward(const struct flash *flash, const struct forward *f,
                         const struct forward_part *part) {
    const struct operand *q = &flash->call->in[0];
    int64_t padded = flash->padded, rounded = round_up(part->rows, row_step);
    for (int64_t b = 0; b < part->blocks; b++)
        memset(f->q + (b * attention_block + part->rows) * padded, 0,
               (size_t)((rounded - part->rows) * padded) * sizeof(float));
    for (int64_t g = 0; g < flash->group; g++) {
        int64_t at = (part->row * flash->heads + part->head * flash->group + g) * flash->d;
        load_block(f->q + g * part->stride * padded, padded, element(q, at), q->dtype,
                   flash->heads * flash->d, part->queries, part->queries, flash->d);
    }
}

static void store_forward(const struct flash *flash, const struct forward *f,
                          const struct forward_part *part) {
    const struct operand *y = &flash->call->out[0];
    float *lse = flash->call->out[1].data;
    for (int64_t g = 0; g < flash->group; g++)
        for (int64_t i = 0; i < part->queries; i++) {
            int64_t at = g * part->stride + i,
                    out = (part->row + i) * flash->heads + part->head * flash->group + g;
            store_row(y->data, y->dtype, out * flash->d, f->y + at * flash->padded, 1 / f->sum[at], flash->d);
            if (lse) lse[out] = f->most[at] + logf(f->sum[at]);
        }
}

#include "device/cpu/attention_decode_body.h"

/* All keys that the part's queries see, block after block, brought to f32 once for the group. */
static void forward_attend(const struct flash *flash, const struct forward *f,
                           const struct forward_part *part, const struct keys *keys) {
    int64_t all_keys = keys->past + part->begin + part->queries, stride = keys->stride,
            padded = flash->padded;
    load_forward(flash, f, part);
    for (int64_t at = 0; at < all_keys; at += attention_block) {
        int64_t count = smaller(attention_block, all_keys - at), rounded = round_up(count, attention_lanes);
        const char *k = (const char *)keys->k + at * stride * v_bytes(keys->k_type);
        const char *v = (const char *)keys->v + at * stride * v_bytes(keys->v_type);
        load_block(f->k, padded, k, keys->k_type, stride, count, rounded, flash->d);
        transpose_block(f->kt, attention_block, f->k, rounded, padded);
        load_block(f->v, padded, v, keys->v_type, stride, count, count, flash->d);
        for (int64_t b = 0; b < part->blocks; b++)
            forward_block(flash, f, b * attention_block, part->rows, count, keys->past + part->begin - at);
    }
}

static void forward_task(void *user, int task, int worker) {
    const struct flash *flash = user;
    struct forward f = forward_open(flash, worker);
    struct forward_part part = forward_part_of(flash, task);
    struct keys keys = keys_of(flash, part.segment, part.head);
    clear_forward(flash, &f, &part);
    if (part.stacked) {
        load_forward(flash, &f, &part);
        decode_attend(flash, &f, &part, &keys, 0, keys.past + part.begin + 1);
    } else {
        flash->form->attend(flash, &f, &part, &keys);
    }
    store_forward(flash, &f, &part);
}

/* Fills `starts` with a task per block of queries and kv head; returns the count. */
static int forward_tasks(struct flash *flash) {
    int64_t tasks = 0;
    for (int64_t s = 0; s < flash->segment_count; s++) {
        flash->starts[s] = (int32_t)tasks;
        tasks += attention_blocks(segment_length(flash, s)) * flash->kv_heads;
    }
    return (int)tasks;
}

static void attention_run(const struct cpu_call *call, const struct attention_form *form) {
    struct flash flash = flash_open(call, form, &call->in[3], 0, attention_scratch(call->attributes));
    pool_run(call->pool, forward_tasks(&flash), forward_task, &flash);
}

/* The cache's rows for one segment's own keys and values of one kv head. */
static void append_task(void *user, int task, int worker) {
    (void)worker;
    const struct flash *flash = user;
    const struct operand *in = flash->call->in;
    int64_t s = task / flash->kv_heads, head = task % flash->kv_heads, d = flash->d;
    int64_t slot = ((const int32_t *)in[4].data)[s], past = ((const int32_t *)in[5].data)[s];
    for (int part = 0; part < 2; part++) {
        const struct operand *from = &in[1 + part], *cache = &in[6 + part];
        for (int64_t t = 0; t < segment_length(flash, s); t++) {
            void *to = element(cache, ((slot * flash->kv_heads + head) * cache->dim[2] + past + t) * d);
            const void *row = element(from, ((flash->segments[s] + t) * flash->kv_heads + head) * d);
            for (int64_t i = 0; i < d; i += lanes)
                v_write(to, cache->dtype, i, d - i, v_read(row, from->dtype, i, d - i));
        }
    }
}

static void cache_attention_run(const struct cpu_call *call, const struct attention_form *form) {
    const struct attributes *a = call->attributes;
    int64_t pieces = call->in[4].dim[0] * a->kv_heads * attention_pieces(call->in[6].dim[2]);
    struct flash flash =
        flash_open(call, form, &call->in[3], pieces * attention_piece_floats(a), attention_scratch(a));
    int appends = (int)(flash.segment_count * flash.kv_heads);
    if (call->in[0].dim[0] == flash.segment_count) { /* a token each: less work than a round of the pool */
        for (int i = 0; i < appends; i++) append_task(&flash, i, 0);
        if (flash.group <= attention_block) {
            decode_run(&flash);
            return;
        }
    } else {
        pool_run(call->pool, appends, append_task, &flash);
    }
    pool_run(call->pool, forward_tasks(&flash), forward_task, &flash);
}

#include "device/cpu/attention_grad_body.h"
