/* Cases of the kernel harness: for each operation, how operands of some sizes and types are made. */
#ifndef TESTS_OP_DEVICE_KERNEL_CASES_H
#define TESTS_OP_DEVICE_KERNEL_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/operand.h"
#include "tensor/rowcodec.h"

/* What a case is built from; an operation reads the fields that it needs. */
struct sizes {
    int64_t tokens, segment; /* segment: tokens in each, the last has the rest; 0: lengths vary */
    int64_t targets, width, hidden, vocabulary;
    int heads, kv_heads, head_dim;
};

/* Memory of one operand between guards. */
struct block {
    unsigned char *memory, *data;
    size_t bytes;
};

enum { guard_bytes = 256, guard_value = 0xa5 };

struct trial {
    struct graph graph;
    int node, inputs;
    int ids[op_max_inputs];
    struct block in[op_max_inputs];
    struct attributes attributes;
    uint64_t random;
    double terms;       /* length of the longest sum, for the tolerance */
    enum dtype compute; /* what products round their operands to */
    double relative;    /* that rounding, and of weights in attention */
    int64_t longest_segment;
};

static double uniform(struct trial *trial) { /* in [-1.7, 1.7): variance 1 */
    trial->random = trial->random * 6364136223846793005u + 1442695040888963407u;
    return ((double)(trial->random >> 11) * 0x1p-53 - 0.5) * 3.46;
}

/* Half a unit in the last place of what is stored; half of that, where signs are random. */
static double unit_of(enum dtype dtype) {
    return dtype == DTYPE_BF16 ? 0x1p-8 : dtype == DTYPE_F16 ? 0x1p-11 : dtype == DTYPE_F32 ? 0x1p-24 : 0;
}

static void rounds_to(struct trial *trial, enum dtype dtype) {
    trial->compute = dtype;
    if (dtype != DTYPE_F32) trial->relative = unit_of(dtype);
}

static struct block block_open(size_t bytes) {
    struct block block = {.bytes = bytes};
    block.memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 2 * guard_bytes);
    assert_non_null(block.memory);
    memset(block.memory, guard_value, (bytes + 63) / 64 * 64 + 2 * guard_bytes);
    block.data = block.memory + guard_bytes;
    return block;
}

static int64_t value_elements(const struct value *value) {
    int64_t n = 1;
    for (int i = 0; i < value->rank; i++) n *= value->dim[i];
    return n;
}

static size_t value_bytes(const struct value *value) {
    uint64_t bytes = 0;
    if (value->rank > 0 && value_elements(value) > 0)
        assert_true(dtype_bytes(value->dtype, (uint64_t)value_elements(value), &bytes));
    return (size_t)bytes;
}

static void *add_value_of(struct trial *trial, int id) {
    trial->ids[trial->inputs] = id;
    trial->in[trial->inputs] = block_open(value_bytes(&trial->graph.values[id]));
    return trial->in[trial->inputs++].data;
}

static void add_absent(struct trial *trial) { trial->ids[trial->inputs++] = -1; }

static void fill(struct trial *trial, void *data, enum dtype dtype, int64_t n, double scale) {
    float *row = mem_array((size_t)n + 1, sizeof *row);
    for (int64_t i = 0; i < n; i++) row[i] = (float)(uniform(trial) * scale);
    if (n) rowcodec(dtype)->encode(row, data, n);
    mem_free(row);
}

/* A random activation [rows, width]; rank 1 when width is 0. */
static void add_activation(struct trial *trial, enum dtype dtype, enum count count, int64_t rows,
                           int64_t width, double scale) {
    int64_t dim[2] = {rows, width};
    int id = graph_transient(&trial->graph, dtype, count, width ? 2 : 1, dim, "activation");
    fill(trial, add_value_of(trial, id), dtype, rows * (width ? width : 1), scale);
}

static void *add_shaped_state(struct trial *trial, enum dtype dtype, int rank, const int64_t *dim,
                              double scale) {
    int id = graph_state(&trial->graph, trial->inputs, dtype, rank, dim, "state");
    void *data = add_value_of(trial, id);
    if (rowcodec(dtype)) fill(trial, data, dtype, value_elements(&trial->graph.values[id]), scale);
    return data;
}

static void *add_state(struct trial *trial, enum dtype dtype, int rank, int64_t d0, int64_t d1, int64_t d2,
                       double scale) {
    return add_shaped_state(trial, dtype, rank, (int64_t[]){d0, d1, d2}, scale);
}

