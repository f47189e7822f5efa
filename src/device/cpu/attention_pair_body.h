/* Attention whose products are made from pairs of bf16 neighbours along the sum, by the tiles of a matrix
 * product (gemm_kernel.h); see attention_body.h, which includes this where the instructions are there.
 *
 * Queries, keys and values are bf16 already and are read where they lie; weights, their gradients and dy,
 * where it is f32, are rounded to bf16 before they are multiplied (Dao 2023, FlashAttention-2, does the
 * same). Sums, the softmax, y, dq, dk and dv stay f32.
 *
 * A panel is [steps][32] units of 32 bits as the tiles want it: element pairs 2s, 2s + 1 of 32 columns.
 * Steps are filled up with zeros to a multiple of pair_steps, which is what tiles take at once. */
#include <immintrin.h>

#include "device/cpu/gemm_kernel.h"
#include "device/cpu/gemm_pair_avx512bf16.h"

enum { panel_columns = 32, pair_steps = 16, block_pairs = attention_block / 2 };
enum { block_panels = attention_block / panel_columns };

static inline int64_t pair_up(int64_t elements) {
    return (elements + 2 * pair_steps - 1) / (2 * pair_steps) * pair_steps;
}

/* Rows of 16 bits as the units that they are made of. */
static inline const uint32_t *units_of(const void *row) { return (const uint32_t *)row; }

/* Panels of rows as columns: unit (s, j) = elements 2s and 2s + 1 of row j. `stride`: units between rows;
 * `d`: even. Rows from `count` to attention_block become zeros. */
static void pair_columns(const struct flash *flash, uint32_t *panels, const uint32_t *rows, int64_t stride,
                         int64_t count) {
    int64_t steps = flash->d / 2;
    _Alignas(64) uint32_t edge[16 * attention_most_pairs];
    for (int64_t j = 0; j < attention_block; j += 16) {
        uint32_t *to = panels + j / panel_columns * steps * panel_columns + j % panel_columns;
        if (j + 16 <= count) {
            flash->pairs->transpose(rows + j * stride, stride, to, panel_columns, steps);
            continue;
        }
        memset(edge, 0, (size_t)(16 * steps) * sizeof *edge);
        for (int64_t r = j; r < count; r++)
            memcpy(edge + (r - j) * steps, rows + r * stride, (size_t)steps * sizeof *edge);
        flash->pairs->transpose(edge, steps, to, panel_columns, steps);
    }
}

/* Panels of rows as steps: unit (s, j) = element j of rows 2s and 2s + 1. Rows from `count` to
 * attention_block become zeros. */
static void pair_rows(const struct flash *flash, uint32_t *panels, const uint32_t *rows, int64_t stride,
                      int64_t count) {
    for (int64_t at = 0; at < flash->d; at += panel_columns) {
        int64_t left = smaller(panel_columns, flash->d - at);
        __mmask32 mask = (__mmask32)(0xffffffffu >> (panel_columns - left));
        uint32_t *to = panels + at * block_pairs;
        for (int64_t s = 0; s < block_pairs; s++, to += panel_columns) {
            const uint32_t *even = rows + 2 * s * stride + at / 2;
            __m512i a = 2 * s < count ? _mm512_maskz_loadu_epi16(mask, even) : _mm512_setzero_si512(),
                    b = 2 * s + 1 < count ? _mm512_maskz_loadu_epi16(mask, even + stride)
                                          : _mm512_setzero_si512();
            weave_vectors(a, b, to);
        }
    }
}

/* out [panels][attention_block][32] = rows × panels of columns, for rows [0, count), columns [0, seen). */
static void pair_scores(const struct flash *flash, const uint32_t *rows, int64_t stride, int64_t count,
                        const uint32_t *panels, int64_t seen, float *out) {
    int64_t steps = flash->d / 2;
    const struct gemm_rows x[2] = {{rows, stride * 4, steps}};
    for (int64_t p = 0; p * panel_columns < seen; p++)
        flash->pairs->tile((int)count, (int)smaller(panel_columns, seen - p * panel_columns), x,
                           panels + p * steps * panel_columns, out + p * attention_block * panel_columns);
}

/* sums [count, padded] += rows × panels of rows, over `steps` steps of both. */
static void pair_add(const struct flash *flash, const uint32_t *rows, int64_t count, const uint32_t *panels,
                     int64_t steps, float *sums) {
    for (int64_t at = 0; at < flash->padded; at += panel_columns)
        flash->pairs->tile_add((int)count, (int)smaller(panel_columns, flash->padded - at), rows,
                               block_pairs * 4, panels + at * block_pairs, steps, sums + at, flash->padded);
}

