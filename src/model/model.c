#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "model/layout.h"
#include "model/model_internal.h"
#include "model/rope.h"
#include "tensor/rowcodec.h"
#include "tensor/stored.h"

const struct tensor *model_weight(const struct model *model, enum weight_role role, int64_t layer) {
    if (role == WEIGHT_HEAD && model->config.tied) role = WEIGHT_EMBEDDING;
    const struct tensor *weight = &model->weights[layout_index(&model->config, role, layer)];
    return weight->rank ? weight : NULL;
}

static const struct tensor *find(const struct model *model, const char *name) {
    return model->gguf ? gguf_find_tensor(model->gguf, name) : hub_find_tensor(model->hub, name);
}

/* The same, where a directory's weight may be several tensors put together in *made. */
static bool find_weight(struct model *model, const char *name, struct tensor *made, const struct tensor **out,
                        struct error *err) {
    bool found = true;
    *out = model->hub ? made : find(model, name);
    if (model->hub && !hub_find_weight(model->hub, name, made, &found, err)) return false;
    if (!found) *out = NULL;
    return true;
}

enum { shape_text_size = 22 * tensor_max_rank + 3 };

static const char *shape_text(char out[shape_text_size], int rank, const int64_t *dim) {
    int size = snprintf(out, shape_text_size, "[");
    for (int i = 0; i < rank; i++)
        size +=
            snprintf(out + size, shape_text_size - (size_t)size, i ? ", %lld" : "%lld", (long long)dim[i]);
    snprintf(out + size, shape_text_size - (size_t)size, "]");
    return out;
}

static bool weight_load(struct model *model, const struct weight_name *row, int64_t layer,
                        struct error *err) {
    char name[tensor_max_name];
    int64_t dim[2];
    if (!layout_present(&model->config, row) || !layout_name(row, model->gguf != NULL, layer, name))
        return true;
    const struct tensor *tensor;
    struct tensor made;
    if (!find_weight(model, name, &made, &tensor, err)) return false;
    if (!tensor && (row->presence == WEIGHT_OPTIONAL || (row->role == WEIGHT_HEAD && model->config.tied)))
        return true;
    if (!tensor)
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is missing", model->path, name);
    int rank = layout_shape(&model->config, row->role, dim);
    if (tensor->rank != rank || tensor->dim[0] != dim[0] || (rank == 2 && tensor->dim[1] != dim[1])) {
        char is[shape_text_size], asked[shape_text_size];
        error_set(err, ERROR_INPUT, "model", "%s: the tensor %s has the wrong shape", model->path, name);
        return error_why(err, "it is %s, the configuration asks for %s",
                         shape_text(is, tensor->rank, tensor->dim), shape_text(asked, rank, dim));
    }
    if (!rowcodec(tensor->dtype) && !dtype_row(tensor->dtype)->quantised)
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is of type %s, weights are not",
                         model->path, name, dtype_row(tensor->dtype)->name);
    if (rank == 1 && model->permuted && layout_interleaved(row->role) && dtype_row(tensor->dtype)->block > 1)
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is of type %s, biases are not",
                         model->path, name, dtype_row(tensor->dtype)->name);
    model->weights[layout_index(&model->config, row->role, layer)] = *tensor;
    return true;
}

/* A configuration with fewer layers than the file would compute something else without a word. */
static bool no_more_layers(const struct model *model, struct error *err) {
    char name[tensor_max_name];
    for (int i = 0; i < model->family->weight_count; i++) {
        const struct weight_name *row = &model->family->weights[i];
        if (row->role >= WEIGHT_LAYER_ROLES ||
            !layout_name(row, model->gguf != NULL, model->config.layers, name) || !find(model, name))
            continue;
        error_set(err, ERROR_INPUT, "model", "%s: the configuration says %lld %s, the file holds more",
                  model->path, (long long)model->config.layers,
                  text_plural((uint64_t)model->config.layers, "layer", "layers"));
        return error_why(err, "it has the tensor %s", name);
    }
    return true;
}

/* A head that is not there is the embedding, unless a directory says that the two differ: then the file lacks
 * it, and a model that answers by its embedding would be another one without a word. */