static int32_t *add_indices(struct trial *trial, enum input_name name, enum count count, int64_t n,
                            int64_t limit) {
    int id = graph_input(&trial->graph, name, DTYPE_I32, count, n);
    int32_t *data = add_value_of(trial, id);
    for (int64_t i = 0; i < n; i++) data[i] = (int32_t)((uniform(trial) / 3.46 + 0.5) * (double)limit);
    return data;
}

/* Ascending and different rows, as targets have. */
static void add_rows(struct trial *trial, const struct sizes *z) {
    int32_t *rows = add_indices(trial, INPUT_ROWS, COUNT_TARGETS, z->targets, 1);
    for (int64_t m = 0; m < z->targets; m++) rows[m] = (int32_t)(m * z->tokens / z->targets);
}

static int64_t count_segments(const struct sizes *z, int32_t *starts) {
    int64_t at = 0, count = 0;
    while (at < z->tokens) {
        if (starts) starts[count] = (int32_t)at;
        at += z->segment ? z->segment : 1 + count * 7 % 23;
        count++;
    }
    if (starts) starts[count] = (int32_t)z->tokens;
    return count;
}

static const int32_t *add_segments(struct trial *trial, const struct sizes *z) {
    int64_t count = count_segments(z, NULL);
    int32_t *starts = add_indices(trial, INPUT_SEGMENTS, COUNT_SEGMENTS_AND_ONE, count + 1, 1);
    count_segments(z, starts);
    for (int64_t s = 0; s < count; s++)
        if (starts[s + 1] - starts[s] > trial->longest_segment)
            trial->longest_segment = starts[s + 1] - starts[s];
    return starts;
}

typedef void build_case(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b);

static void build_embedding(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_Q4_1};
    enum dtype type = z->width % 32 ? a : types[(z->tokens + (b == DTYPE_BF16)) % 3];
    add_state(trial, type, 2, z->vocabulary, z->width, 1, 1);
    add_indices(trial, INPUT_IDS, COUNT_TOKENS, z->tokens, z->vocabulary);
}

static void build_norm(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    trial->attributes.epsilon = 1e-5f;
    trial->terms = (double)z->width;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, b == DTYPE_BF16 ? DTYPE_F16 : DTYPE_F32, 1, z->width, 1, 1, 1);
}

static void build_norm_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    trial->terms = (double)z->width;
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
    add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, 0, 1);
    if (z->tokens % 2)
        add_absent(trial);
    else
        add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, z->width, 1);
}

static void build_norm_grad_w(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    trial->terms = (double)z->tokens;
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, 0, 1);
    add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
}

static void build_bias_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    trial->terms = (double)z->tokens;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
}

static void build_embedding_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    trial->terms = (double)z->tokens;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_indices(trial, INPUT_IDS, COUNT_TOKENS, z->tokens, z->vocabulary);
    add_state(trial, DTYPE_F32, 2, z->vocabulary, z->width, 1, 1);
}

static void build_rope_table(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a, (void)b;
    add_indices(trial, INPUT_POSITIONS, COUNT_TOKENS, z->tokens, 100000);
    float *frequencies = add_state(trial, DTYPE_F32, 1, z->head_dim / 2, 1, 1, 1);
    for (int i = 0; i < z->head_dim / 2; i++)
        frequencies[i] = powf(10000, -2 * (float)i / (float)z->head_dim);
}

static void build_rope(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    trial->attributes.inverse = z->tokens % 2;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, (int64_t)z->heads * z->head_dim, 1);
    add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, z->head_dim, 0.5);
}

static void build_glu(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    trial->terms = 16; /* the exponent's rounding: gates reach 14 */
    for (int i = 0; i < 2; i++) add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, i ? 1 : 8);
}

static void build_glu_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_glu(trial, z, a, b);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
}

static void build_add(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
}

static void build_copy(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_absent(trial);
}

static void build_dropout(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    trial->attributes.probability = 0.3f;
    trial->attributes.module = 77;
    trial->attributes.inverse = z->tokens % 3 == 1;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_indices(trial, INPUT_POSITIONS, COUNT_TOKENS, z->tokens, 2048);
    uint32_t *examples =
        add_value_of(trial, graph_input(&trial->graph, INPUT_EXAMPLES, DTYPE_U32, COUNT_TOKENS, z->tokens));
    for (int64_t t = 0; t < z->tokens; t++) examples[t] = 0xfffffff0u + (uint32_t)t;
    uint32_t *random =
        add_value_of(trial, graph_input(&trial->graph, INPUT_RANDOM, DTYPE_U32, COUNT_FIXED, 4));
    memcpy(random, (uint32_t[4]){0x89abcdefu, 0x1234567u, 3, 0}, 16);
}

