#include "train/update.h"

#include <string.h>

#include "model/optimizer.h"

/* With --method full the weights that it moves are kept there as well. */
static bool check_offload(const struct recipe *recipe, struct error *err) {
    if (!recipe->offload_optimizer || recipe->method == TUNING_FULL || recipe->optimizer != OPTIMIZER_SGD ||
        recipe->momentum > 0)
        return true;
    error_set(err, ERROR_USAGE, "settings", "--offload-optimizer has nothing to keep in a file");
    error_why(err, "sgd with --momentum 0 has no state");
    return error_fix(err, "Leave it out, or give --momentum 0.9.");
}

bool update_check(const struct recipe *recipe, struct error *err) {
    bool momentum = recipe->momentum > 0, dampened = recipe->dampening > 0;
    if (recipe->nesterov && (!momentum || dampened)) {
        error_set(err, ERROR_USAGE, "settings", "--nesterov needs momentum and no dampening");
        return error_fix(err, "Leave it out, or give --momentum 0.9 --dampening 0.");
    }
    if (momentum || !dampened) return check_offload(recipe, err);
    error_set(err, ERROR_USAGE, "settings", "--dampening is not read with --momentum 0");
    return error_fix(err, "Leave it out, or give --momentum 0.9.");
}

/* One group's row. */
static void set_hyper(const struct recipe *r, double rate, double decay, float out[HYPER_COLUMNS]) {
    bool lion = r->optimizer == OPTIMIZER_LION, muon = r->optimizer == OPTIMIZER_MUON;
    memset(out, 0, HYPER_COLUMNS * sizeof *out);
    out[HYPER_RATE] = (float)rate;
    out[HYPER_DECAY] = (float)decay;
    out[HYPER_MAX_NORM] = (float)r->max_grad_norm;
    out[HYPER_BETA1] = (float)(lion ? r->lion_beta1 : r->adam_beta1);
    out[HYPER_BETA2] = (float)(lion ? r->lion_beta2 : r->adam_beta2);
    out[HYPER_EPSILON] = (float)r->adam_epsilon;
    out[HYPER_MOMENTUM] = (float)(muon ? r->muon_momentum : r->momentum);
    out[HYPER_DAMPENING] = (float)r->dampening;
    out[HYPER_NESTEROV] = muon ? r->muon_nesterov : r->nesterov;
    out[HYPER_DECAY_RATE] = (float)r->adafactor_decay_rate;
    out[HYPER_CLIP] = (float)r->adafactor_clip;
    out[HYPER_SCALE] = r->adafactor_scale;
    out[HYPER_AVERAGE] = (float)r->ema_decay;
    out[HYPER_ADJUST] = (float)r->muon_adjust;
    out[HYPER_ROUNDS] = (float)r->muon_ns_steps;
}

void update_hyper(const struct recipe *recipe, double rate, const struct group *groups, int count,
                  float *out) {
    for (int g = 0; g < count; g++)
        set_hyper(recipe, rate * groups[g].rate, groups[g].decay, out + g * HYPER_COLUMNS);
}
