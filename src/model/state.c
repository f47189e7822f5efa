/* The state of a model: which weights are read where they are mapped, which are copied, and the blocks of
 * what is trained, its gradients and its moments. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/base_type.h"
#include "model/build.h"
#include "model/layout.h"
#include "model/weight_make.h"
#include "tensor/stored.h"

/* Norms and biases are small: kept as f32, so that kernels read one type. */
static bool is_vector(const struct tensor *weight) { return weight->rank == 1; }

static bool is_permuted(const struct model *model, enum weight_role role) {
    return model->permuted && layout_interleaved(role);
}

/* Where a weight's numbers lie: a tied head's are the embedding's. */
static size_t source_of(const struct model *model, size_t index) {
    bool tied = model->config.tied && layout_role(&model->config, index) == WEIGHT_HEAD;
    return tied ? layout_index(&model->config, WEIGHT_EMBEDDING, 0) : index;
}

enum dtype model_state_base(const struct model_state *state, size_t index) {
    const struct tensor *weight = &state->model->weights[source_of(state->model, index)];
    bool taken = dtype_row(state->base)->quantised &&
                 base_type_takes(layout_role(&state->model->config, index), weight);
    return taken ? state->base : weight->dtype;
}

static bool is_trained(const struct model_state *state, size_t weight) {
    return state->method.weights && state->method.weights[weight];
}

static void link_part(struct model_state *state, int weight, enum tensor_part part, int row) {
    if (weight >= 0 && row >= 0) state->table.rows[weight].part[part] = row;
}

/* Read where the file is mapped, and so is what lies apart from the codes. */
static int add_mapped(struct model_state *state, const struct tensor *weight) {
    int row =
        state_add_mapped(&state->table, weight->data, weight->dtype, weight->rank, weight->dim, weight->name);
    for (int p = 0; p < tensor_parts; p++) {
        const struct tensor *part = weight->part[p];
        if (part)
            link_part(
                state, row, (enum tensor_part)p,
                state_add_mapped(&state->table, part->data, part->dtype, part->rank, part->dim, part->name));
    }
    return row;
}

/* Made while the model is loaded: one block, and its pieces. */
static int add_apart(struct model_state *state, enum dtype dtype, const struct tensor *weight) {
    struct state_table *table = &state->table;
    struct stored_layout layout;
    if (!stored_layout(&layout, dtype, weight->dim[0], weight->dim[1], DTYPE_F32)) {
        table->failed = true;
        return -1;
    }
    int64_t bytes = (int64_t)layout.bytes;
    int block = state_add(table, STATE_WEIGHT, DTYPE_U8, 1, &bytes, weight->name);
    const struct stored_piece *codes = &layout.codes;
    int row = state_add_piece(table, block, codes->offset, dtype, codes->rank, codes->dim, weight->name);
    for (int p = 0; p < tensor_parts; p++) {
        const struct stored_piece *piece = &layout.part[p];
        if (piece->rank)
            link_part(state, row, (enum tensor_part)p,
                      state_add_piece(table, block, piece->offset, piece->dtype, piece->rank, piece->dim,
                                      piece->suffix));
    }
    return row;
}

/* Beside an adapter a tied head stays as it is when the embedding is trained: the copy is tied to nothing, as
 * in PEFT. */
static void add_untied_head(struct model_state *state) {
    const struct model_config *config = &state->model->config;
    size_t head = layout_index(config, WEIGHT_HEAD, 0), embedding = layout_index(config, WEIGHT_EMBEDDING, 0);
    if (config->tied && state->method.parts && is_trained(state, embedding) && !is_trained(state, head))
        state->weights[head] = add_mapped(state, &state->model->weights[embedding]);
}

/* Of three layers and more, the first and the last stay as they are: theirs is more than their part of what
 * the rounding costs (docs/cuda.md). */
static bool is_end(const struct model_config *config, int64_t layer) {
    return config->layers > 2 && (layer == 0 || layer == config->layers - 1);
}