static void build_noise(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_dropout(trial, z, a, b);
    trial->attributes.scale = 5;
    add_segments(trial, z);
}

static void build_gather(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_rows(trial, z);
}

static void build_likeliest(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a, (void)b;
    add_activation(trial, DTYPE_F32, COUNT_TARGETS, z->targets, z->vocabulary, 1);
}

static void build_scatter(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TARGETS, z->targets, z->width, 1);
    add_rows(trial, z);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
}

static void attention_attributes(struct trial *trial, const struct sizes *z) {
    trial->attributes.heads = z->heads;
    trial->attributes.kv_heads = z->kv_heads;
    trial->attributes.head_dim = z->head_dim;
    trial->attributes.scale = 1 / sqrtf((float)z->head_dim);
}

static void build_attention(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    attention_attributes(trial, z);
    add_activation(trial, a, COUNT_TOKENS, z->tokens, (int64_t)z->heads * z->head_dim, 1);
    for (int i = 0; i < 2; i++)
        add_activation(trial, a, COUNT_TOKENS, z->tokens, (int64_t)z->kv_heads * z->head_dim, 1);
    add_segments(trial, z);
    trial->terms = (double)(z->head_dim + trial->longest_segment);
    rounds_to(trial, a); /* weights, where products are made from bf16 */
}

static double *decoded(const struct block *block, enum dtype dtype, int64_t n) {
    double *out = mem_array((size_t)n + 1, sizeof *out);
    float *row = mem_array((size_t)n + 1, sizeof *row);
    assert_true(out && row);
    if (rowcodec(dtype) && n) rowcodec(dtype)->decode(block->data, row, n);
    for (int64_t i = 0; i < n; i++)
        out[i] = dtype == DTYPE_I32   ? (double)((const int32_t *)(const void *)block->data)[i]
                 : dtype == DTYPE_U8  ? (double)block->data[i]
                 : dtype == DTYPE_U32 ? (double)((const uint32_t *)(const void *)block->data)[i]
                 : dtype == DTYPE_F64 ? ((const double *)(const void *)block->data)[i]
                                      : (double)row[i];
    mem_free(row);
    return out;
}

static void encoded(void *out, enum dtype dtype, const double *data, int64_t n) {
    float *row = mem_array((size_t)n + 1, sizeof *row);
    for (int64_t i = 0; i < n; i++) row[i] = (float)data[i];
    if (n) rowcodec(dtype)->encode(row, out, n);
    mem_free(row);
}

/* y and lse must be those of q, k, v: they come from the forward reference. */
static void build_attention_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    int64_t width = (int64_t)z->heads * z->head_dim;
    attention_attributes(trial, z);
    add_activation(trial, a, COUNT_TOKENS, z->tokens, width, 1);
    for (int i = 0; i < 2; i++)
        add_activation(trial, a, COUNT_TOKENS, z->tokens, (int64_t)z->kv_heads * z->head_dim, 1);
    add_activation(trial, a, COUNT_TOKENS, z->tokens, width, 1);
    add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, z->heads, 1);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, width, 1);
    add_segments(trial, z);
    static const int from[4] = {0, 1, 2, 6};
    struct reference_call call = {.attributes = &trial->attributes};
    for (int i = 0; i < 4; i++) {
        const struct value *value = &trial->graph.values[trial->ids[from[i]]];
        call.in[i].rank = value->rank;
        memcpy(call.in[i].dim, value->dim, sizeof value->dim);
        call.in[i].data = decoded(&trial->in[from[i]], value->dtype, value_elements(value));
    }
    call.out[0].data = mem_calloc((size_t)(z->tokens * width) + 1, sizeof(double));
    call.out[1].data = mem_calloc((size_t)(z->tokens * z->heads) + 1, sizeof(double));
    op_row(OP_ATTENTION)->reference(&call);
    encoded(trial->in[3].data, a, call.out[0].data, z->tokens * width);
    encoded(trial->in[4].data, DTYPE_F32, call.out[1].data, z->tokens * z->heads);
    for (int i = 0; i < 4; i++) mem_free(call.in[i].data);
    for (int o = 0; o < 2; o++) mem_free(call.out[o].data);
    trial->terms = (double)(z->head_dim + trial->longest_segment * z->heads / z->kv_heads);
    rounds_to(trial, a);
}

