/* The likeliest token: the first of the largest logits, wherever pieces and lanes of the search end. */
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_token_is_the_first_of_the_largest_logits),
        cmocka_unit_test(logits_that_are_not_finite_are_ordered_too)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
