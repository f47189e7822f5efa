/* The forward pass, written once, and the graphs that are derived from it. */
#include "model/build.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "model/layout.h"

struct builder {
    struct graph *graph;
    const struct model_state *state;
    const struct model_config *config;
    const struct graph_sizes *sizes;
    enum graph_kind kind;
    int64_t layer;
    int positions, segments, rope_table;
};

/* Measured is what will be written. */
static bool is_of_average(const struct builder *b) {
    return b->state->average >= 0 && (b->kind == GRAPH_SCORE || b->kind == GRAPH_DERIVE_AVERAGE);
}

static int state_value(struct builder *b, int row, bool trained) {
    if (row < 0) return -1;
    if (is_of_average(b)) row = model_state_average(b->state, row);
    const struct state_row *r = &b->state->table.rows[row];
    int value = graph_state(b->graph, row, r->dtype, r->rank, r->dim, r->name);
    if (value < 0) return -1;
    b->graph->values[value].offloaded = state_is_offloaded(&b->state->table, row);
    if (trained) b->graph->values[value].needs_gradient = true;
    return value;
}

static int weight(struct builder *b, enum weight_role role) {
    int state_row = b->state->weights[layout_index(b->config, role, b->layer)];
    if (role == WEIGHT_HEAD && b->config->tied && state_row < 0)
        state_row = b->state->weights[layout_index(b->config, WEIGHT_EMBEDDING, 0)];
    bool trained = state_row >= 0 && b->state->table.rows[state_row].class == STATE_TRAINED;
    return state_value(b, state_row, trained && b->kind == GRAPH_TRAIN);
}

static int emit1(struct builder *b, enum op_code op, const int *inputs, const struct attributes *attributes,
                 enum dtype dtype, const char *name) {
    return graph_output(b->graph, graph_emit(b->graph, op, inputs, attributes, dtype, name), 0);
}

static struct attributes product(const struct builder *b, double alpha) {
    bool bf16 = b->state->compute == DTYPE_BF16;
    return (struct attributes){
        .alpha = (float)alpha, .compute = b->state->compute, .narrow = bf16 && b->sizes->narrow};
}

static int dropped(struct builder *b, int x, int module) {
    if (b->kind != GRAPH_TRAIN || b->state->method.dropout <= 0) return x;
    int64_t tokens = b->sizes->tokens;
    int inputs[4] = {x, b->positions, graph_input(b->graph, INPUT_EXAMPLES, DTYPE_U32, COUNT_TOKENS, tokens),
                     graph_input(b->graph, INPUT_RANDOM, DTYPE_U32, COUNT_FIXED, 4)};
    struct attributes attributes = {.probability = (float)b->state->method.dropout,
                                    .module = module_number(b->layer, module)};
    return emit1(b, OP_DROPOUT, inputs, &attributes, b->graph->values[x].dtype, "dropped");
}

enum { most_projections = 3 }; /* of one input */

static const struct trained_part *part_of(const struct builder *b, int module, enum part_kind kind) {
    return model_state_part(b->state, part_index(b->config, b->layer, module), kind);
}

static int part_value(struct builder *b, int module, enum part_kind kind) {
    return state_value(b, part_of(b, module, kind)->row, b->kind == GRAPH_TRAIN);
}

static int base_product(struct builder *b, int module, int x, int bias, int addend, enum dtype dtype) {
    struct attributes plain = product(b, 1);
    int inputs[6] = {x, weight(b, modules[module].role), bias, addend, -1, -1};
    plain.fp8 = inputs[1] >= 0 && b->state->table.rows[b->graph->values[inputs[1]].which].fp8;
    return emit1(b, OP_LINEAR, inputs, &plain, dtype, modules[module].target);
}

/* y - scale · B0 A0 x: the base without the start of the adapter beside it. Dropout does not stand before it,
 * since it is the base's. */
static int without_start(struct builder *b, int module, int x, int y, enum dtype dtype) {
    size_t part = (size_t)(b->layer * module_count + module);
    const struct start_pair *start = &b->state->starts[part];
    if (start->a < 0) return y;
    struct attributes plain = product(b, 1), scaled = product(b, -method_scale(&b->state->method, part));
    int down[6] = {x, state_value(b, start->a, false), -1, -1, -1, -1};
    int h = emit1(b, OP_LINEAR, down, &plain, DTYPE_F32, "start_down");
    int up[6] = {h, state_value(b, start->b, false), -1, y, -1, -1};
    return emit1(b, OP_LINEAR, up, &scaled, dtype, modules[module].target);
}