/* The cache is of f32, of the activations' type, or of f16 beside any of them, as generation has it. */
static void build_cache_attention(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    enum dtype cache = b == DTYPE_BF16 ? a : b;
    int64_t segments = count_segments(z, NULL), most = z->segment == 1 ? 900 : 150,
            dim[4] = {segments + 1, z->kv_heads, z->tokens + most, z->head_dim};
    build_attention(trial, z, a, b);
    int32_t *slots = add_indices(trial, INPUT_SLOTS, COUNT_SEGMENTS, segments, 1);
    int32_t *past = add_indices(trial, INPUT_PAST, COUNT_SEGMENTS, segments, most);
    for (int64_t s = 0; s < segments; s++) slots[s] = (int32_t)(segments - s);
    if (segments) past[0] = 0;
    for (int i = 0; i < 2; i++) add_shaped_state(trial, cache, 4, dim, 1);
    trial->terms += (double)most;
    trial->relative = fmax(trial->relative, unit_of(cache)); /* of new keys and values */
}

/* A loss that is finite or not, or none. */
static void build_gradient_norm(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_state(trial, DTYPE_F32, 1, z->tokens * z->width, 1, 1, 3);
    if (b == DTYPE_F16)
        add_absent(trial);
    else
        *(double *)add_state(trial, DTYPE_F64, 1, 1, 1, 1, 1) = a != DTYPE_F32   ? (double)-INFINITY
                                                                : b != DTYPE_F32 ? (double)NAN
                                                                                 : 2.5;
}

/* Three parts with gaps between them: a matrix, another group's matrix, a vector. */
static struct op_part part_items[3];
static const struct op_parts part_table = {part_items, 3, 2};

static int64_t make_parts(struct trial *trial, const struct sizes *z) {
    const int64_t shapes[3][2] = {{z->tokens, z->width}, {z->width, z->hidden}, {z->hidden, 1}};
    int64_t offset = 0;
    for (int i = 0; i < 3; i++) {
        part_items[i] = (struct op_part){.offset = offset,
                                         .rows = shapes[i][0],
                                         .columns = shapes[i][1],
                                         .group = i == 1,
                                         .hidden = i == 1 || (i == 0 && z->tokens % 2)};
        offset += (shapes[i][0] * shapes[i][1] + 15) / 16 * 16;
    }
    trial->attributes.parts = &part_table;
    return offset;
}

/* State that is packed by part: positive numbers, or random codes. */
static void add_packed(struct trial *trial, int slot, enum dtype dtype,
                       int64_t (*elements)(const struct op_part *part), double least) {
    int64_t size = 0;
    for (int i = 0; i < part_table.count; i++) {
        part_items[i].slot[slot] = size;
        size += elements(&part_items[i]);
    }
    void *data = add_state(trial, dtype, 1, size, 1, 1, 1);
    for (int64_t i = 0; i < size; i++)
        if (dtype == DTYPE_U8)
            ((uint8_t *)data)[i] = (uint8_t)(int)((uniform(trial) / 3.46 + 0.5) * 256);
        else
            ((float *)data)[i] = (float)least + fabsf(((float *)data)[i]);
}

/* Norm (finite and clipped, so small that what is added to it counts, finite and not clipped, not finite),
 * two groups, a step, parameters and gradients. */
static int64_t build_update(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    int64_t n = make_parts(trial, z);
    add_activation(trial, DTYPE_F32, COUNT_FIXED, 1, 0, 1);
    const bool tiny = a == DTYPE_F16 && b == DTYPE_F32;
    *(float *)(void *)trial->in[0].data = a == DTYPE_F32 ? 2.5f : b != DTYPE_F32 ? 0.01f : tiny ? 2e-6f : NAN;
    float *hyper = add_value_of(
        trial, graph_input(&trial->graph, INPUT_HYPER, DTYPE_F32, COUNT_FIXED, 2 * HYPER_COLUMNS));
    memset(hyper, 0, 2 * HYPER_COLUMNS * sizeof *hyper);
    for (int g = 0; g < 2; g++, hyper += HYPER_COLUMNS) {
        hyper[HYPER_RATE] = g ? 4e-2f : 1e-2f;
        hyper[HYPER_DECAY] = g ? 0 : 0.1f;
        hyper[HYPER_MAX_NORM] = tiny ? 1e-6f : b == DTYPE_F32 ? 1.0f : 0;
        hyper[HYPER_BETA1] = hyper[HYPER_MOMENTUM] = 0.9f;
        hyper[HYPER_BETA2] = 0.999f;
        hyper[HYPER_EPSILON] = 1e-8f;
        hyper[HYPER_DAMPENING] = 0.25f;
        hyper[HYPER_NESTEROV] = hyper[HYPER_SCALE] = g ? 1.0f : 0;
        hyper[HYPER_DECAY_RATE] = 0.8f;
        hyper[HYPER_CLIP] = g ? 1.0f : 0.5f;
        hyper[HYPER_ADJUST] = g ? MUON_ORIGINAL : MUON_MATCH_RMS_ADAMW;
        hyper[HYPER_ROUNDS] = g ? 5 : 4;
    }
    *(int32_t *)add_state(trial, DTYPE_I32, 1, 1, 1, 1, 1) = a == b ? 4 : 0;
    for (int i = 0; i < 2; i++) add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
    trial->terms = 8;
    return n;
}

