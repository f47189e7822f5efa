#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/fs.h"
#include "base/mem.h"
#include "model/model_internal.h"
#include "tensor/rowcodec.h"

static size_t weight_index(const struct model *model, enum weight_role role, int64_t layer) {
    if (role < WEIGHT_LAYER_ROLES) return (size_t)layer * WEIGHT_LAYER_ROLES + (size_t)role;
    return (size_t)model->config.layers * WEIGHT_LAYER_ROLES + (size_t)(role - WEIGHT_LAYER_ROLES);
}

const struct tensor *model_weight(const struct model *model, enum weight_role role, int64_t layer) {
    if (role == WEIGHT_HEAD && model->config.tied) role = WEIGHT_EMBEDDING;
    const struct tensor *weight = &model->weights[weight_index(model, role, layer)];
    return weight->rank ? weight : NULL;
}

/* The dimensions a weight must have; rank is the number of nonzero entries. */
static void expected_shape(const struct model_config *c, enum weight_role role, int64_t dim[2]) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shapes[WEIGHT_ROLES][2] = {
        [WEIGHT_ATTENTION_NORM] = {c->hidden, 0},
        [WEIGHT_Q] = {q, c->hidden},
        [WEIGHT_K] = {kv, c->hidden},
        [WEIGHT_V] = {kv, c->hidden},
        [WEIGHT_O] = {c->hidden, q},
        [WEIGHT_Q_BIAS] = {q, 0},
        [WEIGHT_K_BIAS] = {kv, 0},
        [WEIGHT_V_BIAS] = {kv, 0},
        [WEIGHT_O_BIAS] = {c->hidden, 0},
        [WEIGHT_FFN_NORM] = {c->hidden, 0},
        [WEIGHT_GATE] = {c->ffn, c->hidden},
        [WEIGHT_UP] = {c->ffn, c->hidden},
        [WEIGHT_DOWN] = {c->hidden, c->ffn},
        [WEIGHT_EMBEDDING] = {c->vocabulary, c->hidden},
        [WEIGHT_OUTPUT_NORM] = {c->hidden, 0},
        [WEIGHT_HEAD] = {c->vocabulary, c->hidden},
        [WEIGHT_ROPE_FACTORS] = {c->head_dim / 2, 0},
    };
    dim[0] = shapes[role][0];
    dim[1] = shapes[role][1];
}

static const struct tensor *find(const struct model *model, const char *name) {
    return model->gguf ? gguf_find_tensor(model->gguf, name) : hub_find_tensor(model->hub, name);
}

/* The tensor's name in this container; false where the container has none for it. */
static bool weight_name_in(const struct model *model, const struct weight_name *row, int64_t layer,
                           char name[tensor_max_name]) {
    const char *pattern = model->gguf ? row->gguf : row->hub;
    if (!pattern) return false;
    const char *mark = row->role < WEIGHT_LAYER_ROLES ? strstr(pattern, "%d") : NULL;
    if (mark)
        snprintf(name, tensor_max_name, "%.*s%lld%s", (int)(mark - pattern), pattern, (long long)layer,
                 mark + 2);
    else
        snprintf(name, tensor_max_name, "%s", pattern);
    return true;
}

static bool weight_load(struct model *model, const struct weight_name *row, int64_t layer,
                        struct error *err) {
    char name[tensor_max_name];
    int64_t dim[2];
    if (!weight_name_in(model, row, layer, name)) return true;
    const struct tensor *tensor = find(model, name);
    if (!tensor && (row->optional || (row->role == WEIGHT_HEAD && model->config.tied))) return true;
    if (!tensor)
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is missing", model->path, name);
    expected_shape(&model->config, row->role, dim);
    int rank = dim[1] ? 2 : 1;
    if (tensor->rank != rank || tensor->dim[0] != dim[0] || (rank == 2 && tensor->dim[1] != dim[1])) {
        error_set(err, ERROR_INPUT, "model", "%s: the tensor %s has the wrong shape", model->path, name);
        return error_why(err, "it is [%lld, %lld], the configuration asks for [%lld, %lld]",
                         (long long)tensor->dim[0], (long long)(tensor->rank > 1 ? tensor->dim[1] : 0),
                         (long long)dim[0], (long long)dim[1]);
    }
    if (!rowcodec(tensor->dtype))
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is of type %s, weights are not",
                         model->path, name, dtype_row(tensor->dtype)->name);
    model->weights[weight_index(model, row->role, layer)] = *tensor;
    return true;
}

