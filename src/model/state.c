/* The state of a model: which weights are read where they are mapped, which are copied, and the blocks of
 * adapter, gradients and moments. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/build.h"
#include "tensor/rowcodec.h"

static size_t weight_count(const struct model *model) {
    return (size_t)model->config.layers * WEIGHT_LAYER_ROLES + (WEIGHT_ROLES - WEIGHT_LAYER_ROLES);
}

static enum weight_role role_at(const struct model *model, size_t index) {
    size_t in_layers = (size_t)model->config.layers * WEIGHT_LAYER_ROLES;
    return index < in_layers ? (enum weight_role)(index % WEIGHT_LAYER_ROLES)
                             : (enum weight_role)(WEIGHT_LAYER_ROLES + index - in_layers);
}

static bool is_linear(enum weight_role role) {
    for (int m = 0; m < module_count; m++)
        if (modules[m].role == role) return true;
    return false;
}

/* Norms and biases are small: kept as f32, so that kernels read one type. */
static bool is_vector(const struct tensor *weight) { return weight->rank == 1; }

static bool is_permuted(const struct model *model, enum weight_role role) {
    return model->permuted && (role == WEIGHT_Q || role == WEIGHT_K);
}

static void add_weights(struct model_state *state) {
    const struct model *model = state->model;
    for (size_t i = 0; i < weight_count(model); i++) {
        const struct tensor *weight = &model->weights[i];
        enum weight_role role = role_at(model, i);
        state->weights[i] = -1;
        if (!weight->rank || role == WEIGHT_ROPE_FACTORS) continue;
        bool decode = state->decoded && is_linear(role) && weight->dtype != state->compute;
        if (is_vector(weight) || decode || is_permuted(model, role)) {
            enum dtype dtype = is_vector(weight) ? DTYPE_F32 : decode ? state->compute : weight->dtype;
            state->weights[i] =
                state_add(&state->table, STATE_WEIGHT, dtype, weight->rank, weight->dim, weight->name);
        } else {
            state->weights[i] = state_add_mapped(&state->table, weight->data, weight->dtype, weight->rank,
                                                 weight->dim, weight->name);
        }
    }
    int64_t half = model->config.head_dim / 2;
    state->frequencies = state_add(&state->table, STATE_WEIGHT, DTYPE_F32, 1, &half, "rope.frequencies");
}

/* Parts begin at multiples of 64 bytes; the gaps stay zero, in gradients and moments too. */
static int64_t part_elements(int64_t rows, int64_t columns) { return op_padded(rows * columns); }

static int64_t block_elements(const struct model_state *state) {
    int64_t total = 0, out, in;
    for (size_t i = 0; i < state->method.count; i++) {
        int64_t rank = state->method.parts[i].rank;
        module_shape(&state->model->config, (int)(i % module_count), &out, &in);
        total += part_elements(rank, in) + part_elements(out, rank);
    }
    return total;
}

/* The part of a matrix in the block, named as PEFT names its module. */
static void note_part(struct model_state *state, int64_t layer, int module, char matrix, const int64_t dim[2],
                      uint64_t at) {
    char path[96];
    struct op_part *part = &state->parts.items[state->parts.count++];
    *part = (struct op_part){.offset = (int64_t)(at / sizeof(float)), .rows = dim[0], .columns = dim[1]};
    module_path(layer, module, path);
    snprintf(part->name, sizeof part->name, "%s.lora_%c", path, matrix);
}

static void add_parts(struct model_state *state, int block, int *down, int *up, const char *kind) {
    const struct model_config *config = &state->model->config;
    uint64_t at = 0;
    for (int64_t layer = 0; layer < config->layers; layer++)
        for (int m = 0; m < module_count; m++) {
            size_t index = (size_t)(layer * module_count + m);
            int64_t out, in, rank = state->method.parts ? state->method.parts[index].rank : 0;
            char name[96];
            down[index] = up[index] = -1;
            if (!rank) continue;
            module_shape(config, m, &out, &in);
            int64_t a[2] = {rank, in}, b[2] = {out, rank};
            snprintf(name, sizeof name, "%lld.%s.%s_a", (long long)layer, modules[m].target, kind);
            down[index] = state_add_part(&state->table, block, at, 2, a, name);
            if (block == state->adapter) note_part(state, layer, m, 'A', a, at);
            at += (uint64_t)part_elements(a[0], a[1]) * sizeof(float);
            name[strlen(name) - 1] = 'b';
            up[index] = state_add_part(&state->table, block, at, 2, b, name);
            if (block == state->adapter) note_part(state, layer, m, 'B', b, at);
            at += (uint64_t)part_elements(b[0], b[1]) * sizeof(float);
        }
}

/* State that is packed by part gets its slots; each begins at a multiple of 64 bytes. */
static void add_optimizer(struct model_state *state, int64_t elements) {
    const struct optimizer_row *row = &optimizer_rows[state->optimizer.kind];
    for (int s = 0; s < optimizer_most_states && row->states[s].name; s++) {
        int64_t size = row->states[s].elements ? 0 : elements;
        if (row->states[s].momentum && !state->optimizer.momentum) continue;
        for (int p = 0; row->states[s].elements && p < state->parts.count; p++) {
            state->parts.items[p].slot = size;
            size += row->states[s].elements(&state->parts.items[p]);
        }
        state->moments[s] =
            state_add(&state->table, STATE_OPTIMIZER, DTYPE_F32, 1, &size, row->states[s].name);
    }
}

