/* adapter_config.json. Source: the fields of PEFT's LoraConfig (peft/tuners/lora/config.py). */
#include <math.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/names_internal.h"
#include "format/peft_internal.h"

/* Fields that change what the tensors mean, and the values under which they do not. Fields that only
 * steer training or choose modules (which the tensors name themselves) may hold anything. */
static const struct {
    const char *field, *meaning;
} must_be_empty[] = {
    /* absent, null, false, 0, "", [] or {} */
    {"lora_bias", "biases in the adapter"},        {"megatron_config", "Megatron layers"},
    {"fan_in_fan_out", "transposed weights"},      {"layer_replication", "replicated layers"},
    {"trainable_token_indices", "trained tokens"}, {"target_parameters", "parameters as targets"},
    {"alora_invocation_tokens", "activated LoRA"}, {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},         {"arrow_config", "Arrow routing"},
    {"monteclora_config", "MonteCLoRA"},           {"kasa_config", "KaSA, which changes the base model"},
};

/* The other initialisations (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change the base weights too. */
static const char *const harmless_init[] = {"gaussian", "eva", "orthogonal"};

static bool is_empty(const json_t *value) {
    if (!value || json_is_null(value) || json_is_false(value)) return true;
    if (json_is_string(value)) return json_string_length(value) == 0;
    if (json_is_array(value)) return json_array_size(value) == 0;
    if (json_is_object(value)) return json_object_size(value) == 0;
    return json_is_number(value) && fpclassify(json_number_value(value)) == FP_ZERO;
}

static bool refuse(struct error *err, const char *path, const char *field, const char *cause) {
    return error_set(err, ERROR_INPUT, "peft", "%s: %s: %s", path, field, cause);
}

/* The way out for an adapter that is more than this reads. */
static bool fix_by_merging(struct error *err) {
    return error_fix(err, "LoRA and DoRA of linear layers are read. In PEFT, merge the adapter into its base "
                          "(merge_and_unload), save that, and name it as --model.");
}

static bool check_supported(const json_t *json, const char *path, struct error *err) {
    const char *type = json_string_value(json_object_get(json, "peft_type"));
    const char *bias = json_string_value(json_object_get(json, "bias"));
    const json_t *init = json_object_get(json, "init_lora_weights");
    struct shown shown;
    if (!type) return refuse(err, path, "peft_type", "missing or not a text");
    if (strcmp(type, "LORA")) {
        error_set(err, ERROR_INPUT, "peft", "%s: peft_type: %s is not read, only LORA is", path,
                  shown_text(&shown, type, strlen(type)));
        return fix_by_merging(err);
    }
    if (bias && strcmp(bias, "none")) {
        error_set(err, ERROR_INPUT, "peft", "%s: bias: \"%s\" is not supported, only \"none\" is", path,
                  shown_text(&shown, bias, strlen(bias)));
        return fix_by_merging(err);
    }
    for (size_t i = 0; i < sizeof must_be_empty / sizeof *must_be_empty; i++)
        if (!is_empty(json_object_get(json, must_be_empty[i].field))) {
            error_set(err, ERROR_INPUT, "peft", "%s: the field %s is not supported (%s)", path,
                      must_be_empty[i].field, must_be_empty[i].meaning);
            return fix_by_merging(err);
        }
    if (!json_is_string(init)) return true;
    for (size_t i = 0; i < sizeof harmless_init / sizeof *harmless_init; i++)
        if (!strcmp(json_string_value(init), harmless_init[i])) return true;
    error_set(err, ERROR_INPUT, "peft",
              "%s: init_lora_weights: \"%s\" changes the base model, which is not supported", path,
              shown_text(&shown, json_string_value(init), json_string_length(init)));
    return error_fix(err, "In PEFT, save it as a plain adapter: save_pretrained with "
                          "path_initial_model_for_weight_conversion.");
}

