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
    {"use_dora", "DoRA"},
    {"lora_bias", "biases in the adapter"},
    {"modules_to_save", "modules trained whole"},
    {"rank_pattern", "ranks that differ by module"},
    {"alpha_pattern", "alphas that differ by module"},
    {"fan_in_fan_out", "transposed weights"},
    {"layer_replication", "replicated layers"},
    {"trainable_token_indices", "trained tokens"},
    {"target_parameters", "parameters as targets"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"arrow_config", "Arrow routing"},
    {"monteclora_config", "MonteCLoRA"},
    {"megatron_config", "Megatron layers"},
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

static bool check_supported(const json_t *json, const char *path, struct error *err) {
    const char *type = json_string_value(json_object_get(json, "peft_type"));
    const char *bias = json_string_value(json_object_get(json, "bias"));
    const json_t *init = json_object_get(json, "init_lora_weights");
    struct shown shown;
    if (!type) return refuse(err, path, "peft_type", "missing or not a text");
    if (strcmp(type, "LORA"))
        return error_set(err, ERROR_INPUT, "peft", "%s: peft_type: %s is not read, only LORA is", path,
                         shown_text(&shown, type, strlen(type)));
    if (bias && strcmp(bias, "none"))
        return error_set(err, ERROR_INPUT, "peft", "%s: bias: \"%s\" is not supported, only \"none\" is",
                         path, shown_text(&shown, bias, strlen(bias)));
    for (size_t i = 0; i < sizeof must_be_empty / sizeof *must_be_empty; i++)
        if (!is_empty(json_object_get(json, must_be_empty[i].field))) {
            error_set(err, ERROR_INPUT, "peft", "%s: the field %s is not supported (%s)", path,
                      must_be_empty[i].field, must_be_empty[i].meaning);
            return error_fix(
                err,
                "Plain LoRA with one rank and one alpha is read. In PEFT, merge the adapter into its base "
                "(merge_and_unload), save that, and name it as --model.");
        }
    if (!json_is_string(init)) return true;
    for (size_t i = 0; i < sizeof harmless_init / sizeof *harmless_init; i++)
        if (!strcmp(json_string_value(init), harmless_init[i])) return true;
    return error_set(err, ERROR_INPUT, "peft",
                     "%s: init_lora_weights: \"%s\" changes the base model, which is not supported", path,
                     shown_text(&shown, json_string_value(init), json_string_length(init)));
}

bool peft_read_config(struct peft_config *out, const json_t *json, const char *path, struct arena *arena,
                      struct error *err) {
    enum { largest_rank = 1 << 20 };
    memset(out, 0, sizeof *out);
    if (!json_is_object(json)) return error_set(err, ERROR_INPUT, "peft", "%s: not a JSON object", path);
    if (!check_supported(json, path, err)) return false;
    const json_t *rank = json_object_get(json, "r"), *alpha = json_object_get(json, "lora_alpha");
    const json_t *dropout = json_object_get(json, "lora_dropout"),
                 *scaled = json_object_get(json, "use_rslora");
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
    out->rank = json_integer_value(rank);
    out->alpha = json_number_value(alpha);
    out->dropout = json_number_value(dropout);
    /* rsLoRA scales by alpha / sqrt(r) where LoRA does by alpha / r: the same with alpha sqrt(r). */
    if (json_is_true(scaled)) out->alpha *= sqrt((double)out->rank);
    if (base && !(out->base_model = arena_strdup(arena, base)))
        return error_no_memory(err, "peft", strlen(base));
    return true;
}

const char *peft_published(const char *text) {
    bool path = *text == '/' || *text == '~' || !strncmp(text, "./", 2) || !strncmp(text, "../", 3);
    return path ? fs_base_name(text) : text;
}

/* Fields that PEFT has had for long, so that old versions read the file too. */
bool peft_write_config(const char *directory, const struct peft_config *config, struct error *err) {
    json_t *targets = json_array();
    for (size_t i = 0; i < config->target_count; i++)
        json_list_add(&targets, json_string(config->targets[i]));
    bool whole = fabs(config->alpha) < 1e15 && floor(config->alpha) == config->alpha;
    json_t *alpha = whole ? json_integer((json_int_t)config->alpha) : json_real(config->alpha);
    json_t *json = json_pack("{s:{}, s:n, s:s?, s:s, s:b, s:b, s:b, s:n, s:n, s:n, s:{}, s:o, s:f, s:n, s:s, "
                             "s:n, s:s, s:I, s:{}, s:n, s:o, s:s, s:b, s:b}",
                             "alpha_pattern", "auto_mapping", "base_model_name_or_path",
                             config->base_model ? peft_published(config->base_model) : NULL, "bias", "none",
                             "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1,
                             "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
                             "lora_alpha", alpha, "lora_dropout", config->dropout, "megatron_config",
                             "megatron_core", "megatron.core", "modules_to_save", "peft_type", "LORA", "r",
                             (json_int_t)config->rank, "rank_pattern", "revision", "target_modules", targets,
                             "task_type", "CAUSAL_LM", "use_dora", 0, "use_rslora", 0);
    char *path = fs_join(directory, "adapter_config.json");
    bool ok = json && path ? json_write_file(json, path, true, err) : error_no_memory(err, "peft", 0);
    mem_free(path);
    json_decref(json);
    return ok;
}