static bool head_or_tied(struct model *model, struct error *err) {
    struct model_config *config = &model->config;
    if (model->weights[layout_index(config, WEIGHT_HEAD, 0)].rank) return true;
    if (model->hub && json_is_false(json_object_get(hub_config(model->hub), "tie_word_embeddings"))) {
        error_set(err, ERROR_INPUT, "model", "%s: the tensor lm_head.weight is missing", model->path);
        error_why(err, "config.json: tie_word_embeddings is false, so the head is not the embedding");
        return error_fix(err,
                         "Get the file that holds it; set tie_word_embeddings to true only where the model "
                         "was trained so.");
    }
    config->tied = true;
    return true;
}

static bool weights_load(struct model *model, struct error *err) {
    const struct family *family = model->family;
    size_t count = layout_count(&model->config);
    model->weights = mem_calloc(count, sizeof *model->weights);
    if (!model->weights) return error_no_memory(err, "model", count * sizeof *model->weights);
    for (int i = 0; i < family->weight_count; i++) {
        const struct weight_name *row = &family->weights[i];
        int64_t layers = row->role < WEIGHT_LAYER_ROLES ? model->config.layers : 1;
        for (int64_t layer = 0; layer < layers; layer++)
            if (!weight_load(model, row, layer, err)) return false;
    }
    return head_or_tied(model, err) && no_more_layers(model, err);
}