/* An object of numbers, key by key. */
static bool read_patterns(const json_t *json, const char *field, bool whole, double most,
                          struct peft_pattern **out, size_t *count, const char *path, struct arena *arena,
                          struct error *err) {
    const json_t *patterns = json_object_get(json, field);
    const char *key;
    json_t *value;
    if (is_empty(patterns)) return true;
    if (!json_is_object(patterns)) return refuse(err, path, field, "not an object");
    *out = arena_array(arena, json_object_size(patterns), sizeof **out);
    if (!*out) return error_no_memory(err, "peft", json_object_size(patterns) * sizeof **out);
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value) {
        double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number) || fabs(number) > most ||
            (whole && (!json_is_integer(value) || number < 1)))
            return refuse(err, path, field, whole ? "a value is no rank" : "a value is not a number");
        (*out)[*count] = (struct peft_pattern){arena_strdup(arena, key), number};
        if (!(*out)[(*count)++].key) return error_no_memory(err, "peft", strlen(key));
    }
    return true;
}

static bool read_saved(struct peft_config *out, const json_t *json, const char *path, struct arena *arena,
                       struct error *err) {
    const json_t *names = json_object_get(json, "modules_to_save"), *name;
    size_t index;
    if (is_empty(names)) return true;
    if (!json_is_array(names)) return refuse(err, path, "modules_to_save", "not a list of names");
    out->saved = arena_array(arena, json_array_size(names), sizeof *out->saved);
    if (!out->saved) return error_no_memory(err, "peft", json_array_size(names) * sizeof *out->saved);
    json_array_foreach(names, index, name) {
        const char *text = json_string_value(name);
        if (!text || !*text) return refuse(err, path, "modules_to_save", "not a list of names");
        out->saved[out->saved_count] = arena_strdup(arena, text);
        if (!out->saved[out->saved_count++]) return error_no_memory(err, "peft", strlen(text));
    }
    return true;
}

/* Whether the configuration says that what it names is adapted in every layer. */
static bool is_everywhere(const json_t *json) {
    const json_t *targets = json_object_get(json, "target_modules"), *item;
    size_t index;
    if (!is_empty(json_object_get(json, "layers_to_transform")) ||
        json_is_integer(json_object_get(json, "layers_to_transform")) ||
        !is_empty(json_object_get(json, "exclude_modules")))
        return false;
    if (json_is_string(targets)) return !strcmp(json_string_value(targets), "all-linear");
    json_array_foreach(targets, index,
                       item) if (!json_is_string(item) || strchr(json_string_value(item), '.')) return false;
    return true;
}

bool peft_read_config(struct peft_config *out, const json_t *json, const char *path, struct arena *arena,
                      struct error *err) {
    enum { largest_rank = 1 << 20 };
    memset(out, 0, sizeof *out);
    if (!json_is_object(json)) return error_set(err, ERROR_INPUT, "peft", "%s: not a JSON object", path);
    if (!check_supported(json, path, err)) return false;
    const json_t *rank = json_object_get(json, "r"), *alpha = json_object_get(json, "lora_alpha");
    const json_t *dropout = json_object_get(json, "lora_dropout"),
                 *scaled = json_object_get(json, "use_rslora"), *dora = json_object_get(json, "use_dora");
    const char *base = json_string_value(json_object_get(json, "base_model_name_or_path"));
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > largest_rank)
        return refuse(err, path, "r", "not an integer from 1 to 1,048,576");
    if (!json_is_number(alpha) || !isfinite(json_number_value(alpha)))
        return refuse(err, path, "lora_alpha", "not a number");
    if (dropout &&
        (!json_is_number(dropout) || !(json_number_value(dropout) >= 0 && json_number_value(dropout) < 1)))
        return refuse(err, path, "lora_dropout", "not a number from 0 to below 1");
    if (scaled && !json_is_boolean(scaled) && !json_is_null(scaled))
        return refuse(err, path, "use_rslora", "neither true nor false");
    if (dora && !json_is_boolean(dora) && !json_is_null(dora))
        return refuse(err, path, "use_dora", "neither true nor false");
    out->rank = json_integer_value(rank);
    out->alpha = json_number_value(alpha);
    out->dropout = json_number_value(dropout);
    const char *init = json_string_value(json_object_get(json, "init_lora_weights"));
    out->rslora = json_is_true(scaled);
    out->dora = json_is_true(dora);
    out->gaussian = init && !strcmp(init, "gaussian");
    out->everywhere = is_everywhere(json);
    if (!read_patterns(json, "rank_pattern", true, largest_rank, &out->ranks, &out->rank_count, path, arena,
                       err) ||
        !read_saved(out, json, path, arena, err) ||
        !read_patterns(json, "alpha_pattern", false, 1e300, &out->alphas, &out->alpha_count, path, arena,
                       err))
        return false;
    if (base && !(out->base_model = arena_strdup(arena, base)))
        return error_no_memory(err, "peft", strlen(base));
    return true;
}