static inline void store_bf16(uint16_t *to, vf x) {
    _mm256_store_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x));
}

/* Column j of a row in panels of scores. */
static inline const float *score_at(const float *scores, int64_t j) {
    return scores + j / panel_columns * attention_block * panel_columns + j % panel_columns;
}

/* As softmax_rows, one row in panels to attention_block weights in bf16. */
static inline void pair_softmax_row(const float *scores, int64_t visible, float scale,
                                    const struct running *run, int64_t row, uint16_t *weights) {
    vf s[attention_block / lanes], top = v_splat(-INFINITY), total = {0};
    for (int v = 0; v < attention_block / lanes; v++) {
        vi seen = v_iota() + v * lanes < (vi){0} + (int32_t)visible;
        s[v] = v_select(seen, v_load(score_at(scores, v * lanes)) * scale, v_splat(-INFINITY));
        top = v_max(s[v], top);
    }
    running_raise(run, row, v_most(top));
    for (int v = 0; v < attention_block / lanes; v++) {
        vf weight = v_exp(s[v] - run->most[row]);
        store_bf16(weights + v * lanes, weight);
        total += weight;
    }
    run->sum[row] += v_sum(total);
}

/* Scratch of a forward task beside its y, most and sum. */
struct pair_forward {
    uint32_t *k, *v;   /* panels of columns and of rows */
    float *scores;     /* [panels][block][32] */
    uint16_t *weights; /* [block, block] */
};

static struct pair_forward pair_forward_open(const struct flash *flash, const struct forward *f) {
    struct pair_forward p = {.k = (uint32_t *)(void *)f->k};
    p.v = p.k + attention_panel_units(flash->padded);
    p.scores = (float *)(void *)(p.v + attention_panel_units(flash->padded));
    p.weights = (uint16_t *)(void *)(p.scores + attention_block * attention_block);
    return p;
}

/* One head's queries against a block of keys. Row i sees keys j <= ahead + i. */
static void pair_forward_block(const struct flash *flash, const struct forward *f,
                               const struct pair_forward *p, const uint32_t *q, int64_t first,
                               int64_t queries, int64_t keys, int64_t ahead) {
    int64_t stride = flash->heads * flash->d / 2, step = flash->pairs->rows;
    for (int64_t i = 0; i < queries; i += step) {
        int64_t rows = smaller(step, queries - i), seen = smaller(keys, ahead + i + rows), at = first + i;
        if (seen <= 0) continue;
        struct running run = {f->most + at, f->sum + at, f->y + at * flash->padded, flash->padded};
        pair_scores(flash, q + i * stride, stride, rows, p->k, seen, p->scores);
        for (int64_t r = 0; r < rows; r++)
            pair_softmax_row(p->scores + r * panel_columns, smaller(keys, ahead + i + r + 1), flash->scale,
                             &run, r, p->weights + r * attention_block);
        pair_add(flash, units_of(p->weights), rows, p->v, pair_up(seen), run.y);
    }
}

static void pair_attend(const struct flash *flash, const struct forward *f, const struct forward_part *part,
                        const struct keys *keys) {
    struct pair_forward p = pair_forward_open(flash, f);
    int64_t all_keys = keys->past + part->begin + part->queries, stride = keys->stride / 2;
    const uint32_t *q = units_of(
        element(&flash->call->in[0], (part->row * flash->heads + part->head * flash->group) * flash->d));
    for (int64_t at = 0; at < all_keys; at += attention_block) {
        int64_t count = smaller(attention_block, all_keys - at);
        pair_columns(flash, p.k, units_of(keys->k) + at * stride, stride, count);
        pair_rows(flash, p.v, units_of(keys->v) + at * stride, stride, count);
        for (int64_t g = 0; g < flash->group; g++)
            pair_forward_block(flash, f, &p, q + g * flash->d / 2, g * attention_block, part->queries, count,
                               keys->past + part->begin - at);
    }
    if (flash->pairs->leave) flash->pairs->leave();
}

/* A block of keys: panels of columns, and of rows. */
struct pair_keys {
    uint32_t *k, *v, *k_rows;
};

static struct pair_keys pair_keys_of(const struct flash *flash, const struct key_block *k) {
    int64_t panels = attention_panel_units(flash->padded);
    uint32_t *at = (uint32_t *)(void *)k->form;
    return (struct pair_keys){at, at + panels, at + 2 * panels};
}