static void build_average(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_update(trial, z, a, b);
    float *hyper = (float *)(void *)trial->in[1].data;
    hyper[HYPER_AVERAGE] = 0.9f;
}

static void build_adamw(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    int64_t n = build_update(trial, z, a, b);
    add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
    float *v = add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
    for (int64_t i = 0; i < n; i++) v[i] = fabsf(v[i]);
}

static void build_sgd(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    int64_t n = build_update(trial, z, a, b);
    if (z->tokens % 2)
        add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
    else
        add_absent(trial);
}

static void build_lion(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    int64_t n = build_update(trial, z, a, b);
    add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
}

/* Factors of about the gradients' squares, away from 0, whose root amplifies rounding. */
static void build_adafactor(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_update(trial, z, a, b);
    add_packed(trial, 0, DTYPE_F32, optimizer_factors, 0.5);
    trial->terms = 64;
}

/* Without codes where every part is small. */
static void build_adamw8bit(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_update(trial, z, a, b);
    int64_t codes = 0;
    for (int i = 0; i < part_table.count; i++) codes += optimizer_code_elements(&part_items[i]);
    if (codes)
        add_packed(trial, 0, DTYPE_U8, optimizer_code_elements, 0);
    else
        add_absent(trial);
    add_packed(trial, 1, DTYPE_F32, optimizer_scale_elements, 0.01);
    trial->terms = 64;
}

/* Five rounds make small singular values 3.4445^5 = 485 times as large, and the rounding of what they are
 * sums of. */
static void build_muon(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_update(trial, z, a, b);
    add_packed(trial, 0, DTYPE_F32, optimizer_muon_elements, 0.01);
    trial->terms = 485;
}

static void build_zero(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)b;
    add_state(trial, a, 2, z->tokens, z->width, 1, 1);
}

/* A weight of a type that its rows allow. */
static enum dtype weight_type(const struct sizes *z, int64_t row, enum dtype b) {
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0, DTYPE_F16, DTYPE_Q4_0};
    return row % 32 ? (b == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32) : types[(z->tokens + (b == DTYPE_BF16)) % 5];
}

/* Products may round both operands to bf16 or f16 when an activation is stored so; the signs are random. */
static void product_tolerance(struct trial *trial, double terms, enum dtype dtype) {
    trial->terms = terms;
    rounds_to(trial, dtype);
    trial->attributes.alpha = 0.75f;
}

/* Products of few rows with a weight of small integers round x to 2⁻¹⁶ of its block's largest: as much as 256
 * roundings of 2⁻²⁴. */
static double few_rows_terms(int64_t rows, enum dtype weight) {
    return rows <= 8 && dtype_row(weight)->block > 1 ? 256 : 0;
}

/* Or none, by a number that the other choices do not depend on. */
static void add_low_rank(struct trial *trial, const struct sizes *z, enum dtype a, int64_t d0, int64_t d1) {
    if (z->width % 2) {
        add_absent(trial);
        add_absent(trial);
        return;
    }
    trial->attributes.beta = 0.6f;
    add_activation(trial, a, COUNT_TOKENS, z->tokens, d0 < d1 ? d0 : d1, 1);
    add_state(trial, DTYPE_F32, 2, d0, d1, 1, 1);
}

static void build_linear(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, weight_type(z, z->width, b), 2, z->hidden, z->width, 1, 1);
    if (z->tokens % 2)
        add_state(trial, DTYPE_F32, 1, z->hidden, 1, 1, 1);
    else
        add_absent(trial);
    if (z->tokens % 3)
        add_activation(trial, b, COUNT_TOKENS, z->tokens, z->hidden, 1);
    else
        add_absent(trial);
    add_low_rank(trial, z, b, z->hidden, 3);
    product_tolerance(trial, (double)z->width + few_rows_terms(z->tokens, weight_type(z, z->width, b)), a);
}