static int norms_value(struct builder *b, int module) {
    const int *norms = is_of_average(b) ? b->state->average_norms : b->state->norms;
    return state_value(b, norms[b->layer * module_count + module], false);
}

/* y = z · m / n + bias + addend of a DoRA module. Dropout stands before the base weight too, whose product
 * with what was dropped is added as it is: as PEFT has it, W x + (m/n - 1) W x' + m/n s B A x'. */
static int rescaled(struct builder *b, int module, int z, int x, int x_dropped, int bias, int addend,
                    enum dtype dtype) {
    if (x_dropped != x && x_dropped >= 0) {
        struct node dropout = b->graph->nodes[b->graph->values[x_dropped].producer];
        dropout.attributes.inverse = true;
        int rest =
            emit1(b, OP_DROPOUT, dropout.input, &dropout.attributes, b->graph->values[x].dtype, "rest");
        addend = base_product(b, module, rest, -1, addend, dtype);
    }
    int inputs[5] = {z, part_value(b, module, PART_MAGNITUDE), norms_value(b, module), bias, addend};
    return emit1(b, OP_RESCALE, inputs, NULL, dtype, modules[module].target);
}

/* `count` modules from `module` on, all of x, with their adapters:
 * y = x wᵀ + bias + addend + scale · up(down(dropout x)) [- scale · B0 A0 x]. Products of the same x stand
 * side by side, so that a device can make them in one go. `bias_role` is the first module's. */
static void projections(struct builder *b, int module, int count, enum weight_role bias_role, int x,
                        int addend, enum dtype dtype, int *y) {
    struct attributes plain = product(b, 1);
    int h[most_projections], bias[most_projections], x_dropped[most_projections];
    bool dora = b->state->method.dora;
    for (int i = 0; i < count; i++) {
        bool adapted = part_of(b, module + i, PART_LORA_A);
        bias[i] = weight(b, (enum weight_role)((int)bias_role + i));
        x_dropped[i] = adapted ? dropped(b, x, module + i) : x;
        y[i] = dora && adapted ? base_product(b, module + i, x_dropped[i], -1, -1, b->state->compute)
                               : base_product(b, module + i, x, bias[i], addend, dtype);
    }
    for (int i = 0; i < count; i++) {
        if (!part_of(b, module + i, PART_LORA_A)) continue;
        int down[6] = {x_dropped[i], part_value(b, module + i, PART_LORA_A), -1, -1, -1, -1};
        h[i] = emit1(b, OP_LINEAR, down, &plain, DTYPE_F32, modules[module + i].low);
    }
    for (int i = 0; i < count; i++) {
        if (!part_of(b, module + i, PART_LORA_A)) continue;
        size_t part = (size_t)(b->layer * module_count + module + i);
        struct attributes scaled = product(b, method_scale(&b->state->method, part));
        int up[6] = {h[i], part_value(b, module + i, PART_LORA_B), -1, y[i], -1, -1};
        y[i] = emit1(b, OP_LINEAR, up, &scaled, dora ? b->state->compute : dtype, modules[module + i].target);
        y[i] = without_start(b, module + i, x, y[i], dtype);
    }
    for (int i = 0; i < count && dora; i++)
        if (part_of(b, module + i, PART_MAGNITUDE))
            y[i] = rescaled(b, module + i, y[i], x, x_dropped[i], bias[i], addend, dtype);
}

static int norm(struct builder *b, enum weight_role role, int x, enum dtype dtype) {
    int inputs[2] = {x, weight(b, role)};
    struct attributes attributes = {.epsilon = (float)b->config->norm_epsilon};
    return emit1(b, OP_NORM, inputs, &attributes, dtype, "norm");
}

static int rope(struct builder *b, int x, int64_t heads) {
    struct attributes attributes = {.heads = (int)heads, .head_dim = (int)b->config->head_dim};
    int inputs[2] = {x, b->rope_table};
    return emit1(b, OP_ROPE, inputs, &attributes, b->state->compute, "rope");
}