/* A block of queries. */
struct pair_queries {
    uint32_t *q, *dy;  /* panels of rows */
    uint16_t *rounded; /* [block, padded] rows of dy, where it is f32 */
    struct pair_source {
        const uint32_t *q, *dy;      /* where the rows lie */
        int64_t q_stride, dy_stride; /* units between them */
    } * source;
};

static struct pair_queries pair_queries_of(const struct flash *flash, const struct query_block *q) {
    int64_t panels = attention_panel_units(flash->padded);
    struct pair_queries p = {.q = (uint32_t *)(void *)q->form};
    p.dy = p.q + panels;
    p.rounded = (uint16_t *)(void *)(p.dy + panels);
    p.source = (struct pair_source *)(void *)(p.rounded + attention_block * flash->padded);
    return p;
}

/* What a pair of blocks has beside them. */
struct pair_beside {
    float *scores, *products;       /* [panels][block][32]: q kᵀ, dy vᵀ */
    uint16_t *p, *ds;               /* [block, block] */
    uint32_t *p_turned, *ds_turned; /* [keys][queries / 2] pairs */
    uint32_t *between;              /* [queries / 2][keys] */
};

static struct pair_beside pair_beside_of(const struct key_block *k) {
    int64_t block = attention_block * attention_block;
    struct pair_beside p = {.scores = k->beside};
    p.products = p.scores + block;
    p.p = (uint16_t *)(void *)(p.products + block);
    p.ds = p.p + block;
    p.p_turned = (uint32_t *)(void *)(p.ds + block);
    p.ds_turned = p.p_turned + block / 2;
    p.between = p.ds_turned + block / 2;
    return p;
}

static void pair_load_keys(const struct flash *flash, const struct key_block *block, int64_t row,
                           int64_t head) {
    struct pair_keys p = pair_keys_of(flash, block);
    const struct operand *in = flash->call->in;
    int64_t stride = flash->kv_heads * flash->d / 2, at = (row * flash->kv_heads + head) * flash->d;
    const uint32_t *k = units_of(element(&in[1], at)), *v = units_of(element(&in[2], at));
    pair_columns(flash, p.k, k, stride, block->keys);
    pair_columns(flash, p.v, v, stride, block->keys);
    pair_rows(flash, p.k_rows, k, stride, block->keys);
}

/* Rows of d floats, `stride` apart, as rows of `padded` bf16. */
static void pair_round(uint16_t *out, int64_t padded, const float *rows, int64_t stride, int64_t count,
                       int64_t d) {
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < d; i += lanes)
            store_bf16(out + r * padded + i, v_read(rows + r * stride, DTYPE_F32, i, d - i));
}

static void pair_load_queries(const struct flash *flash, const struct query_block *block, int64_t row,
                              int64_t head) {
    struct pair_queries p = pair_queries_of(flash, block);
    const struct operand *q = &flash->call->in[0], *dy = &flash->call->in[5];
    int64_t stride = flash->heads * flash->d, at = (row * flash->heads + head) * flash->d;
    struct pair_source source = {units_of(element(q, at)), units_of(element(dy, at)), stride / 2, stride / 2};
    if (dy->dtype == DTYPE_F32) {
        pair_round(p.rounded, flash->padded, element(dy, at), stride, block->queries, flash->d);
        source.dy = units_of(p.rounded);
        source.dy_stride = flash->padded / 2;
    }
    *p.source = source;
    pair_rows(flash, p.q, source.q, source.q_stride, block->queries);
    pair_rows(flash, p.dy, source.dy, source.dy_stride, block->queries);
    load_row_sums(flash, block, row, head);
}

/* p and ds of one row, from scores and dy vᵀ; zeros from `visible` on. */
static inline void pair_backward_row(const float *scores, const float *products, int64_t visible, float scale,
                                     float lse, float delta, uint16_t *p, uint16_t *ds) {
    for (int v = 0; v < attention_block / lanes; v++) {
        int64_t j = v * lanes;
        vi seen = v_iota() + v * lanes < (vi){0} + (int32_t)visible;
        vf weight = v_select(seen, v_exp(v_load(score_at(scores, j)) * scale - lse), (vf){0});
        vf product = v_select(seen, v_load(score_at(products, j)), (vf){0});
        store_bf16(p + j, weight);
        store_bf16(ds + j, weight * (product - delta) * scale);
    }
}