static void build_linear_grad_x(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->hidden, 1);
    add_state(trial, weight_type(z, z->width, b), 2, z->hidden, z->width, 1, 1);
    if (z->tokens % 3)
        add_activation(trial, DTYPE_F32, COUNT_TOKENS, z->tokens, z->width, 1);
    else
        add_absent(trial);
    add_low_rank(trial, z, b, 3, z->width);
    product_tolerance(trial, (double)z->hidden, a);
}

static void build_linear_grad_w(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->hidden, 1);
    add_state(trial, DTYPE_F32, 2, z->hidden, z->width, 1, 1);
    product_tolerance(trial, (double)z->tokens, a == DTYPE_F32 ? b : a);
}

/* Lengths about 1, and some rows of zeros. */
static void add_lengths(struct trial *trial, int64_t n) {
    float *lengths = add_state(trial, DTYPE_F32, 1, n, 1, 1, 1);
    for (int64_t j = 0; j < n; j++) lengths[j] = j % 7 == 5 ? 0 : 0.75f + fabsf(lengths[j]);
}

static void build_rescale(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
    add_lengths(trial, z->width);
    if (z->tokens % 2)
        add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
    else
        add_absent(trial);
    if (z->tokens % 3)
        add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
    else
        add_absent(trial);
    trial->terms = 4;
}

static void build_rescale_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TOKENS, z->tokens, z->width, 1);
    add_activation(trial, b, COUNT_TOKENS, z->tokens, z->width, 1);
    add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
    add_lengths(trial, z->width);
    if (z->tokens % 5)
        add_state(trial, DTYPE_F32, 1, z->width, 1, 1, 1);
    else
        add_absent(trial);
    trial->terms = (double)z->tokens;
}

static void build_row_norms(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a;
    int64_t rank = 1 + z->tokens % 9;
    add_state(trial, weight_type(z, z->width, b), 2, z->hidden, z->width, 1, 1);
    add_state(trial, DTYPE_F32, 2, rank, z->width, 1, 1);
    add_state(trial, DTYPE_F32, 2, z->hidden, rank, 1, 1);
    add_state(trial, DTYPE_F32, 1, z->hidden, 1, 1, 1);
    trial->attributes.alpha = 0.5f;
    trial->terms = (double)z->width;
}

static void build_head_inputs(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    add_activation(trial, a, COUNT_TARGETS, z->targets, z->width, 1);
    add_state(trial, weight_type(z, z->width, b), 2, z->vocabulary, z->width, 1, 0.3);
    add_indices(trial, INPUT_TARGETS, COUNT_TARGETS, z->targets, z->vocabulary);
    product_tolerance(
        trial, (double)(z->width + z->vocabulary) + few_rows_terms(z->targets, weight_type(z, z->width, b)),
        a);
}

/* An adapter beside the head, folded or too wide for that. */
static bool add_low(struct trial *trial, const struct sizes *z) {
    int64_t rank = z->width % 3 ? 5 : 130;
    bool there = z->segment % 3 == 0;
    trial->attributes.beta = 0.5f;
    if (there) {
        add_activation(trial, DTYPE_F32, COUNT_TARGETS, z->targets, rank, 0.3);
        add_state(trial, DTYPE_F32, 2, z->vocabulary, rank, 1, 0.3);
    } else {
        add_absent(trial);
        add_absent(trial);
    }
    return there;
}

static void build_head(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_head_inputs(trial, z, a, b);
    add_low(trial, z);
}

static void build_head_grad(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    build_head_inputs(trial, z, a, b);
    add_activation(trial, DTYPE_F32, COUNT_TARGETS, z->targets, 0, 1);
    if (z->tokens % 2)
        add_state(trial, DTYPE_F32, 2, z->vocabulary, z->width, 1, 1);
    else
        add_absent(trial);
    if (add_low(trial, z))
        add_state(trial, DTYPE_F32, 2, z->vocabulary, z->width % 3 ? 5 : 130, 1, 1);
    else
        add_absent(trial);
}