/* Tensor cores take vectors of 16; DoRA reads the weights themselves, and what lies in pieces stays so. */
static bool takes_fp8(const struct model_state *state, size_t index, const struct tensor *weight, int row) {
    const struct model_config *config = &state->model->config;
    enum weight_role role = layout_role(config, index);
    return state->fp8 && row >= 0 && !is_end(config, layout_layer(config, index)) &&
           role < WEIGHT_LAYER_ROLES && !is_vector(weight) && !state->method.dora &&
           weight->dim[0] % 16 == 0 && weight->dim[1] % 16 == 0 &&
           dtype_row(state->table.rows[row].dtype)->form == FORM_BLOCK;
}

static void add_weights(struct model_state *state) {
    const struct model *model = state->model;
    for (size_t i = 0; i < layout_count(&model->config); i++) {
        const struct tensor *weight = &model->weights[i];
        enum weight_role role = layout_role(&model->config, i);
        state->weights[i] = -1;
        if (!weight->rank || role == WEIGHT_ROPE_FACTORS || is_trained(state, i)) continue;
        enum dtype base = model_state_base(state, i), dtype = base;
        if (is_vector(weight)) dtype = DTYPE_F32;
        if (state->decoded && role < WEIGHT_LAYER_ROLES && !is_vector(weight)) dtype = state->compute;
        bool made = is_vector(weight) || dtype != weight->dtype || base != dtype || is_permuted(model, role);
        if (made && dtype_row(dtype)->form != FORM_BLOCK)
            state->weights[i] = add_apart(state, dtype, weight);
        else if (made)
            state->weights[i] =
                state_add(&state->table, STATE_WEIGHT, dtype, weight->rank, weight->dim, weight->name);
        else
            state->weights[i] = add_mapped(state, weight);
        if (takes_fp8(state, i, weight, state->weights[i])) state->table.rows[state->weights[i]].fp8 = true;
    }
    add_untied_head(state);
    int64_t half = model->config.head_dim / 2;
    state->frequencies = state_add(&state->table, STATE_WEIGHT, DTYPE_F32, 1, &half, "rope.frequencies");
}

/* The parts that a module may have, and their sides. */
enum side { SIDE_NONE, SIDE_RANK, SIDE_IN, SIDE_OUT };
static const struct part_row {
    const char *name; /* as PEFT ends it */
    enum side sides[2];
} module_parts[2][PART_WEIGHT] = {
    {[PART_LORA_A] = {"lora_A", {SIDE_RANK, SIDE_IN}},
     [PART_LORA_B] = {"lora_B", {SIDE_OUT, SIDE_RANK}},
     [PART_MAGNITUDE] = {"lora_magnitude_vector", {SIDE_OUT, SIDE_NONE}}},
    /* The embedding's, whose A is read by token: a row for each. PEFT's files have it [rank, tokens]. */
    {[PART_LORA_A] = {"lora_embedding_A", {SIDE_IN, SIDE_RANK}},
     [PART_LORA_B] = {"lora_embedding_B", {SIDE_OUT, SIDE_RANK}}},
};

/* Parts begin at multiples of 64 bytes; the gaps stay zero, in gradients and moments too. */
static int64_t block_elements(const struct model_state *state) {
    if (!state->parts.count) return 0;
    const struct op_part *last = &state->parts.items[state->parts.count - 1];
    return last->offset + op_padded(last->rows * last->columns);
}

/* Puts a part behind those that there are. */
static struct op_part *list_part(struct model_state *state, enum part_kind kind, size_t of, int rank,
                                 const int64_t dim[2]) {
    int64_t at = block_elements(state);
    struct op_part *part = &state->parts.items[state->parts.count];
    state->list[state->parts.count++] =
        (struct trained_part){.kind = kind, .of = of, .rank = rank, .row = -1, .gradient = -1};
    *part = (struct op_part){.offset = at, .rows = dim[0], .columns = rank == 2 ? dim[1] : 1};
    return part;
}

