/* Weights that are trained whole: which of a model's, by patterns. */
#include <string.h>

#include "base/mem.h"
#include "model/layout.h"
#include "model/method.h"

/* A pattern's matcher; a bad pattern is an error of the flag that gave it. */
static bool open_pattern(struct method_matcher **out, const struct method_pattern *pattern, const char *flag,
                         struct error *err) {
    if (method_matcher_open(out, pattern, 1, METHOD_MODULES, err)) return true;
    return err->code == ERROR_INPUT ? method_bad_regex(flag, err) : false;
}

static bool matches(struct method_matcher *matcher, const char *path, bool *out, struct error *err) {
    double value;
    if (!method_match(matcher, path, 0, &value, NULL, err)) return false;
    *out |= value > 0;
    return true;
}

/* What patterns are compared with: names and modules of weights, or modules alone, tied heads among them. */
enum naming { NAMING_OWN, NAMING_SAVED };

static void module_of(const char *name, char module[tensor_max_name]) {
    const char *dot = strrchr(name, '.');
    size_t size = dot ? (size_t)(dot - name) : strlen(name);
    memcpy(module, name, size);
    module[size] = '\0';
}

/* A weight by its whole name, or by its module's: "….q_proj.weight", "….q_proj". */
static bool matches_weight(struct method_matcher *matcher, const char *name, enum naming naming, bool *out,
                           struct error *err) {
    char module[tensor_max_name];
    module_of(name, module);
    return (naming == NAMING_SAVED || matches(matcher, name, out, err)) && matches(matcher, module, out, err);
}

static bool no_such_weight(const struct model *model, const char *flag, const char *pattern,
                           enum naming naming, struct error *err) {
    error_set(err, ERROR_USAGE, "train", "--%s: the model has no weight \"%.60s\"", flag, pattern);
    if (model->config.tied && naming == NAMING_OWN)
        error_why(err, "its head is the embedding, model.embed_tokens.weight");
    return error_fix(err, "Name weights as Hugging Face does, from the end: embed_tokens, q_proj, "
                          ".*layernorm, .*\\.bias, layers\\.[0-3]\\..*");
}

bool weight_name_hub(const struct model *model, size_t index, char name[tensor_max_name]) {
    const struct model_config *config = &model->config;
    enum weight_role role = layout_role(config, index);
    const struct weight_name *row = layout_row(model->family, role);
    bool there = model->weights[index].rank && role != WEIGHT_ROPE_FACTORS && row &&
                 !(role == WEIGHT_HEAD && config->tied);
    return there && layout_name(row, false, layout_layer(config, index), name);
}

bool weight_name_trained(const struct model *model, size_t index, char name[tensor_max_name]) {
    const struct model_config *config = &model->config;
    if (layout_role(config, index) != WEIGHT_HEAD || !config->tied)
        return weight_name_hub(model, index, name);
    const struct weight_name *row = layout_row(model->family, WEIGHT_HEAD);
    return row && layout_name(row, false, 0, name);
}

/* Sets `marked` of the weights that a pattern matches. */
static bool mark(const struct model *model, const char *flag, const char *pattern, enum naming naming,
                 bool *marked, struct error *err) {
    const struct method_pattern one = {pattern, 1};
    struct method_matcher *matcher = NULL;
    char name[tensor_max_name];
    bool any = false, ok = open_pattern(&matcher, &one, flag, err);
    for (size_t i = 0; ok && i < layout_count(&model->config); i++) {
        bool found = false;
        if (!(naming == NAMING_SAVED ? weight_name_trained : weight_name_hub)(model, i, name)) continue;
        ok = matches_weight(matcher, name, naming, &found, err);
        marked[i] |= found;
        any |= found;
    }
    method_matcher_close(&matcher);
    return ok && (any || no_such_weight(model, flag, pattern, naming, err));
}