static void build_loss(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a, (void)b;
    add_activation(trial, DTYPE_F32, COUNT_TARGETS, z->targets, 0, 1);
    int id = graph_input(&trial->graph, INPUT_WEIGHTS, DTYPE_F32, COUNT_TARGETS, z->targets);
    fill(trial, add_value_of(trial, id), DTYPE_F32, z->targets, 1);
    int64_t one = 1;
    id = graph_state(&trial->graph, 2, DTYPE_F64, 1, &one, "loss");
    *(double *)add_value_of(trial, id) = 0.25;
    add_absent(trial);
}

static void add_scaling(struct trial *trial, float scale, float good) {
    float *scaling = add_state(trial, DTYPE_F32, 1, SCALING_COLUMNS, 1, 1, 1);
    scaling[SCALING_FACTOR] = scale;
    scaling[SCALING_GOOD] = good;
}

static void build_scale(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a, (void)b;
    int id = graph_input(&trial->graph, INPUT_WEIGHTS, DTYPE_F32, COUNT_TARGETS, z->targets);
    fill(trial, add_value_of(trial, id), DTYPE_F32, z->targets, 1);
    add_scaling(trial, 4096, 3);
}

static void build_unscale(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    (void)a, (void)b;
    add_state(trial, DTYPE_F32, 1, z->tokens * z->width, 1, 1, 1000);
    add_scaling(trial, 4096, 3);
}

/* By turns: it grows, it only counts, it falls, it is the least; and it is the most already. */
static void build_scale_update(struct trial *trial, const struct sizes *z, enum dtype a, enum dtype b) {
    static const float norms[] = {2, 2, INFINITY, NAN, 2}, scales[] = {8, 8, 8, SCALING_LEAST, SCALING_MOST};
    static const float good[] = {SCALING_INTERVAL - 1, 5, 5, 0, SCALING_INTERVAL - 1};
    (void)a, (void)b;
    size_t turn = (size_t)z->tokens % 5;
    add_activation(trial, DTYPE_F32, COUNT_FIXED, 1, 0, 1);
    *(float *)(void *)trial->in[0].data = norms[turn];
    add_scaling(trial, scales[turn], good[turn]);
}

/* clang-format off: tables, a row a line. */
static build_case *const builders[OP_COUNT] = {
    [OP_EMBEDDING] = build_embedding,
    [OP_EMBEDDING_GRAD] = build_embedding_grad,
    [OP_BIAS_GRAD] = build_bias_grad,
    [OP_NORM] = build_norm,
    [OP_NORM_GRAD] = build_norm_grad,
    [OP_NORM_GRAD_W] = build_norm_grad_w,
    [OP_ROPE_TABLE] = build_rope_table,
    [OP_ROPE] = build_rope,
    [OP_GLU] = build_glu,
    [OP_GLU_GRAD] = build_glu_grad,
    [OP_ADD] = build_add,
    [OP_COPY] = build_copy,
    [OP_DROPOUT] = build_dropout,
    [OP_NOISE] = build_noise,
    [OP_GATHER] = build_gather,
    [OP_LIKELIEST] = build_likeliest,
    [OP_SCATTER] = build_scatter,
    [OP_ATTENTION] = build_attention,
    [OP_ATTENTION_GRAD] = build_attention_grad,
    [OP_CACHE_ATTENTION] = build_cache_attention,
    [OP_GRADIENT_NORM] = build_gradient_norm,
    [OP_ADAMW] = build_adamw,
    [OP_AVERAGE] = build_average,
    [OP_SGD] = build_sgd,
    [OP_LION] = build_lion,
    [OP_ADAFACTOR] = build_adafactor,
    [OP_ADAMW8BIT] = build_adamw8bit,
    [OP_MUON] = build_muon,
    [OP_ZERO] = build_zero,
    [OP_LINEAR] = build_linear,
    [OP_LINEAR_GRAD_X] = build_linear_grad_x,
    [OP_LINEAR_GRAD_W] = build_linear_grad_w,
    [OP_RESCALE] = build_rescale,
    [OP_RESCALE_GRAD] = build_rescale_grad,
    [OP_ROW_NORMS] = build_row_norms,
    [OP_HEAD] = build_head,
    [OP_HEAD_GRAD] = build_head_grad,
    [OP_LOSS] = build_loss,
    [OP_SCALE] = build_scale,
    [OP_UNSCALE] = build_unscale,
    [OP_SCALE_UPDATE] = build_scale_update,
};

/* One token, odd tails, several segments, no targets, decoding, products that are cut into groups both along
 * their sums and across, whole blocks, last segments over two and more blocks, and a vocabulary that one
 * block does not hold. tokens, segment, targets, width, hidden, vocabulary, heads, kv_heads, head_dim. */