static void list_module(struct model_state *state, size_t index) {
    const struct model_config *config = &state->model->config;
    int64_t sides[4] = {0}, layer = part_layer(config, index);
    int module = part_module(config, index);
    char path[96];
    sides[SIDE_RANK] = state->method.parts[index].rank;
    if (!sides[SIDE_RANK]) return;
    module_shape(config, module, &sides[SIDE_OUT], &sides[SIDE_IN]);
    module_path(layer, module, path);
    for (int kind = PART_LORA_A; kind <= (state->method.dora ? PART_MAGNITUDE : PART_LORA_B); kind++) {
        const struct part_row *row = &module_parts[module == MODULE_EMBEDDING][kind];
        const enum side *of = row->sides;
        const int64_t dim[2] = {sides[of[0]], sides[of[1]]};
        struct op_part *part = list_part(state, (enum part_kind)kind, index, of[1] == SIDE_NONE ? 1 : 2, dim);
        part->hidden = of[1] != SIDE_NONE && module < module_count;
        snprintf(part->name, sizeof part->name, "%s.%s", path, row->name);
    }
}

static void list_parts(struct model_state *state) {
    size_t modules_in_all = method_part_count(&state->model->config);
    for (size_t i = 0; i < modules_in_all; i++) {
        state->first[i] = state->parts.count;
        if (state->method.parts) list_module(state, i);
    }
    state->first[modules_in_all] = state->parts.count;
    for (size_t i = 0; i < layout_count(&state->model->config); i++) {
        char name[tensor_max_name];
        const struct tensor *weight = &state->model->weights[source_of(state->model, i)];
        if (!is_trained(state, i) || !weight_name_trained(state->model, i, name)) continue;
        struct op_part *part = list_part(state, PART_WEIGHT, i, weight->rank, weight->dim);
        part->hidden = weight->rank == 2 && layout_role(&state->model->config, i) < WEIGHT_LAYER_ROLES;
        snprintf(part->name, sizeof part->name, "%.*s", (int)sizeof part->name - 1, name);
    }
}

/* A block and, behind its row, those of its parts. */
static int add_block(struct model_state *state, enum state_class class, const char *name) {
    int64_t elements = block_elements(state);
    int block = state_add(&state->table, class, DTYPE_F32, 1, &elements, name);
    for (int i = 0; i < state->parts.count; i++) {
        const struct op_part *part = &state->parts.items[i];
        const int64_t dim[2] = {part->rows, part->columns};
        int row = state_add_part(&state->table, block, (uint64_t)part->offset * sizeof(float),
                                 state->list[i].rank, dim, part->name);
        if (class == STATE_TRAINED) state->list[i].row = row;
        if (class == STATE_GRADIENT) state->list[i].gradient = row;
    }
    return block;
}

int model_state_average(const struct model_state *state, int row) {
    bool trained = state->trained >= 0 && row >= state->trained && row <= state->trained + state->parts.count;
    return trained && state->average >= 0 ? row - state->trained + state->average : row;
}

const struct trained_part *model_state_part(const struct model_state *state, size_t module,
                                            enum part_kind kind) {
    for (int i = state->first[module]; i < state->first[module + 1]; i++)
        if (state->list[i].kind == kind) return &state->list[i];
    return NULL;
}

/* State that is packed by part gets its slots; each begins at a multiple of 64 bytes. */
static void add_optimizer(struct model_state *state, int64_t elements) {
    const struct optimizer_row *row = &optimizer_rows[state->optimizer.kind];
    for (int s = 0; s < optimizer_most_states && row->states[s].name; s++) {
        int64_t size = row->states[s].elements ? 0 : elements;
        if (row->states[s].momentum && !state->optimizer.momentum) continue;
        for (int p = 0; row->states[s].elements && p < state->parts.count; p++) {
            state->parts.items[p].slot[s] = size;
            size += row->states[s].elements(&state->parts.items[p]);
        }
        if (!size) continue; /* no part has any of it */
        state->moments[s] =
            state_add(&state->table, STATE_OPTIMIZER, row->states[s].dtype, 1, &size, row->states[s].name);
        if (state->moments[s] >= 0) state->table.rows[state->moments[s]].offloaded = state->offload_optimizer;
    }
}

