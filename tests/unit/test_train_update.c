/* The optimizer's numbers, from the settings that a user gives. */
#include "support/test.h"

#include <string.h>

#include "model/optimizer.h"
#include "train/update.h"

struct number {
    const char *optimizer, *setting, *value; /* value NULL: a flag that stands alone */
    enum hyper column;
    float wanted;
};

static const struct number numbers[] = {
    {"adamw", "max-grad-norm", "0.75", HYPER_MAX_NORM, 0.75f},
    {"adamw", "adam-beta1", "0.8", HYPER_BETA1, 0.8f},
    {"adamw", "adam-beta2", "0.95", HYPER_BETA2, 0.95f},
    {"adamw", "adam-epsilon", "1e-6", HYPER_EPSILON, 1e-6f},
    {"adamw8bit", "adam-beta2", "0.97", HYPER_BETA2, 0.97f},
    {"adamw", "ema-decay", "0.99", HYPER_AVERAGE, 0.99f},
    {"lion", "lion-beta1", "0.7", HYPER_BETA1, 0.7f},
    {"lion", "lion-beta2", "0.6", HYPER_BETA2, 0.6f},
    {"muon", "adam-beta1", "0.5", HYPER_BETA1, 0.5f},
    {"muon", "muon-momentum", "0.85", HYPER_MOMENTUM, 0.85f},
    {"muon", "muon-nesterov", "true", HYPER_NESTEROV, 1},
    {"muon", "muon-nesterov", "false", HYPER_NESTEROV, 0},
    {"muon", "muon-adjust", "original", HYPER_ADJUST, MUON_ORIGINAL},
    {"muon", "muon-ns-steps", "7", HYPER_ROUNDS, 7},
    {"sgd", "momentum", "0.4", HYPER_MOMENTUM, 0.4f},
    {"sgd", "dampening", "0.3", HYPER_DAMPENING, 0.3f},
    {"sgd", "nesterov", NULL, HYPER_NESTEROV, 1},
    {"sgd", "muon-nesterov", "true", HYPER_NESTEROV, 0},
    {"adafactor", "adafactor-decay-rate", "0.6", HYPER_DECAY_RATE, 0.6f},
    {"adafactor", "adafactor-clip", "2", HYPER_CLIP, 2},
    {"adafactor", "adafactor-scale", NULL, HYPER_SCALE, 1},
};

static void each_setting_is_a_number_of_every_group(void **state) {
    (void)state;
    static const struct group groups[] = {{.rate = 1}, {.rate = 16, .decay = 0.125}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const struct number *n = &numbers[i];
        float hyper[2][HYPER_COLUMNS];
        struct recipe recipe;
        struct error err;
        assert_ok(recipe_init(&recipe, &err) &&
                      recipe_set(&recipe, USE_TRAIN, "optimizer", n->optimizer, &err) &&
                      recipe_set(&recipe, USE_TRAIN, n->setting, n->value, &err),
                  &err);
        update_hyper(&recipe, 0.25, groups, 2, hyper[0]);
        for (int g = 0; g < 2; g++)
            if (hyper[g][n->column] != n->wanted)
                fail_msg("%s, group %d: --%s %s is %g there, not %g", n->optimizer, g, n->setting,
                         n->value ? n->value : "", (double)hyper[g][n->column], (double)n->wanted);
        assert_true(hyper[0][HYPER_RATE] == 0.25f && hyper[1][HYPER_RATE] == 4);
        assert_true(hyper[0][HYPER_DECAY] == 0 && hyper[1][HYPER_DECAY] == 0.125f);
        recipe_release(&recipe);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_setting_is_a_number_of_every_group)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
