/* Configuration, tokenizer and template out of a GGUF's metadata. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model_internal.h"

struct key {
    const struct model *model;
    char text[96];
};

static const char *key_of(struct key *key, const char *suffix) {
    snprintf(key->text, sizeof key->text, "%s.%s", key->model->family->architecture, suffix);
    return key->text;
}

static bool need_int(const struct model *model, const char *suffix, int64_t *out, struct error *err) {
    struct key key = {.model = model};
    if (gguf_get_int(model->gguf, key_of(&key, suffix), out)) return true;
    return error_set(err, ERROR_INPUT, "model", "%s: the key %s is missing or no integer", model->path,
                     key.text);
}

/* Leave *out alone where the key is left out, and refuse a value of another type. */
static bool may_int(const struct model *model, const char *suffix, int64_t *out, struct error *err) {
    struct key key = {.model = model};
    if (!gguf_has(model->gguf, key_of(&key, suffix)) || gguf_get_int(model->gguf, key.text, out)) return true;
    return error_set(err, ERROR_INPUT, "model", "%s: the key %s is no integer", model->path, key.text);
}

static bool may_float(const struct model *model, const char *suffix, double *out, struct error *err) {
    struct key key = {.model = model};
    if (!gguf_has(model->gguf, key_of(&key, suffix)) || gguf_get_float(model->gguf, key.text, out))
        return true;
    return error_set(err, ERROR_INPUT, "model", "%s: the key %s is no number", model->path, key.text);
}

bool model_config_gguf(struct model *model, struct error *err) {
    struct model_config *c = &model->config;
    struct gguf_text architecture;
    struct key key = {.model = model};
    char name[64];
    if (!gguf_get_text(model->gguf, "general.architecture", &architecture))
        return error_set(err, ERROR_INPUT, "model", "%s: the key general.architecture is missing",
                         model->path);
    snprintf(name, sizeof name, "%.*s", (int)(architecture.size < 60 ? architecture.size : 60),
             architecture.data);
    model->family = family_find(name, model->path, err);
    if (!model->family) return false;
    model->permuted = model->family->gguf_permuted;
    c->architecture = model->family->architecture;
    c->norm_epsilon = 1e-5;
    c->rope_theta = 10000;
    if (!need_int(model, "embedding_length", &c->hidden, err) ||
        !need_int(model, "block_count", &c->layers, err) ||
        !need_int(model, "attention.head_count", &c->heads, err) ||
        !need_int(model, "feed_forward_length", &c->ffn, err) ||
        !need_int(model, "context_length", &c->context, err))
        return false;
    if (c->heads < 1)
        return error_set(err, ERROR_INPUT, "model", "%s: the number of heads is %lld", model->path,
                         (long long)c->heads);
    c->kv_heads = c->heads;
    c->head_dim = c->hidden / c->heads;
    if (!may_int(model, "attention.head_count_kv", &c->kv_heads, err) ||
        !may_int(model, "attention.key_length", &c->head_dim, err) ||
        !may_float(model, "attention.layer_norm_rms_epsilon", &c->norm_epsilon, err) ||
        !may_float(model, "rope.freq_base", &c->rope_theta, err))
        return false;
    int64_t rotated = c->head_dim;
    if (!may_int(model, "rope.dimension_count", &rotated, err)) return false;
    if (rotated != c->head_dim)
        return error_set(err, ERROR_INPUT, "model",
                         "%s: rope turns %lld of %lld channels, which is not supported", model->path,
                         (long long)rotated, (long long)c->head_dim);
    struct gguf_text scaling;
    if (gguf_get_text(model->gguf, key_of(&key, "rope.scaling.type"), &scaling) &&
        !(scaling.size == 4 && !memcmp(scaling.data, "none", 4))) {
        if (scaling.size != 6 || memcmp(scaling.data, "linear", 6) ||
            !gguf_get_float(model->gguf, key_of(&key, "rope.scaling.factor"), &c->rope_factor) ||
            !(c->rope_factor > 0))
            return error_set(err, ERROR_INPUT, "model", "%s: the rope scaling \"%.*s\" is not supported",
                             model->path, (int)(scaling.size < 40 ? scaling.size : 40), scaling.data);
        c->rope_scaling = ROPE_LINEAR;
    }
    const struct tensor *embedding = gguf_find_tensor(model->gguf, "token_embd.weight");
    if (!embedding || embedding->rank != 2)
        return error_set(err, ERROR_INPUT, "model", "%s: the tensor token_embd.weight is missing",
                         model->path);
    c->vocabulary = embedding->dim[0];
    c->tied = !gguf_find_tensor(model->gguf, "output.weight");
    c->attention_bias = gguf_find_tensor(model->gguf, "blk.0.attn_q.bias") != NULL;
    c->mlp_bias = gguf_find_tensor(model->gguf, "blk.0.ffn_gate.bias") != NULL;
    return true;
}

