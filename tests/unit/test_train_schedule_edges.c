/* Rates at the edges that schedules have: worked out by hand, beside tests/golden/test_train_schedule.c. */
#include "support/test.h"

#include <math.h>

#include "train/schedule.h"

enum { most = 6 };

struct edge {
    const char *what, *settings[4][2];
    int64_t total;
    struct {
        int64_t step;
        double share; /* of the peak */
    } points[most];
};

static const struct edge edges[] = {
    {"0.07 of 100 steps are 7, though their product is a little more in binary",
     {{"schedule", "constant"}, {"warmup-ratio", "0.07"}},
     100,
     {{1, 1 / 7.0}, {6, 6 / 7.0}, {7, 1}, {8, 1}}},
    {"a begun step of the warm-up counts whole",
     {{"schedule", "constant"}, {"warmup-ratio", "0.25"}},
     10,
     {{1, 1 / 3.0}, {2, 2 / 3.0}, {3, 1}}},
    {"wsd decays in its share of all steps, with the warm-up's",
     {{"schedule", "wsd"}, {"wsd-shape", "linear"}, {"wsd-decay-ratio", "0.4"}, {"warmup-ratio", "0.5"}},
     10,
     {{5, 1}, {6, 1}, {7, 1}, {8, 0.75}, {9, 0.5}, {10, 0.25}}},
    {"but not before the warm-up's end",
     {{"schedule", "wsd"}, {"wsd-shape", "linear"}, {"wsd-decay-ratio", "1"}, {"warmup-ratio", "0.5"}},
     10,
     {{5, 1}, {6, 1}, {7, 0.8}, {10, 0.2}}},
    {"a warm-up may be the whole run",
     {{"schedule", "linear"}, {"warmup-ratio", "1"}},
     4,
     {{1, 0.25}, {4, 1}}},
};

static void rates_at_edges(void **state) {
    (void)state;
    for (size_t e = 0; e < sizeof edges / sizeof *edges; e++) {
        struct recipe recipe;
        struct error err;
        assert_ok(recipe_init(&recipe, &err) && recipe_set(&recipe, USE_TRAIN, "learning-rate", "0.5", &err),
                  &err);
        for (int s = 0; s < 4 && edges[e].settings[s][0]; s++)
            assert_ok(recipe_set(&recipe, USE_TRAIN, edges[e].settings[s][0], edges[e].settings[s][1], &err),
                      &err);
        for (int p = 0; p < most && edges[e].points[p].step; p++) {
            int64_t step = edges[e].points[p].step;
            double rate = schedule_rate(&recipe, step, edges[e].total),
                   wanted = 0.5 * edges[e].points[p].share;
            if (!(fabs(rate - wanted) <= 1e-15))
                fail_msg("%s: step %lld has a rate of %.17g, not %.17g", edges[e].what, (long long)step, rate,
                         wanted);
        }
        recipe_release(&recipe);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rates_at_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
