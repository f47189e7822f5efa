/* The gradient of attention; see attention_body.h, which includes this.
 *
 *   p = e^(scale · q kᵀ - lse)      ds = scale · p (dy vᵀ - delta),  delta = Σ dy · y
 *   dv = pᵀ dy      dk = dsᵀ q      dq = ds k
 *
 * A segment of up to attention_whole tokens is one task per kv head and computes each score once. A longer
 * one gives a task per block of keys (for dk, dv) and one per block of queries (for dq), each with its own
 * scores: two of seven products more, but any number of threads is kept busy and every sum has one owner. */
struct backward_scratch {
    float *q, *dy, *k, *v, *kt, *vt, *dk, *dv; /* [block, padded]; kt, vt [padded, block] */
    float *p, *ds;                             /* [block, block] */
    float *lse, *delta;                        /* [block] */
    float *dq;                                 /* [blocks, group, block, padded] */
    float *pairs;                              /* the other form's own, in place of q, k, p … */
};

static struct backward_scratch backward_open(const struct flash *flash, int worker) {
    int64_t block = attention_block * flash->padded;
    float *at = worker_scratch(flash, worker);
    struct backward_scratch b = {.dk = at,
                                 .dv = at + block,
                                 .lse = at + 2 * block,
                                 .delta = at + 2 * block + attention_block,
                                 .dq = at + 2 * block + 2 * attention_block};
    b.q = b.pairs = b.dq + flash->group * attention_whole(flash->call->attributes) * flash->padded;
    b.dy = b.q + block;
    b.k = b.dy + block;
    b.v = b.k + block;
    b.kt = b.v + block;
    b.vt = b.kt + block;
    b.p = b.vt + block;
    b.ds = b.p + attention_block * attention_block;
    return b;
}

/* What a task covers: blocks of keys × blocks of queries at and after them. */
struct backward_part {
    int64_t segment, head;                                    /* kv head */
    int64_t first_keys, end_keys, first_queries, end_queries; /* blocks */
    bool keys, queries;                                       /* which gradients it yields */
};

/* p and ds of one row, from scores and dy vᵀ. */
static inline void backward_row(float *p, float *ds, int64_t visible, int64_t columns, float scale, float lse,
                                float delta) {
    for (int64_t j = 0; j < columns; j += lanes) {
        vi seen = v_iota() + (int32_t)j < (vi){0} + (int32_t)visible;
        vf weight = v_select(seen, v_exp(v_load(p + j) * scale - lse), (vf){0});
        v_store(p + j, weight);
        v_store(ds + j, weight * (v_load(ds + j) - delta) * scale);
    }
}

/* One block of queries against the loaded block of keys. */
static void backward_block(const struct flash *flash, const struct backward_scratch *b,
                           const struct backward_part *part, int64_t queries, int64_t keys, bool diagonal,
                           float *dq) {
    int64_t padded = flash->padded, block = attention_block;
    for (int64_t i = 0; i < queries; i += attention_band) {
        int64_t rows = smaller(attention_band, queries - i), columns = diagonal ? i + rows : keys;
        float *p = b->p + i * block, *ds = b->ds + i * block;
        block_multiply(false, rows, columns, flash->d, b->q + i * padded, padded, 1, b->kt, block, p, block);
        block_multiply(false, rows, columns, flash->d, b->dy + i * padded, padded, 1, b->vt, block, ds,
                       block);
        for (int64_t r = 0; r < rows; r++)
            backward_row(p + r * block, ds + r * block, diagonal ? i + r + 1 : keys, round_up(columns, lanes),
                         flash->scale, b->lse[i + r], b->delta[i + r]);
        if (part->queries)
            block_multiply(true, rows, padded, columns, ds, block, 1, b->k, padded, dq + i * padded, padded);
    }
    for (int64_t j = 0; part->keys && j < keys; j += attention_band) {
        int64_t rows = smaller(attention_band, keys - j), from = diagonal ? j : 0;
        block_multiply(true, rows, padded, queries - from, b->p + from * block + j, 1, block,
                       b->dy + from * padded, padded, b->dv + j * padded, padded);
        block_multiply(true, rows, padded, queries - from, b->ds + from * block + j, 1, block,
                       b->q + from * padded, padded, b->dk + j * padded, padded);
    }
}

static void load_row_sums(const struct flash *flash, const struct backward_scratch *b, int64_t row,
                          int64_t head, int64_t queries) {
    const float *lse = flash->call->in[4].data;
    for (int64_t i = 0; i < queries; i++) {
        b->lse[i] = lse[(row + i) * flash->heads + head];
        b->delta[i] = flash->delta[(row + i) * flash->heads + head];
    }
}

static void load_queries(const struct flash *flash, const struct backward_scratch *b, int64_t row,
                         int64_t head, int64_t queries) {
    const struct operand *in = flash->call->in;
    int64_t d = flash->d, stride = flash->heads * d, at = row * stride + head * d,
            rounded = round_up(queries, tile_rows);
    load_block(b->q, flash->padded, element(&in[0], at), in[0].dtype, stride, queries, rounded, d);
    load_block(b->dy, flash->padded, element(&in[5], at), in[5].dtype, stride, queries, rounded, d);
    load_row_sums(flash, b, row, head, queries);
}