static void add_norms(struct model_state *state, enum state_class class, const char *what, int *norms) {
    size_t modules_in_all = method_part_count(&state->model->config);
    for (size_t i = 0; i < modules_in_all; i++) {
        const struct trained_part *part = model_state_part(state, i, PART_MAGNITUDE);
        char name[96];
        norms[i] = -1;
        if (!part || state->table.failed) continue;
        snprintf(name, sizeof name, "%zu.%s", i, what);
        norms[i] = state_add(&state->table, class, DTYPE_F32, 1, state->table.rows[part->row].dim, name);
    }
}

/* They are part of the adapter, but do not change. */
static void add_starts(struct model_state *state) {
    size_t modules_in_all = method_part_count(&state->model->config);
    for (size_t i = 0; i < modules_in_all; i++) {
        state->starts[i] = (struct start_pair){-1, -1};
        if (!model_state_part(state, i, PART_LORA_A) || !method_is_subtracted(&state->method)) continue;
        int64_t rank = state->method.parts[i].rank, out, in;
        char name[96];
        module_shape(&state->model->config, part_module(&state->model->config, i), &out, &in);
        const int64_t dim_a[2] = {rank, in}, dim_b[2] = {out, rank};
        snprintf(name, sizeof name, "%zu.start_A", i);
        state->starts[i].a = state_add(&state->table, STATE_TRAINED, DTYPE_F32, 2, dim_a, name);
        snprintf(name, sizeof name, "%zu.start_B", i);
        state->starts[i].b = state_add(&state->table, STATE_TRAINED, DTYPE_F32, 2, dim_b, name);
    }
}

static void add_trained(struct model_state *state, bool train, bool average) {
    struct state_table *table = &state->table;
    int64_t one = 1, columns = SCALING_COLUMNS;
    state->trained = state->gradient = state->average = state->step = state->loss = state->scaling = -1;
    for (int s = 0; s < optimizer_most_states; s++) state->moments[s] = -1;
    list_parts(state);
    if (state->parts.count) state->trained = add_block(state, STATE_TRAINED, "trained");
    /* The f32 masters of trained weights are as large as a moment; an adapter is small, and read all the
     * time. */
    if (state->trained >= 0 && state->list[0].kind == PART_WEIGHT)
        state->table.rows[state->trained].offloaded = state->offload_optimizer;
    for (int i = 0; i < state->parts.count; i++)
        if (state->list[i].kind == PART_WEIGHT) state->weights[state->list[i].of] = state->list[i].row;
    add_norms(state, STATE_TRAINED, "norms", state->norms);
    if (!state->table.failed) add_starts(state);
    if (!train) return;
    state->gradient = add_block(state, STATE_GRADIENT, "gradient");
    if (average) {
        state->average = add_block(state, STATE_OPTIMIZER, "average");
        add_norms(state, STATE_OPTIMIZER, "average_norms", state->average_norms);
    }
    add_optimizer(state, block_elements(state));
    state->step = state_add(table, STATE_OPTIMIZER, DTYPE_I32, 1, &one, "step");
    state->loss = state_add(table, STATE_OPTIMIZER, DTYPE_F64, 1, &one, "loss");
    if (state->compute == DTYPE_F16)
        state->scaling = state_add(table, STATE_OPTIMIZER, DTYPE_F32, 1, &columns, "loss_scaling");
}