const char *peft_published(const char *text) {
    bool path = *text == '/' || *text == '~' || !strncmp(text, "./", 2) || !strncmp(text, "../", 3);
    return path ? fs_base_name(text) : text;
}

/* A number as PEFT writes it: whole where it is whole. */
static json_t *number(double value) {
    bool whole = fabs(value) < 1e15 && floor(value) == value;
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *patterns_json(const struct peft_pattern *patterns, size_t count) {
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++) json_object_put(&object, patterns[i].key, number(patterns[i].value));
    return object;
}

/* A list of names; or, since PEFT takes a list's items for plain ends of paths, one expression for a whole
 * path. */
static json_t *targets_json(const struct peft_config *config) {
    json_t *list = NULL;
    if (!config->target_patterns) {
        list = json_array();
        for (size_t i = 0; i < config->target_count; i++)
            json_list_add(&list, json_string(config->targets[i]));
        return list;
    }
    struct buf text = {0};
    buf_text(&text, "(?:.*\\.)?(?:");
    for (size_t i = 0; i < config->target_count; i++)
        buf_printf(&text, "%s%s", i ? "|" : "", config->targets[i]);
    buf_text(&text, ")");
    if (!text.failed) list = json_string(text.data);
    buf_release(&text);
    return list;
}

static json_t *layers_json(const struct peft_config *config) {
    if (!config->from_layer) return json_null();
    json_t *list = json_array();
    for (int64_t i = config->from_layer; i < config->layers; i++) json_list_add(&list, json_integer(i));
    return list;
}

static json_t *saved_json(const struct peft_config *config) {
    if (!config->saved_count) return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < config->saved_count; i++) json_list_add(&list, json_string(config->saved[i]));
    return list;
}

/* Fields that PEFT has had for long, so that old versions read the file too. */
bool peft_write_config(const char *directory, const struct peft_config *config, struct error *err) {
    json_t *json =
        json_pack("{s:o, s:n, s:s?, s:s, s:b, s:b, s:o, s:n, s:n, s:o, s:{}, s:o, s:f, s:n, s:s, "
                  "s:o, s:s, s:I, s:o, s:n, s:o, s:s, s:b, s:b}",
                  "alpha_pattern", patterns_json(config->alphas, config->alpha_count), "auto_mapping",
                  "base_model_name_or_path", config->base_model ? peft_published(config->base_model) : NULL,
                  "bias", "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights",
                  config->gaussian ? json_string("gaussian") : json_true(), "layer_replication",
                  "layers_pattern", "layers_to_transform", layers_json(config), "loftq_config", "lora_alpha",
                  number(config->alpha), "lora_dropout", config->dropout, "megatron_config", "megatron_core",
                  "megatron.core", "modules_to_save", saved_json(config), "peft_type", "LORA", "r",
                  (json_int_t)config->rank, "rank_pattern", patterns_json(config->ranks, config->rank_count),
                  "revision", "target_modules", targets_json(config), "task_type", "CAUSAL_LM", "use_dora",
                  (int)config->dora, "use_rslora", (int)config->rslora);
    char *path = fs_join(directory, "adapter_config.json");
    bool ok = json && path ? json_write_file(json, path, true, err) : error_no_memory(err, "peft", 0);
    mem_free(path);
    json_decref(json);
    return ok;
}