/* A configuration with fewer layers than the file would compute something else without a word. */
static bool no_more_layers(const struct model *model, struct error *err) {
    char name[tensor_max_name];
    for (int i = 0; i < model->family->weight_count; i++) {
        const struct weight_name *row = &model->family->weights[i];
        if (row->role >= WEIGHT_LAYER_ROLES || !weight_name_in(model, row, model->config.layers, name) ||
            !find(model, name))
            continue;
        error_set(err, ERROR_INPUT, "model", "%s: the configuration says %lld layers, the file holds more",
                  model->path, (long long)model->config.layers);
        return error_why(err, "it has the tensor %s", name);
    }
    return true;
}

static bool weights_load(struct model *model, struct error *err) {
    const struct family *family = model->family;
    size_t count = (size_t)model->config.layers * WEIGHT_LAYER_ROLES + WEIGHT_ROLES;
    model->weights = mem_calloc(count, sizeof *model->weights);
    if (!model->weights) return error_no_memory(err, "model", count * sizeof *model->weights);
    for (int i = 0; i < family->weight_count; i++) {
        const struct weight_name *row = &family->weights[i];
        int64_t layers = row->role < WEIGHT_LAYER_ROLES ? model->config.layers : 1;
        for (int64_t layer = 0; layer < layers; layer++)
            if (!weight_load(model, row, layer, err)) return false;
    }
    if (!model->weights[weight_index(model, WEIGHT_HEAD, 0)].rank) model->config.tied = true;
    return no_more_layers(model, err);
}