static void add_cache(struct model_state *state, int64_t slots, int64_t context, enum dtype dtype) {
    const struct model_config *config = &state->model->config;
    int64_t dim[4] = {slots, config->kv_heads, context, config->head_dim};
    for (int64_t layer = 0; layer < config->layers; layer++) {
        state->cache_k[layer] = state_add(&state->table, STATE_CACHE, dtype, 4, dim, "cache_k");
        state->cache_v[layer] = state_add(&state->table, STATE_CACHE, dtype, 4, dim, "cache_v");
    }
}

bool model_state_build(struct model_state *out, const struct model *model, const struct method *method,
                       const struct state_options *options, struct error *err) {
    memset(out, 0, sizeof *out);
    state_table_init(&out->table);
    out->model = model;
    out->compute = options->compute;
    out->decoded = options->decoded;
    out->fp8 = options->fp8;
    out->base = options->base;
    if (!method_copy(&out->method, method, err)) return false;
    out->optimizer = options->optimizer;
    out->offload_optimizer = options->offload_optimizer;
    out->parts.groups = 1;
    size_t layers = (size_t)model->config.layers, parts = method_part_count(&model->config),
           most = parts * PART_WEIGHT + layout_count(&model->config);
    out->weights = mem_array(layout_count(&model->config), sizeof(int));
    out->first = mem_array(parts + 1, sizeof(int));
    out->norms = mem_array(parts * 2, sizeof(int));
    out->starts = mem_array(parts, sizeof *out->starts);
    out->list = mem_array(most, sizeof *out->list);
    out->cache_k = mem_array(layers * 2, sizeof(int));
    out->parts.items = mem_array(most, sizeof *out->parts.items);
    if (!out->weights || !out->first || !out->norms || !out->starts || !out->list || !out->cache_k ||
        !out->parts.items) {
        model_state_release(out);
        return error_no_memory(err, "model", most * sizeof *out->parts.items);
    }
    out->average_norms = out->norms + parts;
    out->cache_v = out->cache_k + layers;
    add_weights(out);
    add_trained(out, options->train, options->average);
    if (options->slots > 0) add_cache(out, options->slots, options->context, options->cache);
    bool ok = !out->table.failed || error_no_memory(err, "model", 0);
    if (ok && options->groups) ok = groups_assign(&out->parts, options->groups, &out->groups, err);
    if (!ok) model_state_release(out);
    return ok;
}

void model_state_release(struct model_state *state) {
    state_table_release(&state->table);
    method_release(&state->method);
    mem_free(state->weights);
    mem_free(state->first);
    mem_free(state->norms);
    mem_free(state->starts);
    mem_free(state->list);
    mem_free(state->cache_k);
    mem_free(state->parts.items);
    mem_free(state->groups);
    memset(state, 0, sizeof *state);
}

bool model_weight_make(const struct model *model, size_t index, enum dtype base, enum dtype dtype, void *out,
                       struct pool *pool, struct error *err) {
    bool permuted = is_permuted(model, layout_role(&model->config, index));
    struct tensor source = model->weights[source_of(model, index)];
    if (permuted && is_vector(&source)) { /* a row an element */
        source.rank = 2;
        source.dim[1] = 1;
    }
    struct weight_work work = {
        .source = &source, .base = base, .dtype = dtype, .head_dim = permuted ? model->config.head_dim : 0};
    return weight_make(&work, out, pool, err);
}

bool model_state_make(const struct model_state *state, int row, void *out, struct pool *pool,
                      struct error *err) {
    const struct state_row *rows = state->table.rows;
    const struct model *model = state->model;
    if (row == state->frequencies) {
        model_rope_frequencies(model, out);
        return true;
    }
    for (size_t i = 0; i < layout_count(&model->config); i++) {
        int made = state->weights[i];
        if (made < 0 || (made != row && rows[made].parent != row)) continue;
        return model_weight_make(model, i, model_state_base(state, i), rows[made].dtype, out, pool, err);
    }
    return error_set(err, ERROR_INTERNAL, "model", "state row %d is no weight", row);
}
