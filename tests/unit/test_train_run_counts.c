/* The counts of a run's micro-batches, told from the lengths of its examples. */
#include "support/test.h"

#include "base/mem.h"
#include "text/pack.h"
#include "train/run_counts.h"

enum { examples_count = 10 };

static void make(struct example *items, struct examples *out) {
    for (uint32_t i = 0; i < examples_count; i++)
        items[i] = (struct example){.count = 10 + i, .supervised = 5 + i};
    *out = (struct examples){.items = items, .count = examples_count};
}

static struct recipe recipe_of(int64_t batch, int64_t rank, int64_t ranks) {
    return (struct recipe){
        .batch_size = batch, .rank = rank, .world_size = ranks, .shuffle = true, .seed = 3};
}

static struct counts sum(const struct run_counts *counts, int64_t most) {
    struct counts all = {0};
    for (size_t i = 0; i < counts->count; i++) {
        assert_true(counts->items[i].tokens <= most);
        all.tokens += counts->items[i].tokens;
        all.targets += counts->items[i].targets;
        all.segments += counts->items[i].segments;
    }
    return all;
}

/* Tokens of all examples 145, supervised 95. */
static void an_epoch_has_every_example_once(void **state) {
    (void)state;
    struct example items[examples_count];
    struct examples examples;
    struct run_counts counts;
    struct error err;
    make(items, &examples);
    for (int64_t batch = 1; batch <= 12; batch++) {
        struct recipe recipe = recipe_of(batch, 0, 1);
        int64_t steps = (examples_count + batch - 1) / batch;
        for (int64_t epochs = 1; epochs <= 3; epochs++) {
            assert_ok(run_counts_train(&counts, &recipe, &examples, 40, steps * epochs, &err), &err);
            struct counts all = sum(&counts, 40);
            assert_int_equal(all.tokens, 145 * epochs);
            assert_int_equal(all.targets, 95 * epochs);
            assert_int_equal(all.segments, 10 * epochs);
            run_counts_release(&counts);
        }
    }
}

static void one_example_a_step_is_one_micro_batch_in_the_run_s_order(void **state) {
    (void)state;
    struct example items[examples_count];
    struct examples examples;
    struct run_counts counts;
    struct error err;
    struct recipe recipe = recipe_of(1, 0, 1);
    uint32_t order[examples_count];
    make(items, &examples);
    assert_ok(run_counts_train(&counts, &recipe, &examples, 40, 14, &err), &err);
    assert_int_equal(counts.count, 14);
    for (uint32_t i = 0; i < 14; i++) {
        if (i % examples_count == 0) pack_order(order, examples_count, 3, i / examples_count, true);
        assert_int_equal(counts.items[i].tokens, items[order[i % examples_count]].count);
    }
    run_counts_release(&counts);
}

static void processes_share_what_one_has(void **state) {
    (void)state;
    struct example items[examples_count];
    struct examples examples;
    struct run_counts counts;
    struct error err;
    int64_t trained = 0, scored = 0;
    make(items, &examples);
    for (int64_t rank = 0; rank < 3; rank++) {
        struct recipe recipe = recipe_of(4, rank, 3);
        assert_ok(run_counts_train(&counts, &recipe, &examples, 40, 3, &err), &err);
        trained += sum(&counts, 40).tokens;
        run_counts_release(&counts);
        assert_ok(run_counts_score(&counts, &recipe, &examples, 40, 64, &err), &err);
        scored += sum(&counts, 40).tokens;
        run_counts_release(&counts);
    }
    assert_int_equal(trained, 145);
    assert_int_equal(scored, 145);
}

static void an_evaluation_fills_up_tokens_and_segments(void **state) {
    (void)state;
    struct example items[examples_count];
    struct examples examples;
    struct run_counts counts;
    struct error err;
    struct recipe recipe = recipe_of(4, 0, 1);
    make(items, &examples);
    assert_ok(run_counts_score(&counts, &recipe, &examples, 33, 64, &err), &err);
    assert_int_equal(counts.count, 6); /* 10 + 11 + 12, 13 + 14, 15 + 16, 17, 18, 19 */
    run_counts_release(&counts);
    assert_ok(run_counts_score(&counts, &recipe, &examples, 1000, 3, &err), &err);
    assert_int_equal(counts.count, 4);
    assert_int_equal(counts.items[3].segments, 1);
    run_counts_release(&counts);
}

/* Each kind of counts that comes twice costs a thousand bytes. */
static uint64_t thousand_each(const struct plan *plan, const struct counts *runs, size_t count) {
    uint64_t bytes = 0;
    (void)plan;
    for (size_t i = 0; i < count; i++) {
        int times = 0;
        for (size_t j = 0; j < i; j++) times += runs[j].tokens == runs[i].tokens;
        bytes += times == 1 ? 1000 : 0;
    }
    return bytes;
}

static void counts_that_come_again_are_planned_for(void **state) {
    (void)state;
    struct example items[examples_count];
    struct inputs inputs = {0};
    struct error err;
    uint64_t bytes;
    struct recipe recipe = recipe_of(1, 0, 1);
    const struct device_ops ops = {.recorded_bytes = thousand_each}, none = {0};
    struct run_programs programs = {.engine = {.ops = &ops}};
    struct run_plan plan = {.micro_batch_tokens = 40, .segments = 64, .steps = 10};
    make(items, &inputs.train);
    inputs.held_out = (struct examples){.items = items, .count = 1};
    plan.evaluations = 1;
    assert_ok(run_counts_recorded(&bytes, &plan, &programs, &recipe, &inputs, &err), &err);
    assert_int_equal(bytes, 0); /* every length once */
    plan.steps = 14;
    assert_ok(run_counts_recorded(&bytes, &plan, &programs, &recipe, &inputs, &err), &err);
    assert_int_equal(bytes, 4000);
    plan.evaluations = 2;
    assert_ok(run_counts_recorded(&bytes, &plan, &programs, &recipe, &inputs, &err), &err);
    assert_int_equal(bytes, 5000);
    programs.engine.ops = &none;
    assert_ok(run_counts_recorded(&bytes, &plan, &programs, &recipe, &inputs, &err), &err);
    assert_int_equal(bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_has_every_example_once),
        cmocka_unit_test(one_example_a_step_is_one_micro_batch_in_the_run_s_order),
        cmocka_unit_test(processes_share_what_one_has),
        cmocka_unit_test(an_evaluation_fills_up_tokens_and_segments),
        cmocka_unit_test(counts_that_come_again_are_planned_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