static const struct sizes edge_sizes[] = {
    {1, 1, 0, 1, 1, 3, 1, 1, 2},           {1, 1, 1, 64, 3, 33, 4, 2, 64},
    {7, 3, 2, 17, 31, 50, 3, 1, 6},        {66, 0, 9, 96, 40, 131, 6, 3, 20},
    {133, 0, 133, 160, 65, 70, 9, 3, 64},  {5, 1, 5, 64, 64, 40, 14, 2, 64},
    {9, 9, 9, 576, 3, 20000, 1, 1, 2},     {128, 128, 50, 64, 128, 64, 2, 2, 32},
    {210, 70, 3, 64, 3, 33001, 4, 2, 128}, {401, 300, 77, 333, 16, 19, 2, 1, 80},
    {194, 129, 3, 48, 5, 40, 6, 2, 16},    {150, 90, 4, 40, 24, 30, 4, 2, 256},
    {577, 577, 3, 8, 3, 9, 2, 1, 16},      {330, 325, 3, 8, 3, 9, 2, 2, 256},
};
/* clang-format on */

static void trial_open(struct trial *trial, enum op_code op, const struct sizes *z, enum dtype a,
                       enum dtype b) {
    memset(trial, 0, sizeof *trial);
    trial->random = 1 + (uint64_t)op;
    graph_init(&trial->graph);
    builders[op](trial, z, a, b);
    trial->node = graph_emit(&trial->graph, op, trial->ids, &trial->attributes, b, NULL);
    assert_true(trial->node >= 0);
}

static void trial_release(struct trial *trial) {
    for (int i = 0; i < trial->inputs; i++) free(trial->in[i].memory);
    graph_release(&trial->graph);
}

static const struct node *node_of(const struct trial *trial) { return &trial->graph.nodes[trial->node]; }

/* The operation's reference on the operands of a trial. */
static void reference_open(const struct trial *trial, struct reference_call *call) {
    const struct node *node = node_of(trial);
    *call = (struct reference_call){.attributes = &node->attributes};
    for (int i = 0; i < trial->inputs; i++) {
        if (trial->ids[i] < 0) continue;
        const struct value *value = &trial->graph.values[trial->ids[i]];
        call->in[i].rank = value->rank;
        memcpy(call->in[i].dim, value->dim, sizeof value->dim);
        call->in[i].data = decoded(&trial->in[i], value->dtype, value_elements(value));
    }
    for (int o = 0; o < node->outputs; o++) {
        const struct value *value = &trial->graph.values[node->output[o]];
        call->out[o].rank = value->rank;
        memcpy(call->out[o].dim, value->dim, sizeof value->dim);
        call->out[o].data = mem_calloc((size_t)value_elements(value) + 1, sizeof(double));
    }
    op_row(node->op)->reference(call);
}

static void reference_close(struct reference_call *call) {
    for (int i = 0; i < op_max_inputs; i++) mem_free(call->in[i].data);
    for (int o = 0; o < op_max_outputs; o++) mem_free(call->out[o].data);
}

/* A result is stored with half a unit in the last place of its type: 2⁻²⁴ or 2⁻⁸ of it. A sum of n products,
 * each term of which is of the size of the largest result or of 1, errs by up to (n + 8) 2⁻²⁴ of that;
 * operands rounded to bf16 on the way add their rounding with random signs, √n of one. */
static void compare(const struct trial *trial, const double *want, const struct operand *got,
                    const char *name, const char *what) {
    int64_t n = 1;
    double most = 1;
    for (int i = 0; i < got->rank; i++) n *= got->dim[i];
    for (int64_t i = 0; i < n; i++)
        if (fabs(want[i]) > most) most = fabs(want[i]);
    double unit = unit_of(got->dtype);
    double allowed = most * ((trial->terms + 8) * 0x1p-24 + 4 * trial->relative);
    if (got->dtype == DTYPE_U8) allowed = 1; /* a code: rounding may choose the level beside it */
    struct block view = {.data = got->data};
    double *values = decoded(&view, got->dtype, n);
    for (int64_t i = 0; i < n; i++) {
        double error = fabs(values[i] - want[i]);
        if (!(error <= unit * fabs(want[i]) + allowed) && !(isnan(want[i]) && isnan(values[i])))
            fail_msg("%s: %s[%lld] of %lld is %.9g, expected %.9g (error %.3g, allowed %.3g)", name, what,
                     (long long)i, (long long)n, values[i], want[i], error, unit * fabs(want[i]) + allowed);
    }
    mem_free(values);
}

#endif
