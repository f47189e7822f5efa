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

static bool refuse(const struct model *model, const char *key, const char *cause, struct error *err) {
    return error_set(err, ERROR_INPUT, "model", "%s: config.json: %s is %s", model->path, key, cause);
}

/* The value of a key that may be left out; null is left out too. */
static const json_t *optional(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* These leave *out alone where the key is left out, and refuse a value of another type. */
static bool may_int(const struct model *model, const json_t *object, const char *key, int64_t *out,
                    struct error *err) {
    const json_t *value = optional(object, key);
    if (value && !json_is_integer(value)) return refuse(model, key, "no integer", err);
    if (value) *out = json_integer_value(value);
    return true;
}

static bool may_number(const struct model *model, const json_t *object, const char *key, double *out,
                       struct error *err) {
    const json_t *value = optional(object, key);
    if (value && !json_is_number(value)) return refuse(model, key, "no number", err);
    if (value) *out = json_number_value(value);
    return true;
}

static bool may_bool(const struct model *model, const json_t *object, const char *key, bool *out,
                     struct error *err) {
    const json_t *value = optional(object, key);
    if (value && !json_is_boolean(value)) return refuse(model, key, "neither true nor false", err);
    if (value) *out = json_is_true(value);
    return true;
}

static bool may_text(const struct model *model, const json_t *object, const char *key, const char **out,
                     struct error *err) {
    const json_t *value = optional(object, key);
    if (value && !json_is_string(value)) return refuse(model, key, "no text", err);
    if (value) *out = json_string_value(value);
    return true;
}

static bool read_rope(struct model *model, const json_t *config, struct error *err) {
    struct model_config *c = &model->config;
    /* transformers 5 writes rope_parameters with the theta inside; before that, rope_scaling beside
     * rope_theta. Where both stand it takes rope_scaling alone. */
    const json_t *parameters = optional(config, "rope_parameters"),
                 *scaling = optional(config, "rope_scaling");
    if (parameters && !json_is_object(parameters)) return refuse(model, "rope_parameters", "no object", err);
    if (scaling && !json_is_object(scaling)) return refuse(model, "rope_scaling", "no object", err);
    if (!json_object_size(scaling)) scaling = parameters;
    c->rope_theta = 10000;
    const char *type = NULL;
    if (!may_number(model, config, "rope_theta", &c->rope_theta, err) ||
        !may_number(model, scaling, "rope_theta", &c->rope_theta, err) ||
        !may_text(model, scaling, "type", &type, err) || !may_text(model, scaling, "rope_type", &type, err))
        return false;
    if (!type || !strcmp(type, "default")) return true;
    if (!may_number(model, scaling, "factor", &c->rope_factor, err) ||
        !may_number(model, scaling, "low_freq_factor", &c->rope_low, err) ||
        !may_number(model, scaling, "high_freq_factor", &c->rope_high, err) ||
        !may_number(model, scaling, "original_max_position_embeddings", &c->rope_original, err))
        return false;
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

bool model_config_hub(struct model *model, const json_t *config, struct error *err) {
    struct model_config *c = &model->config;
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type)
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: model_type is missing", model->path);
    model->family = family_find(type, model->path, err);
    if (!model->family) return false;
    c->architecture = model->family->architecture;
    if (!need_int(model, config, "hidden_size", &c->hidden, err) ||
        !need_int(model, config, "num_hidden_layers", &c->layers, err) ||
        !need_int(model, config, "num_attention_heads", &c->heads, err) ||
        !need_int(model, config, "intermediate_size", &c->ffn, err) ||
        !need_int(model, config, "vocab_size", &c->vocabulary, err))
        return false;
    if (c->heads < 1)
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: num_attention_heads is %lld",
                         model->path, (long long)c->heads);
    const char *activation = NULL;
    c->kv_heads = c->heads;
    c->head_dim = c->hidden / c->heads;
    c->context = 2048;
    c->norm_epsilon = 1e-6;
    c->tied = false;
    if (!may_int(model, config, "num_key_value_heads", &c->kv_heads, err) ||
        !may_int(model, config, "head_dim", &c->head_dim, err) ||
        !may_int(model, config, "max_position_embeddings", &c->context, err) ||
        !may_number(model, config, "rms_norm_eps", &c->norm_epsilon, err) ||
        !may_bool(model, config, "tie_word_embeddings", &c->tied, err) ||
        !may_bool(model, config, "attention_bias", &c->attention_bias, err) ||
        !may_bool(model, config, "mlp_bias", &c->mlp_bias, err) ||
        !may_text(model, config, "hidden_act", &activation, err))
        return false;
    if (activation && strcmp(activation, "silu") && strcmp(activation, "swish"))
        return error_set(err, ERROR_INPUT, "model", "%s: config.json: hidden_act \"%.40s\" is not supported",
                         model->path, activation);
    return read_rope(model, config, err) &&
           (!model->family->check || model->family->check(c, config, err) || error_about(err, model->path));
}

/* Both files count: transformers generates by generation_config.json, which is made of config.json where it
 * is absent. */
static bool read_stops(struct model *model, struct error *err) {
    int64_t vocabulary = model->config.vocabulary;
    const json_t *generation = hub_generation_config(model->hub);
    return (stops_add_config(&model->stops, hub_config(model->hub), "config.json", vocabulary, err) &&
            (!generation ||
             stops_add_config(&model->stops, generation, "generation_config.json", vocabulary, err))) ||
           error_about(err, model->path);
}

bool model_text_hub(struct model *model, struct error *err) {
    size_t size, config_size = 0;
    const char *tokenizer = hub_tokenizer_json(model->hub, &size);
    const char *config = hub_tokenizer_config(model->hub, &config_size);
    if (!tokenizer) {
        error_set(err, ERROR_INPUT, "model", "%s: tokenizer.json is missing", model->path);
        return error_fix(err, "Save the tokenizer with a fast tokenizer, which writes tokenizer.json.");
    }
    if (!tokenizer_open_json(&model->tokenizer, tokenizer, size, config, config_size, err) ||
        !read_stops(model, err))
        return false;
    const char *text = hub_chat_template(model->hub, &size);
    if (!text) return true;
    model->chat_template = mem_strndup(text, size);
    model->chat_template_size = size;
    return model->chat_template || error_no_memory(err, "model", size);
}