static void load_keys(const struct flash *flash, const struct backward_scratch *b, int64_t row, int64_t head,
                      int64_t keys) {
    const struct operand *in = flash->call->in;
    int64_t d = flash->d, stride = flash->kv_heads * d, at = row * stride + head * d,
            rounded = round_up(keys, attention_lanes);
    load_block(b->k, flash->padded, element(&in[1], at), in[1].dtype, stride, keys, rounded, d);
    load_block(b->v, flash->padded, element(&in[2], at), in[2].dtype, stride, keys, rounded, d);
    transpose_block(b->kt, attention_block, b->k, rounded, flash->padded);
    transpose_block(b->vt, attention_block, b->v, rounded, flash->padded);
}

static void store_block(const struct operand *out, int64_t row, int64_t heads, int64_t head,
                        const float *block, int64_t rows, int64_t d, int64_t padded) {
    for (int64_t i = 0; out->data && i < rows; i++)
        store_row(out->data, out->dtype, ((row + i) * heads + head) * d, block + i * padded, 1, d);
}

static void backward_run_part(const struct flash *flash, const struct backward_part *part, int worker) {
    struct backward_scratch b = backward_open(flash, worker);
    const struct operand *out = flash->call->out;
    int64_t length = segment_length(flash, part->segment), first = flash->segments[part->segment];
    int64_t block = attention_block * flash->padded,
            dq_blocks = (part->end_queries - part->first_queries) * flash->group;
    if (part->queries) memset(b.dq, 0, (size_t)(dq_blocks * block) * sizeof(float));
    for (int64_t kb = part->first_keys; kb < part->end_keys; kb++) {
        int64_t row = first + kb * attention_block,
                keys = smaller(attention_block, length - kb * attention_block);
        flash->form->load_keys(flash, &b, row, part->head, keys);
        memset(b.dk, 0, (size_t)(2 * block) * sizeof(float)); /* dv follows */
        for (int64_t qb = kb > part->first_queries ? kb : part->first_queries; qb < part->end_queries; qb++)
            for (int64_t g = 0; g < flash->group; g++) {
                int64_t queries = smaller(attention_block, length - qb * attention_block);
                flash->form->load_queries(flash, &b, first + qb * attention_block,
                                          part->head * flash->group + g, queries);
                flash->form->backward(flash, &b, part, queries, keys, qb == kb,
                                      b.dq + ((qb - part->first_queries) * flash->group + g) * block);
            }
        if (!part->keys) continue;
        store_block(&out[1], row, flash->kv_heads, part->head, b.dk, keys, flash->d, flash->padded);
        store_block(&out[2], row, flash->kv_heads, part->head, b.dv, keys, flash->d, flash->padded);
    }
    for (int64_t i = 0; part->queries && i < dq_blocks; i++) {
        int64_t qb = part->first_queries + i / flash->group;
        store_block(&out[0], first + qb * attention_block, flash->heads,
                    part->head * flash->group + i % flash->group, b.dq + i * block,
                    smaller(attention_block, length - qb * attention_block), flash->d, flash->padded);
    }
}

static void backward_task(void *user, int task, int worker) {
    const struct flash *flash = user;
    int64_t s = segment_of(flash, task), local = task - flash->starts[s],
            blocks = attention_blocks(segment_length(flash, s));
    struct backward_part part = {.segment = s,
                                 .head = local % flash->kv_heads,
                                 .end_keys = blocks,
                                 .end_queries = blocks,
                                 .keys = true,
                                 .queries = true};
    if (segment_length(flash, s) > attention_whole(flash->call->attributes)) {
        int64_t block = local / flash->kv_heads;
        part.keys = block < blocks;
        part.queries = !part.keys;
        if (part.keys) { /* the first keys have the most queries: they come first */
            part.first_keys = part.first_queries = block;
            part.end_keys = block + 1;
        } else {
            part.first_queries = 2 * blocks - 1 - block;
            part.end_queries = part.end_keys = part.first_queries + 1;
        }
    }
    backward_run_part(flash, &part, worker);
}

static int backward_tasks(struct flash *flash) {
    int64_t tasks = 0, whole = attention_whole(flash->call->attributes);
    for (int64_t s = 0; s < flash->segment_count; s++) {
        int64_t length = segment_length(flash, s), blocks = attention_blocks(length);
        flash->starts[s] = (int32_t)tasks;
        tasks += flash->kv_heads * (length > whole ? 2 * blocks : blocks > 0);
    }
    return (int)tasks;
}

enum { delta_rows = 32 };

static void delta_task(void *user, int task, int worker) {
    (void)worker;
    const struct flash *flash = user;
    const struct operand *y = &flash->call->in[3], *dy = &flash->call->in[5];
    int64_t end = smaller(((int64_t)task + 1) * delta_rows, y->dim[0]) * flash->heads;
    for (int64_t row = (int64_t)task * delta_rows * flash->heads; row < end; row++) {
        const void *a = element(y, row * flash->d), *b = element(dy, row * flash->d);
        vf sum = {0};
        for (int64_t i = 0; i < flash->d; i += lanes)
            sum = v_fma(v_read(a, y->dtype, i, flash->d - i), v_read(b, dy->dtype, i, flash->d - i), sum);
        flash->delta[row] = v_sum(sum);
    }
}

static void attention_grad_run(const struct cpu_call *call, const struct attention_form *form) {
    int64_t tokens = call->in[0].dim[0];
    struct flash flash = flash_open(call, form, &call->in[6], tokens * call->attributes->heads,
                                    attention_grad_scratch(call->attributes));
    pool_run(call->pool, (int)((tokens + delta_rows - 1) / delta_rows), delta_task, &flash);
    pool_run(call->pool, backward_tasks(&flash), backward_task, &flash);
}

static const struct attention_form attention_floats = {forward_attend, load_keys, load_queries,
                                                       backward_block};
