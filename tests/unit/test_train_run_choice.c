/* Which of the ways to run is taken: the smallest of the fast ones, in whatever order they are listed. */
#include "support/test.h"

#include "train/run_choice.h"

static int64_t taken(const struct run_choice *items, int count) {
    struct run_choices choices = {.count = count};
    for (int i = 0; i < count; i++) choices.items[i] = items[i];
    const struct run_choice *best = run_choices_best(&choices), *turned;
    int64_t tokens = best ? best->tokens : 0;
    for (int i = 0; i < count; i++) choices.items[i] = items[count - 1 - i];
    turned = run_choices_best(&choices);
    assert_int_equal(turned ? turned->tokens : 0, tokens);
    return tokens;
}

static void the_smallest_within_three_per_cent_of_the_fastest_is_taken(void **state) {
    (void)state;
    const struct run_choice items[] = {
        {.tokens = 2048, .cost = 100, .bytes = 90, .fits = true},
        {.tokens = 1024, .cost = 102, .bytes = 50, .fits = true},
        {.tokens = 512, .cost = 104, .bytes = 30, .fits = true},
    };
    assert_int_equal(taken(items, 3), 1024);
}

/* 512 is within 3 % of 1024, which is within 3 % of the fastest: that makes no 6 %. */
static void what_lies_within_three_per_cent_of_a_slower_one_is_not(void **state) {
    (void)state;
    const struct run_choice items[] = {
        {.tokens = 1024, .cost = 102.9, .bytes = 50, .fits = true},
        {.tokens = 512, .cost = 105.9, .bytes = 30, .fits = true},
        {.tokens = 2048, .cost = 100, .bytes = 60, .fits = true},
    };
    assert_int_equal(taken(items, 3), 1024);
}

static void what_does_not_fit_sets_no_pace(void **state) {
    (void)state;
    const struct run_choice items[] = {
        {.tokens = 2048, .cost = 100, .bytes = 90, .fits = false},
        {.tokens = 512, .cost = 120, .bytes = 40, .fits = true},
        {.tokens = 256, .cost = 150, .bytes = 20, .fits = true},
    };
    assert_int_equal(taken(items, 3), 512);
    assert_int_equal(taken(items, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_within_three_per_cent_of_the_fastest_is_taken),
        cmocka_unit_test(what_lies_within_three_per_cent_of_a_slower_one_is_not),
        cmocka_unit_test(what_does_not_fit_sets_no_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