static int attention(struct builder *b, int q, int k, int v) {
    const struct model_config *c = b->config;
    struct attributes attributes = {.heads = (int)c->heads,
                                    .kv_heads = (int)c->kv_heads,
                                    .head_dim = (int)c->head_dim,
                                    .scale = (float)(1 / sqrt((double)c->head_dim))};
    if (b->kind != GRAPH_INFER) {
        int inputs[4] = {q, k, v, b->segments};
        return emit1(b, OP_ATTENTION, inputs, &attributes, b->state->compute, "attention");
    }
    int64_t segments = b->sizes->segments;
    int inputs[8] = {q,
                     k,
                     v,
                     b->segments,
                     graph_input(b->graph, INPUT_SLOTS, DTYPE_I32, COUNT_SEGMENTS, segments),
                     graph_input(b->graph, INPUT_PAST, DTYPE_I32, COUNT_SEGMENTS, segments),
                     state_value(b, b->state->cache_k[b->layer], false),
                     state_value(b, b->state->cache_v[b->layer], false)};
    return emit1(b, OP_CACHE_ATTENTION, inputs, &attributes, b->state->compute, "attention");
}

/* One layer: x + attention(norm x), then x + ffn(norm x). The residual stream x is f32. */
static int layer(struct builder *b, int x) {
    enum dtype compute = b->state->compute;
    int n = norm(b, WEIGHT_ATTENTION_NORM, x, compute);
    int qkv[3], gate_up[2];
    projections(b, 0, 3, WEIGHT_Q_BIAS, n, -1, compute, qkv);
    int q = rope(b, qkv[0], b->config->heads), k = rope(b, qkv[1], b->config->kv_heads);
    projections(b, 3, 1, WEIGHT_O_BIAS, attention(b, q, k, qkv[2]), x, DTYPE_F32, &x);
    n = norm(b, WEIGHT_FFN_NORM, x, compute);
    projections(b, 4, 2, WEIGHT_GATE_BIAS, n, -1, compute, gate_up);
    int glu = emit1(b, OP_GLU, gate_up, NULL, compute, "glu");
    projections(b, 6, 1, WEIGHT_DOWN_BIAS, glu, x, DTYPE_F32, &x);
    return x;
}

/* low [T or M, rank] and up, the two factors of an adapter outside the layers; false: there is none. */
static bool outer_pair(struct builder *b, int module, int x, int *low, int *up) {
    struct attributes plain = product(b, 1);
    if (!part_of(b, module, PART_LORA_A)) return false;
    int a = part_value(b, module, PART_LORA_A);
    const int down[6] = {x, a, -1, -1, -1, -1}, look_up[2] = {a, x};
    *low = module == MODULE_HEAD ? emit1(b, OP_LINEAR, down, &plain, DTYPE_F32, modules[module].low)
                                 : emit1(b, OP_EMBEDDING, look_up, NULL, DTYPE_F32, modules[module].low);
    *up = part_value(b, module, PART_LORA_B);
    return true;
}

static double outer_scale(const struct builder *b, int module) {
    return method_scale(&b->state->method, part_index(b->config, 0, module));
}

/* addend + scale · low upᵀ */
static int outer_sum(struct builder *b, int module, int low, int up, int addend) {
    struct attributes scaled = product(b, outer_scale(b, module));
    int inputs[6] = {low, up, -1, addend, -1, -1};
    return emit1(b, OP_LINEAR, inputs, &scaled, DTYPE_F32, modules[module].target);
}

/* In training, NEFTune's noise on the embeddings. */
static int noised(struct builder *b, int x) {
    if (b->kind != GRAPH_TRAIN || b->state->method.noise <= 0) return x;
    int64_t tokens = b->sizes->tokens;
    int inputs[5] = {x, b->positions, graph_input(b->graph, INPUT_EXAMPLES, DTYPE_U32, COUNT_TOKENS, tokens),
                     graph_input(b->graph, INPUT_RANDOM, DTYPE_U32, COUNT_FIXED, 4), b->segments};
    struct attributes attributes = {.scale = (float)b->state->method.noise, .module = module_embedding};
    return emit1(b, OP_NOISE, inputs, &attributes, DTYPE_F32, "noise");
}

