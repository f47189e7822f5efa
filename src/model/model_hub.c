/* Configuration, tokenizer and template out of a Hugging Face directory. */
#include <string.h>

#include "base/mem.h"
#include "model/model_internal.h"

static bool need_int(const struct model *model, const json_t *config, const char *key, int64_t *out,
                     struct error *err) {
    const json_t *value = json_object_get(config, key);
    if (!json_is_integer(value))
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: %s is missing or no integer",
                         model->path, key);
    *out = json_integer_value(value);
    return true;
}

static double number_or(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static bool read_rope(struct model *model, const json_t *config, struct error *err) {
    struct model_config *c = &model->config;
    /* transformers 5 writes rope_parameters with the theta inside; before that, rope_scaling beside
     * rope_theta. */
    const json_t *parameters = json_object_get(config, "rope_parameters");
    const json_t *scaling = json_is_object(parameters) ? parameters : json_object_get(config, "rope_scaling");
    c->rope_theta = number_or(scaling, "rope_theta", number_or(config, "rope_theta", 10000));
    if (!json_is_object(scaling)) return true;
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type) type = json_string_value(json_object_get(scaling, "type"));
    if (!type || !strcmp(type, "default")) return true;
    c->rope_factor = number_or(scaling, "factor", 0);
    c->rope_low = number_or(scaling, "low_freq_factor", 0);
    c->rope_high = number_or(scaling, "high_freq_factor", 0);
    c->rope_original = number_or(scaling, "original_max_position_embeddings", 0);
    if (!strcmp(type, "linear") && c->rope_factor > 0) {
        c->rope_scaling = ROPE_LINEAR;
    } else if (!strcmp(type, "llama3") && c->rope_factor > 0 && c->rope_low > 0 &&
               c->rope_high > c->rope_low && c->rope_original > 0) {
        c->rope_scaling = ROPE_LLAMA3;
    } else {
        return error_set(err, ERROR_INPUT, "model",
                         "%s: config.json: the rope scaling \"%.40s\" is not supported or lacks a field",
                         model->path, type);
    }
    return true;
}

bool model_config_hub(struct model *model, struct error *err) {
    struct model_config *c = &model->config;
    const json_t *config = hub_config(model->hub);
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type)
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: model_type is missing", model->path);
    model->family = family_find(type, err);
    if (!model->family) return false;
    c->architecture = model->family->architecture;
    model->mapped_bytes = hub_file_bytes(model->hub);
    if (!need_int(model, config, "hidden_size", &c->hidden, err) ||
        !need_int(model, config, "num_hidden_layers", &c->layers, err) ||
        !need_int(model, config, "num_attention_heads", &c->heads, err) ||
        !need_int(model, config, "intermediate_size", &c->ffn, err) ||
        !need_int(model, config, "vocab_size", &c->vocabulary, err))
        return false;
    if (c->heads < 1)
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: num_attention_heads is %lld",
                         model->path, (long long)c->heads);
    c->kv_heads = (int64_t)number_or(config, "num_key_value_heads", (double)c->heads);
    c->head_dim = (int64_t)number_or(config, "head_dim", (double)(c->hidden / c->heads));
    c->context = (int64_t)number_or(config, "max_position_embeddings", 2048);
    c->norm_epsilon = number_or(config, "rms_norm_eps", 1e-6);
    c->tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    const char *activation = json_string_value(json_object_get(config, "hidden_act"));
    if (activation && strcmp(activation, "silu") && strcmp(activation, "swish"))
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: hidden_act \"%.40s\" is not supported",
                         model->path, activation);
    if (json_is_object(json_object_get(config, "quantization_config")))
        return error_set(err, ERROR_INPUT, "model",
                         "%s: config.json: quantised checkpoints (quantization_config) are not supported",
                         model->path);
    return read_rope(model, config, err) && model->family->check(c, config, err);
}

bool model_text_hub(struct model *model, struct error *err) {
    size_t size, config_size = 0;
    const char *tokenizer = hub_tokenizer_json(model->hub, &size);
    const char *config = hub_tokenizer_config(model->hub, &config_size);
    if (!tokenizer) {
        error_set(err, ERROR_INPUT, "model", "%s: tokenizer.json is missing", model->path);
        return error_fix(err, "Save the tokenizer with a fast tokenizer, which writes tokenizer.json.");
    }
    if (!tokenizer_open_json(&model->tokenizer, tokenizer, size, config, config_size, err)) return false;
    const char *text = hub_chat_template(model->hub, &size);
    if (!text) return true;
    model->chat_template = mem_strndup(text, size);
    model->chat_template_size = size;
    return model->chat_template || error_no_memory(err, "model", size);
}
