/* Which of the ways to run is taken: the smallest of the fast ones, in whatever order they are listed;
 * and which are looked at. */
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

/* A modest one is taken where it is at most a tenth slower than the fastest of all, the smallest within 3 %
 * of the modest ones. */
static void what_other_programs_need_not_make_room_for_may_be_a_tenth_slower(void **state) {
    (void)state;
    struct run_choice items[] = {
        {.tokens = 2048, .cost = 100, .bytes = 90, .fits = true},
        {.tokens = 1024, .cost = 107, .bytes = 50, .fits = true, .modest = true},
        {.tokens = 512, .cost = 109, .bytes = 30, .fits = true, .modest = true},
        {.tokens = 256, .cost = 130, .bytes = 20, .fits = true, .modest = true},
    };
    assert_int_equal(taken(items, 4), 512);
    items[2].cost = 112;
    assert_int_equal(taken(items, 4), 1024);
    items[1].fits = false;
    assert_int_equal(taken(items, 4), 2048);
}

static bool has_memory(struct device *device, struct device_memory *out, struct error *err) {
    (void)device, (void)out, (void)err;
    return true;
}

/* Every micro-batch is open. How many choices of one layer a block keep what is offloaded, of all that are
 * listed. */
static int offloaded(enum device_offload where, bool own_memory, int recompute, int *all) {
    struct recipe recipe = {.batch_size = 64, .recompute = recompute, .world_size = 2};
    struct model model = {.config = {.layers = 16}};
    struct inputs inputs = {.model = &model, .train = {.count = 1000, .counts = {.tokens = 1000 * 2048}}};
    struct device_ops ops = {.offload = where, .memory = own_memory ? has_memory : NULL};
    struct run_choices choices;
    int count = 0;
    run_choices_list(&choices, &recipe, &inputs, 100, &ops);
    assert_in_range(choices.count, 1, sizeof choices.items / sizeof *choices.items);
    *all = 0;
    for (int i = 0; i < choices.count; i++) {
        if (choices.items[i].span > 1) continue;
        count += choices.items[i].keep == GRAPH_KEEP_OFFLOADED;
        ++*all;
    }
    return count;
}

static void the_hosts_memory_is_taken_unasked_and_a_disk_is_not(void **state) {
    int all;
    (void)state;
    assert_int_equal(offloaded(OFFLOAD_TO_FILE, false, RECOMPUTE_AUTO, &all), 0);
    assert_int_equal(offloaded(OFFLOAD_NOWHERE, true, RECOMPUTE_AUTO, &all), 0);
    assert_int_equal(offloaded(OFFLOAD_TO_HOST, true, RECOMPUTE_BLOCK, &all), 0);
    int count = offloaded(OFFLOAD_TO_HOST, true, RECOMPUTE_AUTO, &all);
    assert_int_equal(all, 4 * count);
    count = offloaded(OFFLOAD_TO_FILE, false, RECOMPUTE_OFFLOAD, &all);
    assert_int_equal(all, count);
}

/* What a run resolves is what it may be given again. */
static void no_more_layers_go_together_than_there_are(void **state) {
    static const int most[][2] = {{1, 1}, {2, 2}, {3, 2}, {4, 4}, {32, 4}};
    (void)state;
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        struct recipe recipe = {.batch_size = 64, .recompute = RECOMPUTE_OFFLOAD, .world_size = 2};
        struct model model = {.config = {.layers = most[i][0]}};
        struct inputs inputs = {.model = &model, .train = {.count = 1000, .counts = {.tokens = 1000 * 2048}}};
        struct device_ops ops = {.offload = OFFLOAD_TO_HOST, .memory = has_memory};
        struct run_choices choices;
        int largest = 0;
        run_choices_list(&choices, &recipe, &inputs, 100, &ops);
        for (int c = 0; c < choices.count; c++)
            if (choices.items[c].span > largest) largest = choices.items[c].span;
        assert_int_equal(largest, most[i][1]);
        assert_int_equal(run_choice_most_span(&inputs), largest);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_within_three_per_cent_of_the_fastest_is_taken),
        cmocka_unit_test(what_lies_within_three_per_cent_of_a_slower_one_is_not),
        cmocka_unit_test(what_does_not_fit_sets_no_pace),
        cmocka_unit_test(what_other_programs_need_not_make_room_for_may_be_a_tenth_slower),
        cmocka_unit_test(the_hosts_memory_is_taken_unasked_and_a_disk_is_not),
        cmocka_unit_test(no_more_layers_go_together_than_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