/* Absent, and the 2^32 - 1 that some writers mean by it: -1. */
static bool special_id(const struct model *model, const char *name, int32_t *out, struct error *err) {
    char key[64];
    int64_t id;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    *out = -1;
    if (!gguf_get_int(model->gguf, key, &id) || id == -1 || id == UINT32_MAX) return true;
    if (id < 0 || id > INT32_MAX)
        return error_set(err, ERROR_INPUT, "model", "%s: the key %s is %lld, which is no token", model->path,
                         key, (long long)id);
    *out = (int32_t)id;
    return true;
}

/* The ends of a turn and of a message, where the file names them. */
static bool read_stops(struct model *model, struct error *err) {
    static const char *const names[] = {"eot", "eom"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id;
        if (!special_id(model, names[i], &id, err)) return false;
        if (id >= model->config.vocabulary)
            return error_set(err, ERROR_INPUT, "model",
                             "%s: the key tokenizer.ggml.%s_token_id is %d, which is no token", model->path,
                             names[i], id);
        if (id >= 0 && !stops_add(&model->stops, id, err)) return false;
    }
    return true;
}

static bool copy_template(struct model *model, struct error *err) {
    struct gguf_text text;
    if (!gguf_get_text(model->gguf, "tokenizer.chat_template", &text)) return true;
    model->chat_template = mem_strndup(text.data, text.size);
    model->chat_template_size = text.size;
    return model->chat_template || error_no_memory(err, "model", text.size);
}

bool model_text_gguf(struct model *model, struct error *err) {
    struct gguf_text kind, pre;
    const struct gguf_text *tokens, *merges;
    const int32_t *kinds = NULL;
    size_t kind_count = 0;
    struct tokenizer_tables tables = {0};
    if (!gguf_get_text(model->gguf, "tokenizer.ggml.model", &kind))
        return error_set(err, ERROR_INPUT, "model", "%s: the key tokenizer.ggml.model is missing",
                         model->path);
    if (kind.size != 4 || memcmp(kind.data, "gpt2", 4)) {
        error_set(err, ERROR_INPUT, "model", "%s: the tokenizer \"%.*s\" is not supported", model->path,
                  (int)(kind.size < 40 ? kind.size : 40), kind.data);
        return error_fix(err, "hone reads byte-level BPE (gpt2).");
    }
    if (!gguf_get_text_array(model->gguf, "tokenizer.ggml.tokens", &tokens, &tables.token_count) ||
        !gguf_get_text_array(model->gguf, "tokenizer.ggml.merges", &merges, &tables.merge_count))
        return error_set(err, ERROR_INPUT, "model", "%s: tokenizer.ggml.tokens or .merges is missing",
                         model->path);
    if (gguf_get_int_array(model->gguf, "tokenizer.ggml.token_type", &kinds, &kind_count) &&
        kind_count != tables.token_count)
        return error_set(err, ERROR_INPUT, "model",
                         "%s: tokenizer.ggml.token_type has %zu entries for %zu tokens", model->path,
                         kind_count, tables.token_count);
    char pre_name[64] = "default";
    if (gguf_get_text(model->gguf, "tokenizer.ggml.pre", &pre))
        snprintf(pre_name, sizeof pre_name, "%.*s", (int)(pre.size < 60 ? pre.size : 60), pre.data);
    /* struct gguf_text and struct tokenizer_text have the same members; copied, since they are two types. */
    size_t total = tables.token_count + tables.merge_count;
    struct tokenizer_text *texts = mem_array(total + 1, sizeof *texts);
    if (!texts) return error_no_memory(err, "model", total * sizeof *texts);
    for (size_t i = 0; i < tables.token_count; i++)
        texts[i] = (struct tokenizer_text){tokens[i].data, tokens[i].size};
    for (size_t i = 0; i < tables.merge_count; i++)
        texts[tables.token_count + i] = (struct tokenizer_text){merges[i].data, merges[i].size};
    tables.tokens = texts;
    tables.merges = texts + tables.token_count;
    tables.kinds = kinds;
    tables.pre = pre_name;
    gguf_get_bool(model->gguf, "tokenizer.ggml.add_bos_token", &tables.add_bos);
    gguf_get_bool(model->gguf, "tokenizer.ggml.add_eos_token", &tables.add_eos);
    bool ok = special_id(model, "bos", &tables.bos, err) && special_id(model, "eos", &tables.eos, err) &&
              special_id(model, "unknown", &tables.unknown, err) &&
              special_id(model, "padding", &tables.padding, err) &&
              tokenizer_open(&model->tokenizer, &tables, err) && read_stops(model, err) &&
              copy_template(model, err);
    mem_free(texts);
    return ok;
}
