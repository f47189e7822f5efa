#include "train/update.h"

#include <string.h>

#include "model/optimizer.h"

/* Settings that not every optimizer reads; a bit for each that does. */
static const struct {
    const char *name;
    unsigned optimizers;
    const char *fix;
} owned[] = {
    {"adam-beta1", 1u << OPTIMIZER_ADAMW, "adamw"},
    {"adam-beta2", 1u << OPTIMIZER_ADAMW, "adamw"},
    {"adam-epsilon", 1u << OPTIMIZER_ADAMW, "adamw"},
    {"lion-beta1", 1u << OPTIMIZER_LION, "lion"},
    {"lion-beta2", 1u << OPTIMIZER_LION, "lion"},
    {"momentum", 1u << OPTIMIZER_SGD, "sgd"},
    {"dampening", 1u << OPTIMIZER_SGD, "sgd"},
    {"nesterov", 1u << OPTIMIZER_SGD, "sgd"},
    {"adafactor-decay-rate", 1u << OPTIMIZER_ADAFACTOR, "adafactor"},
    {"adafactor-clip", 1u << OPTIMIZER_ADAFACTOR, "adafactor"},
    {"adafactor-scale", 1u << OPTIMIZER_ADAFACTOR, "adafactor"},
};

/* A value as the row presets it changes nothing: recipe.yaml holds every row. */
static bool is_preset(struct recipe *recipe, const char *name) {
    struct settings settings = recipe_settings(recipe);
    const struct setting *row = &recipe_rows[settings_find(&settings, name, USE_RUN)];
    struct buf text = {0};
    setting_write(row, recipe, &text);
    bool same = text.data && !strcmp(text.data, row->preset);
    buf_release(&text);
    return same;
}

bool update_check(struct recipe *recipe, struct error *err) {
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        if (owned[i].optimizers >> recipe->optimizer & 1u ||
            recipe_origin(recipe, owned[i].name) != ORIGIN_GIVEN || is_preset(recipe, owned[i].name))
            continue;
        error_set(err, ERROR_USAGE, "settings", "--%s is not read by --optimizer %s", owned[i].name,
                  optimizer_rows[recipe->optimizer].name);
        return error_fix(err, "Leave it out, or choose --optimizer %s.", owned[i].fix);
    }
    if (!recipe->nesterov || (recipe->momentum > 0 && recipe->dampening <= 0)) return true;
    error_set(err, ERROR_USAGE, "settings", "--nesterov needs momentum and no dampening");
    return error_fix(err, "Leave it out, or give --momentum 0.9 --dampening 0.");
}

void update_hyper(const struct recipe *r, double rate, float out[HYPER_COLUMNS]) {
    bool lion = r->optimizer == OPTIMIZER_LION;
    memset(out, 0, HYPER_COLUMNS * sizeof *out);
    out[HYPER_RATE] = (float)rate;
    out[HYPER_DECAY] = (float)r->weight_decay;
    out[HYPER_MAX_NORM] = (float)r->max_grad_norm;
    out[HYPER_BETA1] = (float)(lion ? r->lion_beta1 : r->adam_beta1);
    out[HYPER_BETA2] = (float)(lion ? r->lion_beta2 : r->adam_beta2);
    out[HYPER_EPSILON] = (float)r->adam_epsilon;
    out[HYPER_MOMENTUM] = (float)r->momentum;
    out[HYPER_DAMPENING] = (float)r->dampening;
    out[HYPER_NESTEROV] = r->nesterov;
    out[HYPER_DECAY_RATE] = (float)r->adafactor_decay_rate;
    out[HYPER_CLIP] = (float)r->adafactor_clip;
    out[HYPER_SCALE] = r->adafactor_scale;
}
