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
    for (int64_t r = 0; r < rows; r++)
        softmax_row(c->scores + r * attention_block, c->keys, round_up(c->keys, lanes), scale, most + r,
                    sum + r, c->y + r * c->padded, c->padded);
    switch (rows) {
    case 1: decode_values(c, 1); break;
    case 2: decode_values(c, 2); break;
    case 3: decode_values(c, 3); break;
    default: decode_values(c, 4); break;
    }
}

/* All keys up to the query's own, block after block. `part` has its query heads stacked. */
static void decode_attend(const struct flash *flash, const struct forward *f, const struct forward_part *part,
                          const struct keys *keys) {
    int64_t all = keys->past + 1;
    struct decode c = {.k_bytes = keys->stride * v_bytes(keys->k_type),
                       .v_bytes = keys->stride * v_bytes(keys->v_type),
                       .k_type = keys->k_type,
                       .v_type = keys->v_type,
                       .d = flash->d,
                       .padded = flash->padded,
                       .scores = f->scores};
    for (int64_t at = 0; at < all; at += attention_block) {
        c.k = (const char *)keys->k + at * c.k_bytes;
        c.v = (const char *)keys->v + at * c.v_bytes;
        c.keys = smaller(attention_block, all - at);
        for (int64_t r = 0; r < part->rows; r += decode_rows) {
            c.q = f->q + r * flash->padded;
            c.y = f->y + r * flash->padded;
            decode_block(&c, smaller(decode_rows, part->rows - r), flash->scale, f->most + r, f->sum + r);
        }
    }
}
