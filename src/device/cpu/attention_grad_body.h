/* The gradient of attention; see attention_body.h, which includes this.
 *
 *   p = e^(scale · q kᵀ - lse)      ds = scale · p (dy vᵀ - delta),  delta = Σ dy · y
 *   dv = pᵀ dy      dk = dsᵀ q      dq = ds k
 *
 * A segment of up to attention_whole tokens is one task per kv head and computes each score once. A longer
 * one gives a task per block of keys (for dk, dv) and one per block of queries (for dq), each with its own
 * scores: two of seven products more, but any number of threads is kept busy and every sum has one owner. */

/* A block of keys in scratch, and what is summed for it. */
struct key_block {
    float *dk, *dv; /* [block, padded]; NULL: not wanted */
    float *form;    /* k [block, padded], k and v transposed [padded, block]; or the other form's own */
    float *beside;  /* where a pair of blocks has its scores: p, ds [block, block] … */
    int64_t keys;
};

/* A block of queries of one head. */
struct query_block {
    float *dq;          /* [block, padded]; NULL: not wanted */
    float *lse, *delta; /* [block] */
    float *form;        /* q, dy [block, padded]; or the other form's own */
    int64_t queries;
};

/* What a task covers: blocks of keys × blocks of queries at and after them. */
struct backward_part {
    int64_t segment, head;                                    /* kv head */
    int64_t first_keys, end_keys, first_queries, end_queries; /* blocks */
    bool keys, queries;                                       /* which gradients it yields */
    float *scratch; /* a block of keys for each of the task's, or one if it yields none of their gradients;
                     * a block of queries for each head; and the place beside them */
};

static struct key_block key_block_of(const struct flash *flash, const struct backward_part *part,
                                     int64_t block) {
    const struct attributes *a = flash->call->attributes;
    int64_t size = attention_block * flash->padded, slot = part->keys ? block - part->first_keys : 0;
    float *at = part->scratch + slot * attention_key_floats(a);
    float *beside = part->scratch + attention_whole(a) / attention_block * attention_key_floats(a) +
                    flash->group * attention_query_floats(a);
    return (struct key_block){
        .dk = part->keys ? at : NULL,
        .dv = part->keys ? at + size : NULL,
        .form = at + 2 * size,
        .beside = beside,
        .keys = smaller(attention_block, segment_length(flash, part->segment) - block * attention_block)};
}

static struct query_block query_block_of(const struct flash *flash, const struct backward_part *part,
                                         int64_t block, int64_t head) {
    const struct attributes *a = flash->call->attributes;
    int64_t size = attention_block * flash->padded;
    float *at = part->scratch + attention_whole(a) / attention_block * attention_key_floats(a) +
                head * attention_query_floats(a);
    return (struct query_block){
        .dq = part->queries ? at : NULL,
        .lse = at + size,
        .delta = at + size + attention_block,
        .form = at + size + 2 * attention_block,
        .queries = smaller(attention_block, segment_length(flash, part->segment) - block * attention_block)};
}

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

static void backward_block(const struct flash *flash, const struct key_block *k, const struct query_block *q,
                           bool diagonal) {
    const int64_t padded = flash->padded, block = attention_block, size = block * padded, d = flash->d;
    const float *rows_k = k->form, *kt = k->form + size, *vt = kt + size, *rows_q = q->form,
                *dy = q->form + size;
    float *p = k->beside, *ds = p + block * block;
    const int64_t band = diagonal ? attention_band : attention_block;
    for (int64_t i = 0; i < q->queries; i += band) {
        int64_t rows = smaller(band, q->queries - i), columns = diagonal ? i + rows : k->keys;
        float *p_i = p + i * block, *ds_i = ds + i * block;
        block_multiply(false, rows, columns, d, rows_q + i * padded, padded, 1, kt, block, p_i, block);
        block_multiply(false, rows, columns, d, dy + i * padded, padded, 1, vt, block, ds_i, block);
        for (int64_t r = 0; r < rows; r++)
            backward_row(p_i + r * block, ds_i + r * block, diagonal ? i + r + 1 : k->keys,
                         round_up(columns, lanes), flash->scale, q->lse[i + r], q->delta[i + r]);
        if (q->dq)
            block_multiply(true, rows, padded, columns, ds_i, block, 1, rows_k, padded, q->dq + i * padded,
                           padded);
    }
    for (int64_t j = 0; k->dk && j < k->keys; j += band) {
        int64_t rows = smaller(band, k->keys - j), from = diagonal ? j : 0, depth = q->queries - from;
        block_multiply(true, rows, padded, depth, p + from * block + j, 1, block, dy + from * padded, padded,
                       k->dv + j * padded, padded);
        block_multiply(true, rows, padded, depth, ds + from * block + j, 1, block, rows_q + from * padded,
                       padded, k->dk + j * padded, padded);
    }
}