bool model_config_check(const struct model *model, struct error *err) {
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
        return error_set(err, ERROR_INPUT, "model", "%s: %lld %s cannot share %lld kv heads", model->path,
                         (long long)c->heads, text_plural((uint64_t)c->heads, "head", "heads"),
                         (long long)c->kv_heads);
    if (c->head_dim % 2)
        return error_set(err, ERROR_INPUT, "model", "%s: the head width %lld is odd", model->path,
                         (long long)c->head_dim);
    if (!(c->norm_epsilon > 0 && c->norm_epsilon < 1) || !(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return error_set(err, ERROR_INPUT, "model", "%s: norm epsilon %g or rope theta %g is out of range",
                         model->path, c->norm_epsilon, c->rope_theta);
    return true;
}

/* The one GGUF file of a directory without config.json, as full fine-tuning leaves it; else `path` itself.
 * From mem_alloc. */
static char *file_of(const char *path, struct error *err) {
    struct fs_list list = {0};
    const char *found = NULL;
    size_t count = 0;
    if (fs_kind_of(path) != FS_DIRECTORY) {
        char *copy = mem_strdup(path);
        if (!copy) error_no_memory(err, "model", strlen(path));
        return copy;
    }
    if (!fs_list_open(&list, path, err)) return NULL;
    for (size_t i = 0; i < list.count; i++) {
        size_t size = strlen(list.names[i]);
        if (!strcmp(list.names[i], "config.json")) count = 2;
        if (size < 5 || strcmp(list.names[i] + size - 5, ".gguf")) continue;
        found = list.names[i];
        count++;
    }
    char *file = count == 1 && found ? fs_join(path, found) : mem_strdup(path);
    fs_list_close(&list);
    if (!file) error_no_memory(err, "model", strlen(path));
    return file;
}

bool model_open(struct model **out, const char *named, struct error *err) {
    *out = NULL;
    char *path = file_of(named, err);
    struct model *model = path ? mem_calloc(1, sizeof *model) : NULL;
    if (!model) {
        mem_free(path);
        return path && error_no_memory(err, "model", sizeof *model);
    }
    model->path = path;
    bool ok = false;
    enum fs_kind kind = fs_kind_of(path);
    if (kind == FS_NOTHING) {
        error_set(err, ERROR_INPUT, "model", "there is no model %s", path);
        error_fix(err, "Name a GGUF file, a model directory, or a model that hone pull has named.");
    } else {
        ok = kind == FS_DIRECTORY ? hub_open(&model->hub, path, err) : gguf_open(&model->gguf, path, err);
    }
    if (ok) model->mapped_bytes = model->gguf ? gguf_file_bytes(model->gguf) : hub_file_bytes(model->hub);
    ok = ok &&
         (model->gguf ? model_config_gguf(model, err) : model_config_hub(model, hub_config(model->hub), err));
    ok = ok && model_config_check(model, err) && weights_load(model, err);
    if (ok && !(model->gguf ? model_text_gguf(model, err) : model_text_hub(model, err)))
        ok = (!strcmp(err->where, "tokenizer") || !strcmp(err->where, "json")) &&
             error_about(err, path); /* it knows no files */
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
    json_decref(model->sketched);
    mem_free(model);
    *handle = NULL;
}

const json_t *model_hub_config(const struct model *model) {
    return model->hub ? hub_config(model->hub) : model->sketched;
}

bool model_digest(const struct model *model, struct digest *out, struct error *err) {
    if (model->gguf) return digest_file(model->path, out, err);
    /* A directory: a digest over the tensors' own digests in the family's order. */
    struct buf all = {0};
    for (int i = 0; i < model->family->weight_count; i++) {
        const struct weight_name *row = &model->family->weights[i];
        int64_t layers = row->role < WEIGHT_LAYER_ROLES ? model->config.layers : 1;
        for (int64_t layer = 0; layer < layers; layer++) {
            const struct tensor *weight = &model->weights[layout_index(&model->config, row->role, layer)];
            if (!weight->rank) continue;
            digest_bytes(weight->data, (size_t)weight->bytes, out);
            buf_printf(&all, "%s %s\n", weight->name, out->hex);
            for (int p = 0; p < tensor_parts; p++) {
                if (!weight->part[p]) continue;
                digest_bytes(weight->part[p]->data, (size_t)weight->part[p]->bytes, out);
                buf_printf(&all, "%s %s\n", weight->part[p]->name, out->hex);
            }
        }
    }
    bool ok = !all.failed;
    if (ok) digest_bytes(all.data, all.size, out);
    buf_release(&all);
    return ok || error_no_memory(err, "model", 0);
}

bool model_fingerprint(const struct model *model, struct digest *out, struct error *err) {
    enum { beginning = 4096 };
    struct buf all = {0};
    for (size_t i = 0; i < layout_count(&model->config); i++) {
        const struct tensor *weight = &model->weights[i];
        if (weight->rank != 2 || weight->dim[0] < 1 || !weight->data) continue;
        uint64_t row = weight->bytes / (uint64_t)weight->dim[0];
        digest_bytes(weight->data, row < beginning ? (size_t)row : beginning, out);
        buf_printf(&all, "%zu %s %lld %lld %s\n", i, dtype_row(weight->dtype)->name,
                   (long long)weight->dim[0], (long long)weight->dim[1], out->hex);
    }
    bool ok = !all.failed || error_no_memory(err, "model", all.size);
    if (ok) digest_bytes(all.data ? all.data : "", all.size, out);
    buf_release(&all);
    return ok;
}

void model_rope_frequencies(const struct model *model, float *out) {
    const struct tensor *factors = model_weight(model, WEIGHT_ROPE_FACTORS, 0);
    if (factors) {
        struct stored stored = stored_of(factors);
        stored_decode(&stored, 0, 0, model->config.head_dim / 2, out);
    }
    rope_frequencies(&model->config, factors ? out : NULL, out);
}

uint64_t model_parameters(const struct model *model) {
    uint64_t total = 0, elements;
    size_t count = layout_count(&model->config);
    for (size_t i = 0; i < count; i++)
        if (model->weights[i].rank && tensor_elements(&model->weights[i], &elements)) total += elements;
    return total;
}

uint64_t model_token_bytes(const struct model *model) {
    uint64_t total = 0;
    size_t count = layout_count(&model->config);
    for (size_t i = 0; i < count; i++) {
        const struct tensor *weight = &model->weights[i];
        if (weight->rank) total += weight->bytes;
        for (int p = 0; weight->rank && p < tensor_parts; p++)
            total += weight->part[p] ? weight->part[p]->bytes : 0;
    }
    const struct tensor *embedding = model_weight(model, WEIGHT_EMBEDDING, 0);
    if (!model->config.tied)
        total -= (uint64_t)embedding->bytes / (uint64_t)embedding->dim[0] * (uint64_t)(embedding->dim[0] - 1);
    return total;
}