/* Token ids to the last norm's input [T, D] f32. */
static int trunk(struct builder *b) {
    int64_t tokens = b->sizes->tokens;
    b->positions = graph_input(b->graph, INPUT_POSITIONS, DTYPE_I32, COUNT_TOKENS, tokens);
    b->segments =
        graph_input(b->graph, INPUT_SEGMENTS, DTYPE_I32, COUNT_SEGMENTS_AND_ONE, b->sizes->segments + 1);
    int table[2] = {b->positions, state_value(b, b->state->frequencies, false)};
    b->rope_table = emit1(b, OP_ROPE_TABLE, table, NULL, DTYPE_F32, "rope_table");
    int embedding[2] = {weight(b, WEIGHT_EMBEDDING),
                        graph_input(b->graph, INPUT_IDS, DTYPE_I32, COUNT_TOKENS, tokens)};
    int x = emit1(b, OP_EMBEDDING, embedding, NULL, DTYPE_F32, "embedding"), low, up;
    if (outer_pair(b, MODULE_EMBEDDING, embedding[1], &low, &up))
        x = outer_sum(b, MODULE_EMBEDDING, low, up, x);
    x = noised(b, x);
    for (b->layer = 0; b->layer < b->config->layers; b->layer++) {
        b->graph->block = (int)b->layer;
        x = layer(b, x);
    }
    b->graph->block = -1;
    b->layer = 0;
    return x;
}

/* Only the rows that predict something pass the last norm. */
static int predicting_rows(struct builder *b, int x) {
    int inputs[2] = {x, graph_input(b->graph, INPUT_ROWS, DTYPE_I32, COUNT_TARGETS, b->sizes->targets)};
    int rows = emit1(b, OP_GATHER, inputs, NULL, DTYPE_F32, "rows");
    return norm(b, WEIGHT_OUTPUT_NORM, rows, b->state->compute);
}

static int head(struct builder *b, int x) {
    struct attributes attributes = product(b, 1);
    int inputs[5] = {x, weight(b, WEIGHT_HEAD),
                     graph_input(b->graph, INPUT_TARGETS, DTYPE_I32, COUNT_TARGETS, b->sizes->targets), -1,
                     -1};
    if (outer_pair(b, MODULE_HEAD, x, &inputs[3], &inputs[4]))
        attributes.beta = (float)outer_scale(b, MODULE_HEAD);
    return emit1(b, OP_HEAD, inputs, &attributes, DTYPE_F32, "logp");
}

static int gradient_of(void *user, int value) {
    struct builder *b = user;
    int row = b->graph->values[value].which;
    for (int i = 0; i < b->state->parts.count; i++)
        if (b->state->list[i].row == row) return state_value(b, b->state->list[i].gradient, false);
    b->graph->failed = true;
    return -1;
}

static bool build_train(struct builder *b, struct error *err) {
    int logp = head(b, predicting_rows(b, trunk(b)));
    int inputs[4] = {logp, graph_input(b->graph, INPUT_WEIGHTS, DTYPE_F32, COUNT_TARGETS, b->sizes->targets),
                     state_value(b, b->state->loss, false), state_value(b, b->state->scaling, false)};
    graph_emit(b->graph, OP_LOSS, inputs, NULL, DTYPE_F32, "loss");
    return graph_backward(b->graph, gradient_of, b, err) && graph_prune(b->graph, err) &&
           graph_fold(b->graph, err) &&
           graph_recompute(b->graph, b->sizes->keep, b->sizes->layers ? b->sizes->layers : INT_MAX,
                           b->sizes->span ? b->sizes->span : 1, err);
}

/* A norm is finite when each number is, and costs one reading. */
static int kept_norm(struct builder *b, int value, int loss, const char *name) {
    int inputs[2] = {value, loss};
    int norm_value = value < 0 ? -1 : emit1(b, OP_GRADIENT_NORM, inputs, NULL, DTYPE_F32, name);
    if (norm_value >= 0) b->graph->values[norm_value].keep = true;
    return norm_value;
}

static void build_derive(struct builder *b) {
    for (b->layer = 0; b->layer < b->config->layers; b->layer++)
        for (int m = 0; m < module_count; m++) {
            if (!part_of(b, m, PART_MAGNITUDE)) continue;
            struct attributes scaled =
                product(b, method_scale(&b->state->method, (size_t)(b->layer * module_count + m)));
            int inputs[4] = {weight(b, modules[m].role), part_value(b, m, PART_LORA_A),
                             part_value(b, m, PART_LORA_B), norms_value(b, m)};
            graph_emit(b->graph, OP_ROW_NORMS, inputs, &scaled, DTYPE_F32, "norms");
        }
    b->layer = 0;
}

