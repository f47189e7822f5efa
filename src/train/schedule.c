#include "train/schedule.h"

#include <math.h>

/* A step after the warm-up. */
struct place {
    double warmup;   /* steps of it */
    double after;    /* steps since its end; the first one after it has 0 */
    double left;     /* steps from its end to the run's */
    double fraction; /* f = after / left, in [0, 1) */
    const struct recipe *recipe;
};

static double falling_line(double f) { return 1 - f; }
static double half_cosine(double f) { return 0.5 * (1 + cos(M_PI * f)); }
static double one_minus_root(double f) { return 1 - sqrt(f); }

static double constant(const struct place *p) {
    (void)p;
    return 1;
}

static double linear(const struct place *p) { return falling_line(p->fraction); }

static double cosine(const struct place *p) { return half_cosine(p->fraction); }

static double cosine_restarts(const struct place *p) {
    return half_cosine(fmod((double)p->recipe->cosine_cycles * p->fraction, 1));
}

static double warmup_stable_decay(const struct place *p) {
    static double (*const shapes[])(double f) = {
        [WSD_ONE_MINUS_ROOT] = one_minus_root, [WSD_LINEAR] = falling_line, [WSD_COSINE] = half_cosine};
    double decay = fmin(ceil(p->recipe->wsd_decay_ratio * (p->left + p->warmup) - 1e-9), p->left);
    double into = p->after - (p->left - decay);
    return into < 0 ? 1 : shapes[p->recipe->wsd_shape](into / decay);
}

static double inverse_sqrt(const struct place *p) {
    double scale = p->warmup > 0 ? p->warmup : 10000;
    return 1 / sqrt(1 + p->after / scale);
}

/* The shapes, with f = (step - 1 - w) / (total - w):
 *   constant         1
 *   linear           1 - f
 *   cosine           (1 + cos πf) / 2, Loshchilov and Hutter 2017 (SGDR), equation 5, one cycle
 *   cosine-restarts  the same of the fraction of n f: n cycles, each from the peak down
 *   wsd              1; in the last d = ceil(ratio · total) steps, at most total - w, with
 *                    g = (step - 1 - total + d) / d, 1 - √g, 1 - g or (1 + cos πg) / 2 (Hu et al. 2024,
 *                    MiniCPM, section 4; 1 - √g and a fifth of the steps by Hägele et al. 2024, section 3)
 *   inverse-sqrt     1 / √(1 + (step - 1 - w) / s), s = w, or 10,000 without a warm-up (Vaswani et al.
 *                    2017, equation 3, as big_vision scales it) */
static double (*const schedules[])(const struct place *p) = {
    [SCHEDULE_CONSTANT] = constant,       [SCHEDULE_LINEAR] = linear,
    [SCHEDULE_COSINE] = cosine,           [SCHEDULE_COSINE_RESTARTS] = cosine_restarts,
    [SCHEDULE_WSD] = warmup_stable_decay, [SCHEDULE_INVERSE_SQRT] = inverse_sqrt,
};

double schedule_rate(const struct recipe *recipe, int64_t step, int64_t total) {
    int64_t rising = (int64_t)ceil(recipe->warmup_ratio * (double)total - 1e-9);
    double peak = recipe->learning_rate, least = recipe->min_learning_rate_ratio;
    if (step <= rising) return peak * (double)step / (double)rising;
    struct place place = {.warmup = (double)rising,
                          .after = (double)(step - 1 - rising),
                          .left = (double)(total - rising),
                          .recipe = recipe};
    place.fraction = place.after / place.left;
    double share = least + (1 - least) * schedules[recipe->schedule](&place);
    return peak * share;
}