static void load_row_sums(const struct flash *flash, const struct query_block *q, int64_t row, int64_t head) {
    const float *lse = flash->call->in[4].data;
    for (int64_t i = 0; i < q->queries; i++) {
        q->lse[i] = lse[(row + i) * flash->heads + head];
        q->delta[i] = flash->delta[(row + i) * flash->heads + head];
    }
}

static void load_queries(const struct flash *flash, const struct query_block *q, int64_t row, int64_t head) {
    const struct operand *in = flash->call->in;
    int64_t d = flash->d, stride = flash->heads * d, at = row * stride + head * d,
            rounded = round_up(q->queries, row_step);
    float *rows = q->form, *dy = q->form + attention_block * flash->padded;
    load_block(rows, flash->padded, element(&in[0], at), in[0].dtype, stride, q->queries, rounded, d);
    load_block(dy, flash->padded, element(&in[5], at), in[5].dtype, stride, q->queries, rounded, d);
    load_row_sums(flash, q, row, head);
}

static void load_keys(const struct flash *flash, const struct key_block *k, int64_t row, int64_t head) {
    const struct operand *in = flash->call->in;
    int64_t d = flash->d, stride = flash->kv_heads * d, at = row * stride + head * d,
            rounded = round_up(k->keys, attention_lanes), size = attention_block * flash->padded;
    float *rows = k->form, *values = k->beside + 2 * attention_block * attention_block;
    load_block(rows, flash->padded, element(&in[1], at), in[1].dtype, stride, k->keys, rounded, d);
    load_block(values, flash->padded, element(&in[2], at), in[2].dtype, stride, k->keys, rounded, d);
    transpose_block(rows + size, attention_block, rows, rounded, flash->padded);
    transpose_block(rows + 2 * size, attention_block, values, rounded, flash->padded);
}

static void store_block(const struct operand *out, int64_t row, int64_t heads, int64_t head,
                        const float *block, int64_t rows, int64_t d, int64_t padded) {
    for (int64_t i = 0; out->data && i < rows; i++) {
        if (i + rows_ahead < rows)
            ask_for(element(out, ((row + i + rows_ahead) * heads + head) * d), d * v_bytes(out->dtype), true);
        store_row(out->data, out->dtype, ((row + i) * heads + head) * d, block + i * padded, 1, d);
    }
}

static void load_part_keys(const struct flash *flash, const struct backward_part *part, int64_t block) {
    struct key_block k = key_block_of(flash, part, block);
    int64_t row = flash->segments[part->segment] + block * attention_block;
    flash->form->load_keys(flash, &k, row, part->head);
    if (k.dk) memset(k.dk, 0, (size_t)(2 * attention_block * flash->padded) * sizeof *k.dk); /* dv follows */
}

/* All keys of the part that a block of queries sees, for all heads of the group. */
static void backward_queries(const struct flash *flash, const struct backward_part *part, int64_t block) {
    int64_t row = flash->segments[part->segment] + block * attention_block;
    for (int64_t g = 0; g < flash->group; g++) {
        struct query_block q = query_block_of(flash, part, block, g);
        flash->form->load_queries(flash, &q, row, part->head * flash->group + g);
        if (q.dq) memset(q.dq, 0, (size_t)(attention_block * flash->padded) * sizeof *q.dq);
    }
    for (int64_t kb = part->first_keys; kb < part->end_keys && kb <= block; kb++) {
        if (!part->keys) load_part_keys(flash, part, kb);
        struct key_block k = key_block_of(flash, part, kb);
        for (int64_t g = 0; g < flash->group; g++) {
            struct query_block q = query_block_of(flash, part, block, g);
            flash->form->backward(flash, &k, &q, block == kb);
        }
    }
    for (int64_t g = 0; part->queries && g < flash->group; g++) {
        struct query_block q = query_block_of(flash, part, block, g);
        store_block(&flash->call->out[0], row, flash->heads, part->head * flash->group + g, q.dq, q.queries,
                    flash->d, flash->padded);
    }
}

static void backward_run_part(const struct flash *flash, const struct backward_part *part) {
    const struct operand *out = flash->call->out;
    for (int64_t kb = part->first_keys; part->keys && kb < part->end_keys; kb++)
        load_part_keys(flash, part, kb);
    for (int64_t qb = part->first_queries; qb < part->end_queries; qb++) backward_queries(flash, part, qb);
    for (int64_t kb = part->first_keys; part->keys && kb < part->end_keys; kb++) {
        struct key_block k = key_block_of(flash, part, kb);
        int64_t row = flash->segments[part->segment] + kb * attention_block;
        store_block(&out[1], row, flash->kv_heads, part->head, k.dk, k.keys, flash->d, flash->padded);
        store_block(&out[2], row, flash->kv_heads, part->head, k.dv, k.keys, flash->d, flash->padded);
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
                                 .queries = true,
                                 .scratch = worker_scratch(flash, worker)};
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
    backward_run_part(flash, &part);
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