static void add_adapter(struct model_state *state, bool train) {
    struct state_table *table = &state->table;
    int64_t elements = block_elements(state), one = 1;
    state->adapter = state->gradient = state->step = state->loss = -1;
    for (int s = 0; s < optimizer_most_states; s++) state->moments[s] = -1;
    if (state->method.parts)
        state->adapter = state_add(table, STATE_ADAPTER, DTYPE_F32, 1, &elements, "adapter");
    add_parts(state, state->adapter, state->down, state->up, "lora");
    if (!train) return;
    state->gradient = state_add(table, STATE_GRADIENT, DTYPE_F32, 1, &elements, "gradient");
    add_parts(state, state->gradient, state->down_gradient, state->up_gradient, "gradient");
    add_optimizer(state, elements);
    state->step = state_add(table, STATE_OPTIMIZER, DTYPE_I32, 1, &one, "step");
    state->loss = state_add(table, STATE_OPTIMIZER, DTYPE_F64, 1, &one, "loss");
}

static void add_cache(struct model_state *state, int64_t slots, int64_t context) {
    const struct model_config *config = &state->model->config;
    int64_t dim[4] = {slots, config->kv_heads, context, config->head_dim};
    for (int64_t layer = 0; layer < config->layers; layer++) {
        state->cache_k[layer] = state_add(&state->table, STATE_CACHE, state->compute, 4, dim, "cache_k");
        state->cache_v[layer] = state_add(&state->table, STATE_CACHE, state->compute, 4, dim, "cache_v");
    }
}

bool model_state_build(struct model_state *out, const struct model *model, const struct method *method,
                       const struct state_options *options, struct error *err) {
    memset(out, 0, sizeof *out);
    state_table_init(&out->table);
    out->model = model;
    out->compute = options->compute;
    out->decoded = options->decoded;
    if (!method_copy(&out->method, method, err)) return false;
    out->optimizer = options->optimizer;
    out->parts.groups = 1;
    size_t parts = (size_t)model->config.layers * module_count, layers = (size_t)model->config.layers;
    out->weights = mem_array(weight_count(model), sizeof(int));
    out->down = mem_array(parts * 4, sizeof(int));
    out->cache_k = mem_array(layers * 2, sizeof(int));
    out->parts.items = mem_array(parts * 2, sizeof *out->parts.items);
    if (!out->weights || !out->down || !out->cache_k || !out->parts.items) {
        model_state_release(out);
        return error_no_memory(err, "model", parts * 4 * sizeof(int));
    }
    out->up = out->down + parts;
    out->down_gradient = out->up + parts;
    out->up_gradient = out->down_gradient + parts;
    out->cache_v = out->cache_k + layers;
    add_weights(out);
    add_adapter(out, options->train);
    if (options->slots > 0) add_cache(out, options->slots, options->context);
    if (!out->table.failed) return true;
    model_state_release(out);
    return error_no_memory(err, "model", 0);
}

void model_state_release(struct model_state *state) {
    state_table_release(&state->table);
    method_release(&state->method);
    mem_free(state->weights);
    mem_free(state->down);
    mem_free(state->cache_k);
    mem_free(state->parts.items);
    memset(state, 0, sizeof *state);
}

/* Row of the file that holds row `r`: the GGUF's llama order puts the two halves of a head side by side. */
static int64_t source_row(const struct model *model, enum weight_role role, int64_t r) {
    if (!is_permuted(model, role)) return r;
    int64_t d = model->config.head_dim, half = d / 2, head = r / d, at = r % d;
    return head * d + 2 * (at % half) + at / half;
}

static bool make_weight(const struct model_state *state, size_t index, const struct state_row *row,
                        unsigned char *out, struct error *err) {
    const struct model *model = state->model;
    const struct tensor *weight = &model->weights[index];
    int64_t rows = weight->rank == 2 ? weight->dim[0] : 1, columns = weight->dim[weight->rank - 1];
    uint64_t from = weight->bytes / (uint64_t)rows, to = row->bytes / (uint64_t)rows;
    float *line = mem_array((size_t)columns, sizeof *line);
    if (!line) return error_no_memory(err, "model", (uint64_t)columns * sizeof *line);
    for (int64_t r = 0; r < rows; r++) {
        const unsigned char *source = (const unsigned char *)weight->data +
                                      (uint64_t)source_row(model, role_at(model, index), r) * from;
        unsigned char *target = out + (uint64_t)r * to;
        if (row->dtype == weight->dtype) {
            memcpy(target, source, to);
        } else {
            rowcodec(weight->dtype)->decode(source, line, columns);
            rowcodec(row->dtype)->encode(line, target, columns);
        }
    }
    mem_free(line);
    return true;
}

bool model_state_make(const struct model_state *state, int row, void *out, struct error *err) {
    if (row == state->frequencies) {
        model_rope_frequencies(state->model, out);
        return true;
    }
    for (size_t i = 0; i < weight_count(state->model); i++)
        if (state->weights[i] == row) return make_weight(state, i, &state->table.rows[row], out, err);
    return error_set(err, ERROR_INTERNAL, "model", "state row %d is no weight", row);
}