/* Bounds that keep every later product of sizes far from overflow. */
static bool config_check(const struct model *model, struct error *err) {
    const struct model_config *c = &model->config;
    const struct {
        const char *name;
        int64_t value, most;
    } fields[] = {
        {"hidden size", c->hidden, 1 << 20},         {"number of layers", c->layers, 4096},
        {"number of heads", c->heads, 4096},         {"number of kv heads", c->kv_heads, 4096},
        {"head width", c->head_dim, 4096},           {"feed-forward width", c->ffn, 1 << 22},
        {"vocabulary size", c->vocabulary, 1 << 24}, {"context length", c->context, INT64_C(1) << 31},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < 1 || fields[i].value > fields[i].most)
            return error_set(err, ERROR_INPUT, "model", "%s: the %s is %lld, it must be from 1 to %lld",
                             model->path, fields[i].name, (long long)fields[i].value,
                             (long long)fields[i].most);
    if (c->heads % c->kv_heads)
        return error_set(err, ERROR_INPUT, "model", "%s: %lld heads cannot share %lld kv heads", model->path,
                         (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim % 2)
        return error_set(err, ERROR_INPUT, "model", "%s: the head width %lld is odd", model->path,
                         (long long)c->head_dim);
    if (!(c->norm_epsilon > 0 && c->norm_epsilon < 1) || !(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return error_set(err, ERROR_INPUT, "model", "%s: norm epsilon %g or rope theta %g is out of range",
                         model->path, c->norm_epsilon, c->rope_theta);
    return true;
}

bool model_open(struct model **out, const char *path, struct error *err) {
    *out = NULL;
    struct model *model = mem_calloc(1, sizeof *model);
    if (!model || !(model->path = mem_strdup(path))) {
        mem_free(model);
        return error_no_memory(err, "model", sizeof *model);
    }
    bool ok = false;
    enum fs_kind kind = fs_kind_of(path);
    if (kind == FS_NOTHING) {
        error_set(err, ERROR_INPUT, "model", "there is no model %s", path);
        error_fix(err, "Name a GGUF file, a model directory, or a model that hone pull has named.");
    } else {
        ok = kind == FS_DIRECTORY ? hub_open(&model->hub, path, err) : gguf_open(&model->gguf, path, err);
    }
    ok = ok && (model->gguf ? model_config_gguf(model, err) : model_config_hub(model, err));
    ok = ok && config_check(model, err) && weights_load(model, err);
    if (ok && !(model->gguf ? model_text_gguf(model, err) : model_text_hub(model, err)))
        ok = strcmp(err->where, "tokenizer") == 0 && error_about(err, path); /* it knows no files */
    if (ok && tokenizer_size(model->tokenizer) > (size_t)model->config.vocabulary)
        ok = error_set(err, ERROR_INPUT, "model",
                       "%s: the tokenizer has %zu tokens, the embedding only %lld rows", path,
                       tokenizer_size(model->tokenizer), (long long)model->config.vocabulary);
    if (!ok) model_close(&model);
    *out = model;
    return ok;
}

void model_close(struct model **handle) {
    struct model *model = *handle;
    if (!model) return;
    tokenizer_close(&model->tokenizer);
    stops_release(&model->stops);
    mem_free(model->chat_template);
    mem_free(model->weights);
    mem_free(model->path);
    gguf_close(&model->gguf);
    hub_close(&model->hub);
    mem_free(model);
    *handle = NULL;
}

bool model_digest(const struct model *model, struct digest *out, struct error *err) {
    if (model->gguf) return digest_file(model->path, out, err);
    /* A directory: a digest over the tensors' own digests in the family's order. */
    struct buf all = {0};
    for (int i = 0; i < model->family->weight_count; i++) {
        const struct weight_name *row = &model->family->weights[i];
        int64_t layers = row->role < WEIGHT_LAYER_ROLES ? model->config.layers : 1;
        for (int64_t layer = 0; layer < layers; layer++) {
            const struct tensor *weight = &model->weights[weight_index(model, row->role, layer)];
            if (!weight->rank) continue;
            digest_bytes(weight->data, (size_t)weight->bytes, out);
            buf_printf(&all, "%s %s\n", weight->name, out->hex);
        }
    }
    bool ok = !all.failed;
    if (ok) digest_bytes(all.data, all.size, out);
    buf_release(&all);
    return ok || error_no_memory(err, "model", 0);
}

/* Llama 3's scaling (transformers, modeling_rope_utils, _compute_llama3_parameters): long waves are
 * slowed by `factor`, short ones kept, those between blended. */
static double llama3_scaled(const struct model_config *c, double frequency) {
    double wave = 2 * M_PI / frequency;
    if (wave < c->rope_original / c->rope_high) return frequency;
    if (wave > c->rope_original / c->rope_low) return frequency / c->rope_factor;
    double smooth = (c->rope_original / wave - c->rope_low) / (c->rope_high - c->rope_low);
    return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

void model_rope_frequencies(const struct model *model, float *out) {
    const struct model_config *c = &model->config;
    const struct tensor *factors = model_weight(model, WEIGHT_ROPE_FACTORS, 0);
    int64_t half = c->head_dim / 2;
    if (factors) rowcodec(factors->dtype)->decode(factors->data, out, half);
    for (int64_t i = 0; i < half; i++) {
        double frequency = pow(c->rope_theta, -(double)i / (double)half);
        if (factors)
            frequency /= (double)out[i];
        else if (c->rope_scaling == ROPE_LINEAR)
            frequency /= c->rope_factor;
        else if (c->rope_scaling == ROPE_LLAMA3)
            frequency = llama3_scaled(c, frequency);
        out[i] = (float)frequency;
    }
}

uint64_t model_parameters(const struct model *model) {
    uint64_t total = 0, elements;
    size_t count = (size_t)model->config.layers * WEIGHT_LAYER_ROLES + (WEIGHT_ROLES - WEIGHT_LAYER_ROLES);
    for (size_t i = 0; i < count; i++)
        if (model->weights[i].rank && tensor_elements(&model->weights[i], &elements)) total += elements;
    return total;
}

uint64_t model_token_bytes(const struct model *model) {
    uint64_t total = 0;
    size_t count = (size_t)model->config.layers * WEIGHT_LAYER_ROLES + (WEIGHT_ROLES - WEIGHT_LAYER_ROLES);
    for (size_t i = 0; i < count; i++)
        if (model->weights[i].rank) total += (uint64_t)model->weights[i].bytes;
    const struct tensor *embedding = model_weight(model, WEIGHT_EMBEDDING, 0);
    if (!model->config.tied)
        total -= (uint64_t)embedding->bytes / (uint64_t)embedding->dim[0] * (uint64_t)(embedding->dim[0] - 1);
    return total;
}
