/* The likeliest token: the first of the largest logits, wherever pieces and lanes of the search end; and
 * which tokens are drawn, how often. */
#include <math.h>
#include <stdlib.h>

#include "infer/sampler.h"
#include "support/test.h"

static const struct sampling greedy = {.top_p = 1, .repetition_penalty = 1};
static const int64_t sizes[] = {1, 2, 31, 32, 33, 1023, 1024, 1025, 1056, 3000, 49152};

static int32_t next(float *logits, int64_t count) {
    return sampler_next(&greedy, logits, count, NULL, 0, 0, NULL);
}

static void the_likeliest_token_is_the_first_of_the_largest_logits(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t count = sizes[s], step = count < 64 ? 1 : count / 61;
        float *logits = calloc((size_t)count, sizeof *logits);
        assert_non_null(logits);
        for (int64_t first = 0; first < count; first += step) {
            for (int64_t v = 0; v < count; v++) logits[v] = -3 - (float)(v * 7919 % 101);
            for (int64_t v = first; v < count; v += 13) logits[v] = -1; /* others as large behind it */
            assert_int_equal(next(logits, count), first);
            logits[count - 1] = 2;
            assert_int_equal(next(logits, count), count - 1);
        }
        free(logits);
    }
}

static void logits_that_are_not_finite_are_ordered_too(void **state) {
    (void)state;
    enum { count = 2100 };
    static float logits[count];
    for (int v = 0; v < count; v++) logits[v] = NAN;
    assert_int_equal(next(logits, count), -1);
    for (int v = 0; v < count; v++) logits[v] = -INFINITY;
    assert_int_equal(next(logits, count), -1);
    logits[1500] = -1e30f;
    logits[1400] = NAN;
    assert_int_equal(next(logits, count), 1500);
    logits[2099] = INFINITY;
    assert_int_equal(next(logits, count), 2099);
}

/* Six tokens of these probabilities; what transformers 5 leaves of them: TemperatureLogitsWarper, then top-k,
 * top-p and min-p as `_get_logits_processor` orders them. */
static const double probabilities[] = {0.10, 0.25, 0.04, 0.40, 0.06, 0.15};
static const struct {
    struct sampling sampling;
    unsigned kept; /* a bit for each token */
} draws[] = {
    {{1, 0, 1, 0, 1, 1}, 0x3f},     {{1, 3, 1, 0, 1, 2}, 0x2a},      {{1, 0, 0.7, 0, 1, 3}, 0x2a},
    {{1, 0, 0.64, 0, 1, 4}, 0x0a},  {{1, 0, 0, 0, 1, 5}, 0x08},      {{1, 0, 1, 0.2, 1, 6}, 0x2b},
    {{1, 0, 0.7, 0.3, 1, 7}, 0x2a}, {{1, 0, 0.9999, 1, 1, 8}, 0x08}, {{1, 4, 0.71, 0, 1, 9}, 0x0a},
    {{2, 0, 0.7, 0, 1, 10}, 0x2b},  {{0.5, 0, 1, 0.2, 1, 11}, 0x0a}, {{0.5, 9, 0.97, 0, 1, 12}, 0x2b},
};

static void what_is_drawn_is_what_transformers_leaves_as_often_as_it_is_likely(void **state) {
    (void)state;
    enum { tokens = 6, tries = 40000 };
    for (size_t d = 0; d < sizeof draws / sizeof *draws; d++) {
        int drawn[tokens] = {0};
        double total = 0, share[tokens];
        for (uint32_t position = 0; position < tries; position++) {
            struct candidate candidates[tokens];
            float logits[tokens];
            for (int v = 0; v < tokens; v++) logits[v] = (float)log(probabilities[v]);
            drawn[sampler_next(&draws[d].sampling, logits, tokens, NULL, 0, position, candidates)]++;
        }
        for (int v = 0; v < tokens; v++) {
            share[v] = draws[d].kept >> v & 1u ? pow(probabilities[v], 1 / draws[d].sampling.temperature) : 0;
            total += share[v];
        }
        for (int v = 0; v < tokens; v++) {
            double expected = tries * share[v] / total, deviation = sqrt(expected * (1 - share[v] / total));
            if (fabs(drawn[v] - expected) > 5 * deviation)
                fail_msg("row %zu: token %d was drawn %d times, not %.0f", d, v, drawn[v], expected);
        }
    }
}

/* As transformers' RepetitionPenaltyLogitsProcessor: a positive logit is divided, a negative one multiplied,
 * each once however often its token was there. */
static void what_was_there_before_is_less_likely(void **state) {
    (void)state;
    static const struct {
        float logits[3];
        double penalty;
        int32_t seen[4];
        int32_t likeliest;
    } rows[] = {
        {{2, 1.9f, 0}, 1.5, {0, 0, 0, 0}, 1},    {{2, 1.3f, 0}, 1.5, {0, 0, 0, 0}, 0},
        {{2, 1.9f, 0}, 1.5, {0, 1, 0, 1}, 0},    {{-1, -1.2f, -9}, 1.5, {0, 0, 2, 2}, 1},
        {{-1, -1.2f, -9}, 1.1, {0, 0, 2, 2}, 0}, {{1, 1.5f, -9}, 0.5, {0, 0, 0, 2}, 0},
        {{-1, -0.7f, -9}, 0.5, {0, 0, 2, 2}, 0},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct sampling sampling = {.top_p = 1, .repetition_penalty = rows[r].penalty};
        struct candidate scratch[3];
        float logits[3] = {rows[r].logits[0], rows[r].logits[1], rows[r].logits[2]};
        int32_t id = sampler_next(&sampling, logits, 3, rows[r].seen, 4, 0, scratch);
        if (id != rows[r].likeliest) fail_msg("row %zu: %d", r, id);
    }
}

/* Of a vocabulary of which few are looked at. */
static void of_many_tokens_the_likeliest_are_drawn(void **state) {
    (void)state;
    enum { count = 49152 };
    static float logits[count];
    static struct candidate candidates[count];
    static const struct sampling nine = {.temperature = 1, .top_p = 1, .top_k = 9, .repetition_penalty = 1};
    int drawn[9] = {0};
    for (uint32_t position = 0; position < 900; position++) {
        for (int v = 0; v < count; v++) logits[v] = (float)(v * 7919 % count) * 1e-5f; /* a permutation */
        int32_t id = sampler_next(&nine, logits, count, NULL, 0, position, candidates);
        int rank = count - 1 - (int)((int64_t)id * 7919 % count);
        assert_in_range(rank, 0, 8);
        drawn[rank]++;
    }
    for (int i = 0; i < 9; i++) assert_in_range(drawn[i], 50, 150); /* five deviations of 100 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_token_is_the_first_of_the_largest_logits),
        cmocka_unit_test(logits_that_are_not_finite_are_ordered_too),
        cmocka_unit_test(what_is_drawn_is_what_transformers_leaves_as_often_as_it_is_likely),
        cmocka_unit_test(what_was_there_before_is_less_likely),
        cmocka_unit_test(of_many_tokens_the_likeliest_are_drawn)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
