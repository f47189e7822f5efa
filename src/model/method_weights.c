/* Weights that are trained whole: which of a model's, by patterns. */
#include <string.h>

#include "base/mem.h"
#include "model/layout.h"
#include "model/method.h"

/* A pattern's matcher; a bad pattern is an error of the flag that gave it. */
static bool open_pattern(struct method_matcher **out, const struct method_pattern *pattern, const char *flag,
                         struct error *err) {
    if (method_matcher_open(out, pattern, 1, err)) return true;
    return err->code == ERROR_INPUT ? method_bad_regex(flag, err) : false;
}

static bool matches(struct method_matcher *matcher, const char *path, bool *out, struct error *err) {
    double value;
    if (!method_match(matcher, path, 0, &value, NULL, err)) return false;
    *out |= value > 0;
    return true;
}

/* A weight by its whole name, or by its module's: "….q_proj.weight", "….q_proj". */
static bool matches_weight(struct method_matcher *matcher, const char *name, bool *out, struct error *err) {
    char module[tensor_max_name];
    const char *dot = strrchr(name, '.');
    size_t size = dot ? (size_t)(dot - name) : 0;
    memcpy(module, name, size);
    module[size] = '\0';
    return matches(matcher, name, out, err) && matches(matcher, module, out, err);
}

static bool no_such_weight(const struct model *model, const char *flag, const char *pattern,
                           struct error *err) {
    error_set(err, ERROR_USAGE, "train", "--%s: the model has no weight \"%.60s\"", flag, pattern);
    if (model->config.tied) error_why(err, "its head is the embedding, model.embed_tokens.weight");
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

/* Sets `marked` of the weights that a pattern matches. */
static bool mark(const struct model *model, const char *flag, const char *pattern, bool *marked,
                 struct error *err) {
    const struct method_pattern one = {pattern, 1};
    struct method_matcher *matcher = NULL;
    char name[tensor_max_name];
    bool any = false, ok = open_pattern(&matcher, &one, flag, err);
    for (size_t i = 0; ok && i < layout_count(&model->config); i++) {
        bool found = false;
        if (!weight_name_hub(model, i, name)) continue;
        ok = matches_weight(matcher, name, &found, err);
        marked[i] |= found;
        any |= found;
    }
    method_matcher_close(&matcher);
    return ok && (any || no_such_weight(model, flag, pattern, err));
}

bool method_full(struct method *out, const struct model *model, const char *const *freeze, size_t count,
                 struct error *err) {
    size_t weights = layout_count(&model->config), trained = 0;
    bool *frozen = mem_calloc(weights, sizeof *frozen);
    out->weights = mem_calloc(weights, sizeof *out->weights);
    out->weight_count = weights;
    bool ok = (frozen && out->weights) || error_no_memory(err, "method", weights);
    for (size_t i = 0; ok && i < count; i++) ok = mark(model, "freeze", freeze[i], frozen, err);
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
