/* Attention of a single query to cached keys (decoding), for one kv head and up to decode_rows of its query
 * heads; see attention_body.h, which includes this.
 *
 * The time is that of reading the cache, which since the last token has left the near caches: keys and values
 * are read where they lie, once, each asked for some rows ahead. */
enum { decode_rows = 4, decode_ahead = 12 };

struct decode {
    const char *k, *v;        /* the block's first rows */
    int64_t k_bytes, v_bytes; /* between rows */
    enum dtype k_type, v_type;
    int64_t d, padded, keys;
    const float *q; /* [rows, padded] */
    float *scores;  /* [rows, attention_block] */
    float *y;       /* [rows, padded] */
};

static inline void decode_fetch(const char *row, int64_t elements, enum dtype dtype) {
    for (int64_t at = 0; at < elements * v_bytes(dtype); at += 64) __builtin_prefetch(row + at);
}

/* scores = q · k; values are fetched meanwhile. */
static inline __attribute__((always_inline)) void decode_scores(const struct decode *c, const int rows) {
    for (int64_t j = 0; j < c->keys; j++) {
        const char *k = c->k + j * c->k_bytes;
        vf sums[decode_rows];
        decode_fetch(k + decode_ahead * c->k_bytes, c->d, c->k_type);
        decode_fetch(c->v + j * c->v_bytes, c->d, c->v_type);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sums[r] = (vf){0};
        for (int64_t i = 0; i < c->d; i += lanes) {
            vf key = v_read(k, c->k_type, i, c->d - i);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sums[r] = v_fma(key, v_load(c->q + r * c->padded + i), sums[r]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) c->scores[r * attention_block + j] = v_sum(sums[r]);
    }
}

/* Vectors of a row that are summed at once: as many as the padding of a row always has. */
enum { decode_vectors = attention_lanes / lanes >= 2 ? 2 : 1 };

/* y += scores · v. */
static inline __attribute__((always_inline)) void decode_values(const struct decode *c, const int rows) {
    for (int64_t i = 0; i < c->d; i += decode_vectors * lanes) {
        vf sums[decode_rows][decode_vectors];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < decode_vectors; v++)
                sums[r][v] = v_load(c->y + r * c->padded + i + v * lanes);
        for (int64_t j = 0; j < c->keys; j++) {
            vf value[decode_vectors];
#pragma GCC unroll 2
            for (int v = 0; v < decode_vectors; v++) {
                int64_t at = i + v * lanes, left = c->d - at;
                value[v] = v_read(c->v + j * c->v_bytes, c->v_type, at, left > 0 ? left : 0);
            }
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                vf weight = v_splat(c->scores[r * attention_block + j]);
#pragma GCC unroll 2
                for (int v = 0; v < decode_vectors; v++) sums[r][v] = v_fma(weight, value[v], sums[r][v]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < decode_vectors; v++)
                v_store(c->y + r * c->padded + i + v * lanes, sums[r][v]);
    }
}

static void decode_block(const struct decode *c, int64_t rows, float scale, float *most, float *sum) {
    switch (rows) { /* sums stay in registers when the count is a constant */
    case 1: decode_scores(c, 1); break;
    case 2: decode_scores(c, 2); break;
    case 3: decode_scores(c, 3); break;
    default: decode_scores(c, 4); break;
    }
    softmax_rows(c->scores, attention_block, rows, round_up(c->keys, lanes),
                 &(struct sight){c->keys, 0, c->keys}, scale, &(struct running){most, sum, c->y, c->padded});
    switch (rows) {
    case 1: decode_values(c, 1); break;
    case 2: decode_values(c, 2); break;
    case 3: decode_values(c, 3); break;
    default: decode_values(c, 4); break;
    }
}

/* Keys [from, end), block after block. `part` has its query heads stacked. */
static void decode_attend(const struct flash *flash, const struct forward *f, const struct forward_part *part,
                          const struct keys *keys, int64_t from, int64_t end) {
    struct decode c = {.k_bytes = keys->stride * v_bytes(keys->k_type),
                       .v_bytes = keys->stride * v_bytes(keys->v_type),
                       .k_type = keys->k_type,
                       .v_type = keys->v_type,
                       .d = flash->d,
                       .padded = flash->padded,
                       .scores = f->scores};
    for (int64_t at = from; at < end; at += attention_block) {
        c.k = (const char *)keys->k + at * c.k_bytes;
        c.v = (const char *)keys->v + at * c.v_bytes;
        c.keys = smaller(attention_block, end - at);
        for (int64_t r = 0; r < part->rows; r += decode_rows) {
            c.q = f->q + r * flash->padded;
            c.y = f->y + r * flash->padded;
            decode_block(&c, smaller(decode_rows, part->rows - r), flash->scale, f->most + r, f->sum + r);
        }
    }
}

/* ---- one query of every sequence: a task is a piece of the keys of one kv head, so that there are enough
 * ---- of them for all threads; pieces follow from the keys alone, and are joined in their order */

static float *piece_sums(const struct flash *flash, int64_t task) {
    return flash->delta + task * attention_piece_floats(flash->call->attributes);
}

static void piece_task(void *user, int task, int worker) {
    const struct flash *flash = user;
    struct forward f = forward_open(flash, worker);
    int64_t s = segment_of(flash, task), local = task - flash->starts[s], piece = local / flash->kv_heads;
    struct forward_part part = {.segment = s,
                                .head = local % flash->kv_heads,
                                .row = flash->segments[s],
                                .queries = 1,
                                .blocks = 1,
                                .rows = flash->group,
                                .stride = 1,
                                .stacked = true};
    struct keys keys = keys_of(flash, s, part.head);
    f.y = piece_sums(flash, task);
    f.most = f.y + flash->group * flash->padded;
    f.sum = f.most + flash->group;
    memset(f.y, 0, (size_t)(flash->group * flash->padded) * sizeof *f.y);
    for (int64_t r = 0; r < flash->group; r++) {
        f.most[r] = -INFINITY;
        f.sum[r] = 0;
    }
    load_forward(flash, &f, &part);
    decode_attend(flash, &f, &part, &keys, piece * attention_piece,
                  smaller((piece + 1) * attention_piece, keys.past + 1));
}

/* Adds what a later piece has summed to the first. */
static void join_piece(float *y, float *most, float *sum, const float *more_y, float more_most,
                       float more_sum, int64_t padded) {
    float larger = *most > more_most ? *most : more_most;
    float here = v_exp(v_splat(*most - larger))[0], there = v_exp(v_splat(more_most - larger))[0];
    for (int64_t i = 0; i < padded; i += lanes)
        v_store(y + i, v_load(y + i) * here + v_load(more_y + i) * there);
    *sum = *sum * here + more_sum * there;
    *most = larger;
}

/* The sums of one sequence's pieces, to y. */
static void join_task(void *user, int s, int worker) {
    const struct flash *flash = user;
    const struct operand *y = &flash->call->out[0];
    float *lse = flash->call->out[1].data;
    int64_t group = flash->group, padded = flash->padded;
    (void)worker;
    for (int64_t h = 0; h < flash->heads; h++) {
        int64_t r = h % group, out = flash->segments[s] * flash->heads + h,
                first = flash->starts[s] + h / group;
        float *sums = piece_sums(flash, first), *most = sums + group * padded + r, *sum = most + group;
        for (int64_t task = first + flash->kv_heads; task < flash->starts[s + 1]; task += flash->kv_heads) {
            const float *more = piece_sums(flash, task), *of_row = more + group * padded + r;
            join_piece(sums + r * padded, most, sum, more + r * padded, of_row[0], of_row[group], padded);
        }
        store_row(y->data, y->dtype, out * flash->d, sums + r * padded, 1 / *sum, flash->d);
        if (lse) lse[out] = *most + logf(*sum);
    }
}

static void decode_run(struct flash *flash) {
    const int32_t *past = flash->call->in[5].data;
    int64_t tasks = 0;
    for (int64_t s = 0; s < flash->segment_count; s++) {
        flash->starts[s] = (int32_t)tasks;
        tasks += attention_pieces(past[s] + 1) * flash->kv_heads;
    }
    flash->starts[flash->segment_count] = (int32_t)tasks;
    pool_run(flash->call->pool, (int)tasks, piece_task, flash);
    if (flash->segment_count == 1) /* less work than a round of the pool */
        join_task(flash, 0, 0);
    else
        pool_run(flash->call->pool, (int)flash->segment_count, join_task, flash);
}