static void build_update(struct builder *b, struct built_graph *out) {
    int gradient = state_value(b, b->state->gradient, false);
    int scaling = state_value(b, b->state->scaling, false);
    if (scaling >= 0)
        graph_emit(b->graph, OP_UNSCALE, (int[]){gradient, scaling}, NULL, DTYPE_F32, "unscale");
    int norm_value = kept_norm(b, gradient, state_value(b, b->state->loss, false), "norm");
    const struct model_state *state = b->state;
    const struct op_parts *parts = &state->parts;
    struct attributes attributes = {.parts = parts};
    int update[op_max_inputs] = {
        norm_value,
        graph_input(b->graph, INPUT_HYPER, DTYPE_F32, COUNT_FIXED, (int64_t)parts->groups * HYPER_COLUMNS),
        state_value(b, state->step, false), state_value(b, state->trained, false), gradient};
    for (int s = 0; s < optimizer_most_states; s++) update[5 + s] = state_value(b, state->moments[s], false);
    graph_emit(b->graph, optimizer_rows[state->optimizer.kind].op, update, &attributes, DTYPE_F32, "update");
    out->state_norms[0] = kept_norm(b, update[3], -1, "trained_norm");
    for (int s = 0; s < optimizer_most_states; s++)
        if (update[5 + s] >= 0 && b->graph->values[update[5 + s]].dtype == DTYPE_F32) /* codes are finite */
            out->state_norms[1 + s] = kept_norm(b, update[5 + s], -1, "state_norm");
    if (state->average >= 0) {
        int average[5] = {update[0], update[1], update[2], update[3], state_value(b, state->average, false)};
        graph_emit(b->graph, OP_AVERAGE, average, NULL, DTYPE_F32, "average");
    }
    if (scaling >= 0)
        graph_emit(b->graph, OP_SCALE_UPDATE, (int[]){norm_value, scaling}, NULL, DTYPE_F32, "scaling");
    graph_emit(b->graph, OP_ZERO, &gradient, NULL, DTYPE_F32, "zero");
    out->norm = norm_value;
    build_derive(b);
}

bool model_graph_build(struct built_graph *out, const struct model_state *state, enum graph_kind kind,
                       const struct graph_sizes *sizes, struct error *err) {
    memset(out, 0, sizeof *out);
    out->logp = out->logits = out->likeliest = out->norm = -1;
    for (int i = 0; i < built_state_norms; i++) out->state_norms[i] = -1;
    graph_init(&out->graph);
    struct builder b = {
        .graph = &out->graph, .state = state, .config = &state->model->config, .sizes = sizes, .kind = kind};
    bool ok = true;
    if (kind == GRAPH_TRAIN) {
        ok = build_train(&b, err);
    } else if (kind == GRAPH_SCORE) {
        out->logp = head(&b, predicting_rows(&b, trunk(&b)));
        if (out->logp >= 0) out->graph.values[out->logp].keep = true;
    } else if (kind == GRAPH_INFER) {
        struct attributes attributes = product(&b, 1);
        int inputs[6] = {predicting_rows(&b, trunk(&b)), weight(&b, WEIGHT_HEAD), -1, -1, -1, -1}, low, up;
        out->logits = emit1(&b, OP_LINEAR, inputs, &attributes, DTYPE_F32, "logits");
        if (outer_pair(&b, MODULE_HEAD, inputs[0], &low, &up))
            out->logits = outer_sum(&b, MODULE_HEAD, low, up, out->logits);
        out->likeliest = emit1(&b, OP_LIKELIEST, &out->logits, NULL, DTYPE_I32, "likeliest");
        if (out->likeliest >= 0)
            out->graph.values[out->logits].keep = out->graph.values[out->likeliest].keep = true;
    } else if (kind == GRAPH_UPDATE) {
        build_update(&b, out);
    } else {
        build_derive(&b);
    }
    if (ok && out->graph.failed) ok = error_no_memory(err, "model", 0);
    if (ok && (kind == GRAPH_SCORE || kind == GRAPH_INFER)) ok = graph_fold(&out->graph, err);
    if (ok && (kind == GRAPH_TRAIN || kind == GRAPH_SCORE) && sizes->piece_rows)
        ok = graph_cut(&out->graph, sizes->piece_rows, err);
    if (!ok) graph_release(&out->graph);
    return ok;
}