bool method_full(struct method *out, const struct model *model, const char *const *freeze, size_t count,
                 struct error *err) {
    size_t weights = layout_count(&model->config), trained = 0;
    bool *frozen = mem_calloc(weights, sizeof *frozen);
    out->weights = mem_calloc(weights, sizeof *out->weights);
    out->weight_count = weights;
    bool ok = (frozen && out->weights) || error_no_memory(err, "method", weights);
    for (size_t i = 0; ok && i < count; i++) ok = mark(model, "freeze", freeze[i], NAMING_OWN, frozen, err);
    for (size_t i = 0; ok && i < weights; i++) {
        char name[tensor_max_name];
        out->weights[i] = weight_name_hub(model, i, name) && !frozen[i];
        trained += out->weights[i];
    }
    if (ok && !trained) {
        error_set(err, ERROR_USAGE, "train", "--freeze leaves nothing to train");
        ok = error_fix(err, "Name fewer weights.");
    }
    mem_free(frozen);
    if (!ok) method_release(out);
    return ok;
}

/* ---- beside an adapter ---- */

/* A linear that is trained whole has no pair beside it. */
static void drop_pairs(struct method *method, const struct model_config *config) {
    for (size_t i = 0; i < method->count; i++)
        if (method
                ->weights[layout_index(config, modules[part_module(config, i)].role, part_layer(config, i))])
            method->parts[i].rank = 0;
}

static bool open_weights(struct method *method, const struct model *model, struct error *err) {
    if (method->weights) return true;
    method->weight_count = layout_count(&model->config);
    method->weights = mem_calloc(method->weight_count, sizeof *method->weights);
    return method->weights || error_no_memory(err, "method", method->weight_count);
}

bool method_save_modules(struct method *method, const struct model *model, const char *const *patterns,
                         size_t count, struct error *err) {
    bool any = !count;
    if (!count) return true;
    if (!open_weights(method, model, err)) return false;
    for (size_t i = 0; i < count; i++)
        if (!mark(model, "modules-to-save", patterns[i], NAMING_SAVED, method->weights, err)) return false;
    drop_pairs(method, &model->config);
    for (size_t i = 0; i < method->count; i++) any |= method->parts[i].rank > 0;
    if (any) return true;
    error_set(err, ERROR_USAGE, "train", "--modules-to-save leaves nothing for the adapter");
    return error_fix(err, "Name fewer modules, or choose --method full with --freeze.");
}

bool method_save_weight(struct method *method, const struct model *model, const char *name, size_t *index) {
    char own[tensor_max_name];
    for (*index = 0; *index < layout_count(&model->config); ++*index)
        if (weight_name_trained(model, *index, own) && !strcmp(own, name)) break;
    struct error ignored;
    if (*index == layout_count(&model->config) || !open_weights(method, model, &ignored)) return false;
    return method->weights[*index] = true;
}

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), last = strlen(end);
    return size >= last && !strcmp(text + size - last, end);
}

/* Whether the end of a path names marked modules alone. */
static bool is_exact(const struct method *method, const struct model *model, const char *end) {
    char name[tensor_max_name], module[tensor_max_name];
    for (size_t i = 0; i < method->weight_count; i++) {
        if (method->weights[i] || !weight_name_trained(model, i, name)) continue;
        module_of(name, module);
        if (ends_with(module, end)) return false;
    }
    return true;
}

bool method_saved_names(const struct method *method, const struct model *model, const char ***names,
                        size_t *count, struct arena *arena, struct error *err) {
    *count = 0;
    *names = arena_array(arena, method->weight_count + 1, sizeof **names);
    if (!*names) return error_no_memory(err, "method", method->weight_count * sizeof **names);
    for (size_t i = 0; i < method->weight_count; i++) {
        char name[tensor_max_name], module[tensor_max_name];
        bool known = false;
        if (!method->weights[i] || !weight_name_trained(model, i, name)) continue;
        module_of(name, module);
        const char *dot = strrchr(module, '.'), *last = dot ? dot + 1 : module;
        const char *chosen = is_exact(method, model, last) ? last : module;
        for (size_t j = 0; j < *count && !known; j++) known = !strcmp((*names)[j], chosen);
        if (known) continue;
        (*names)[*count] = arena_strdup(arena, chosen);
        if (!(*names)[(*count)++]) return error_no_memory(err, "method", strlen(chosen));
    }
    return true;
}