/* to [keys][queries / 2] pairs along the queries = from [queries, keys]ᵀ */
static void pair_turn(const struct flash *flash, uint32_t *to, const uint16_t *from, uint32_t *between) {
    const __m512i low = _mm512_set1_epi32(0xffff);
    for (int64_t s = 0; s < block_pairs; s++)
        for (int64_t j = 0; j < attention_block; j += 16) {
            __m512i even = _mm512_cvtepu16_epi32(
                        _mm256_load_si256((const void *)(from + 2 * s * attention_block + j))),
                    odd = _mm512_cvtepu16_epi32(
                        _mm256_load_si256((const void *)(from + (2 * s + 1) * attention_block + j)));
            _mm512_store_si512(between + s * attention_block + j,
                               _mm512_or_si512(_mm512_and_si512(even, low), _mm512_slli_epi32(odd, 16)));
        }
    for (int64_t s = 0; s < block_pairs; s += 16)
        flash->pairs->transpose(between + s * attention_block, attention_block, to + s, block_pairs,
                                attention_block);
}

/* p and ds of all queries, and dq. */
static void pair_backward_scores(const struct flash *flash, const struct key_block *k,
                                 const struct query_block *q, bool diagonal) {
    struct pair_keys keys = pair_keys_of(flash, k);
    struct pair_beside p = pair_beside_of(k);
    int64_t block = attention_block, step = flash->pairs->rows;
    const struct pair_source *source = pair_queries_of(flash, q).source;
    for (int64_t i = 0; i < q->queries; i += step) {
        int64_t rows = smaller(step, q->queries - i), seen = diagonal ? smaller(k->keys, i + rows) : k->keys;
        pair_scores(flash, source->q + i * source->q_stride, source->q_stride, rows, keys.k, seen, p.scores);
        pair_scores(flash, source->dy + i * source->dy_stride, source->dy_stride, rows, keys.v, seen,
                    p.products);
        for (int64_t r = 0; r < rows; r++)
            pair_backward_row(p.scores + r * panel_columns, p.products + r * panel_columns,
                              diagonal ? smaller(k->keys, i + r + 1) : k->keys, flash->scale, q->lse[i + r],
                              q->delta[i + r], p.p + (i + r) * block, p.ds + (i + r) * block);
        if (q->dq)
            pair_add(flash, units_of(p.ds + i * block), rows, keys.k_rows, pair_up(seen),
                     q->dq + i * flash->padded);
    }
}

/* dk and dv. */
static void pair_backward_keys(const struct flash *flash, const struct key_block *k,
                               const struct query_block *q, bool diagonal) {
    struct pair_queries queries = pair_queries_of(flash, q);
    struct pair_beside p = pair_beside_of(k);
    int64_t block = attention_block, steps = pair_up(q->queries), rest = 2 * steps - q->queries,
            step = flash->pairs->rows;
    memset(p.p + q->queries * block, 0, (size_t)(rest * block) * sizeof *p.p);
    memset(p.ds + q->queries * block, 0, (size_t)(rest * block) * sizeof *p.ds);
    pair_turn(flash, p.p_turned, p.p, p.between);
    pair_turn(flash, p.ds_turned, p.ds, p.between);
    for (int64_t j = 0; j < k->keys; j += step) {
        int64_t rows = smaller(step, k->keys - j), from = diagonal ? j / (2 * pair_steps) * pair_steps : 0;
        pair_add(flash, p.p_turned + j * block_pairs + from, rows, queries.dy + from * panel_columns,
                 steps - from, k->dv + j * flash->padded);
        pair_add(flash, p.ds_turned + j * block_pairs + from, rows, queries.q + from * panel_columns,
                 steps - from, k->dk + j * flash->padded);
    }
}

static void pair_backward_block(const struct flash *flash, const struct key_block *k,
                                const struct query_block *q, bool diagonal) {
    pair_backward_scores(flash, k, q, diagonal);
    if (k->dk) pair_backward_keys(flash, k, q, diagonal);
    if (flash->pairs->leave) flash->pairs->leave();
}

static const struct attention_form attention_pairs = {pair_attend, pair_load_keys, pair_load_queries,
                                                      pair_backward_block};

/* Whether `count` operands from `first` on are bf16, and what multiplies them. */
static bool pairs_serve(const struct cpu_call *call, const int *operands, int count) {
    const struct attributes *a = call->attributes;
    if (!call->gemm || !call->gemm->kernel->pairs || a->head_dim % 2 ||
        a->head_dim > 2 * attention_most_pairs)
        return false;
    for (int i = 0; i < count; i++)
        if (call->in[operands[i]].dtype != DTYPE_BF16) return false;
    return true;
}
