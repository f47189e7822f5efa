#include "model/rope.h"

#include <math.h>

static double base_frequency(const struct model_config *c, int64_t pair) {
    return pow(c->rope_theta, -2.0 * (double)pair / (double)c->head_dim);
}

/* Llama 3's scaling (transformers, modeling_rope_utils, _compute_llama3_parameters): long waves are
 * slowed by `factor`, short ones kept, those between blended. */
static double llama3_scaled(const struct model_config *c, double frequency) {
    double wave = 2 * M_PI / frequency;
    if (wave < c->rope_original / c->rope_high) return frequency;
    if (wave > c->rope_original / c->rope_low) return frequency / c->rope_factor;
    double smooth = (c->rope_original / wave - c->rope_low) / (c->rope_high - c->rope_low);
    return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

static double scaled(const struct model_config *c, double frequency) {
    return c->rope_scaling == ROPE_LINEAR   ? frequency / c->rope_factor
           : c->rope_scaling == ROPE_LLAMA3 ? llama3_scaled(c, frequency)
                                            : frequency;
}

void rope_factors(const struct model_config *c, float *out) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double frequency = base_frequency(c, i);
        out[i] = (float)(frequency / scaled(c, frequency));
    }
}

void rope_frequencies(const struct model_config *c, const float *factors, float *out) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double frequency = base_frequency(c, i);
        out[i] = (float)(factors ? frequency / (double)factors[i] : scaled(c, frequency));
    }
}

/* Parameters and divisors are both rounded, the divisors to f32. */
static bool agrees(const struct model_config *c, const float *factors) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double frequency = base_frequency(c, i), want = frequency / llama3_scaled(c, frequency);
        if (!(fabs(want - (double)factors[i]) <= 1e-5 * want)) return false;
    }
    return true;
}

/* In the middle band the share s of the unscaled frequency is a line in 1 / wave:
 *   s = (original / wave - low) / (high - low),   1 / divisor = s + (1 - s) / factor
 * Only original / low and original / high can be told from it, so low is 1, as every such model has it. */
static void fit_llama3(struct model_config *c, const float *factors) {
    double first[2] = {0}, last[2] = {0}; /* 1 / wave and s of the outermost pairs of the band */
    int found = 0;
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double s = (1 / (double)factors[i] - 1 / c->rope_factor) / (1 - 1 / c->rope_factor);
        if (s < 1e-4 || s > 1 - 1e-4) continue;
        double *at = found++ ? last : first;
        at[0] = base_frequency(c, i) / (2 * M_PI);
        at[1] = s;
    }
    /* Llama 3's own values, where the band holds too few pairs to tell. */
    c->rope_low = 1;
    c->rope_high = 4;
    c->rope_original = found ? round((first[1] * (c->rope_high - 1) + 1) / first[0]) : 8192;
    if (found < 2) return;
    double slope = (last[1] - first[1]) / (last[0] - first[0]), at_zero = first[1] - slope * first[0];
    if (!(at_zero < 0)) return;
    c->rope_high = round((1 - 1 / at_zero) * 1000) / 1000;
    c->rope_original = round(slope * (c->rope_high - 1));
}

bool rope_scaling_from(struct model_config *c, const float *factors) {
    int64_t pairs = c->head_dim / 2, equal = 0;
    while (equal < pairs && factors[equal] == factors[0]) equal++;
    c->rope_factor = (double)factors[pairs - 1];
    if (!isfinite(c->rope_factor) || !(c->rope_factor > 0)) return false;
    if (equal == pairs) {
        c->rope_scaling = c->rope_factor == 1 ? ROPE_PLAIN : ROPE_LINEAR;
        return true;
    }
    if (!(c->rope_factor > 1)) return false;
    c->rope_scaling = ROPE_LLAMA3;
    fit_llama3(c, factors);
    return c->rope_high > c->rope_low && c->rope_original > 0 && agrees(c, factors);
}
