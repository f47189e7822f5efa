#include <string.h>

#include "base/rng.h"
#include "support/test.h"
#include "text/pack.h"

static void an_order_is_a_permutation_that_seed_and_epoch_choose(void **state) {
    (void)state;
    uint32_t order[100], other[100];
    uint8_t seen[100] = {0};
    pack_order(order, 100, 3, 0, true);
    for (int i = 0; i < 100; i++) seen[order[i]]++;
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    pack_order(other, 100, 3, 0, true);
    assert_memory_equal(order, other, sizeof order);
    pack_order(other, 100, 3, 1, true);
    assert_memory_not_equal(order, other, sizeof order);
    pack_order(other, 100, 4, 0, true);
    assert_memory_not_equal(order, other, sizeof order);
    pack_order(other, 100, 3, 0, false);
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(other[i], i);
    pack_order(other, 0, 3, 0, true);
    pack_order(other, 1, 3, 0, true);
    assert_int_equal(other[0], 0);
}

/* Of three, each of the six orders as often as another: 1,000 of 6,000, within five times √(6000 · 5/36). */
static void every_order_is_as_likely(void **state) {
    (void)state;
    int drawn[27] = {0};
    for (uint64_t seed = 0; seed < 6000; seed++) {
        uint32_t order[3];
        pack_order(order, 3, seed, 0, true);
        drawn[order[0] * 9 + order[1] * 3 + order[2]]++;
    }
    for (int i = 0; i < 27; i++) assert_true(!drawn[i] || (drawn[i] > 855 && drawn[i] < 1145));
    assert_true(drawn[5] && drawn[7] && drawn[11] && drawn[15] && drawn[19] && drawn[21]);
}

static void lay(struct pack_layout *out, const uint32_t *lengths, size_t count, size_t capacity,
                struct arena *arena) {
    struct example *examples = arena_array(arena, count + 1, sizeof *examples);
    uint32_t *chosen = arena_array(arena, count + 1, sizeof *chosen);
    struct error err;
    for (size_t i = 0; i < count; i++) {
        examples[i].count = lengths[i];
        chosen[i] = (uint32_t)(count - 1 - i);
    }
    assert_ok(pack_step(out, examples, chosen, count, capacity, arena, &err), &err);
}

static void every_example_is_laid_once_and_nothing_overflows(void **state) {
    (void)state;
    uint32_t lengths[64];
    for (uint32_t round = 0; round < 300; round++) {
        struct arena arena = {0};
        struct pack_layout layout;
        uint8_t seen[64] = {0};
        uint32_t words[4];
        size_t count = 1 + round % 64, total = 0;
        for (uint32_t i = 0; i < count; i++) {
            philox(round, (uint32_t[4]){i, 0, 0, 0}, words);
            lengths[i] = words[0] % 100;
            total += lengths[i];
        }
        lay(&layout, lengths, count, 100, &arena);
        assert_int_equal(layout.starts[0], 0);
        assert_int_equal(layout.starts[layout.micro_batches], count);
        assert_true(layout.micro_batches * 100 >= total);
        for (size_t b = 0; b < layout.micro_batches; b++) {
            size_t load = 0;
            for (size_t i = layout.starts[b]; i < layout.starts[b + 1]; i++) {
                load += lengths[layout.items[i]];
                assert_int_equal(seen[layout.items[i]]++, 0);
            }
            assert_true(load <= 100);
        }
        arena_release(&arena);
    }
}

static void micro_batches_are_few_and_balanced(void **state) {
    (void)state;
    static const struct {
        uint32_t lengths[8];
        size_t count, capacity, micro_batches, heaviest;
    } cases[] = {
        {{10}, 1, 10, 1, 10},
        {{6, 5, 4, 3}, 4, 10, 2, 9}, /* 6+3, 5+4: balanced, not 6+4 and 5+3 */
        {{50, 1, 1, 1, 1, 1, 1}, 7, 100, 1, 56},
        {{4, 4, 4, 4}, 4, 5, 4, 4},
        {{5, 5, 4, 3, 3}, 5, 10, 2, 10}, /* lightest-first needs three, first-fit two */
        {{60, 30, 30}, 3, 60, 2, 60},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct arena arena = {0};
        struct pack_layout layout;
        size_t heaviest = 0;
        lay(&layout, cases[c].lengths, cases[c].count, cases[c].capacity, &arena);
        assert_int_equal(layout.micro_batches, cases[c].micro_batches);
        for (size_t b = 0; b < layout.micro_batches; b++) {
            size_t load = 0;
            for (size_t i = layout.starts[b]; i < layout.starts[b + 1]; i++)
                load += cases[c].lengths[layout.items[i]];
            if (load > heaviest) heaviest = load;
        }
        assert_int_equal(heaviest, cases[c].heaviest);
        arena_release(&arena);
    }
}

static void an_example_that_fits_nowhere_is_refused(void **state) {
    (void)state;
    struct arena arena = {0};
    struct pack_layout layout;
    struct example example = {.count = 11};
    struct error err;
    uint32_t chosen = 0;
    assert_false(pack_step(&layout, &example, &chosen, 1, 10, &arena, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    arena_release(&arena);
}

/* Every example falls to one process, in the order of the step; no process has more than the longest beyond
 * what another has. */
static void a_step_is_shared_out(void **state) {
    (void)state;
    for (uint32_t round = 0; round < 200; round++) {
        struct arena arena = {0};
        struct example examples[40] = {{0}};
        uint32_t chosen[40], words[4];
        uint8_t seen[40] = {0};
        size_t count = round % 40, longest = 0, most = 0, least = SIZE_MAX;
        int ranks = 1 + (int)(round % 7);
        for (uint32_t i = 0; i < count; i++) {
            philox(round, (uint32_t[4]){i, 0, 0, 0}, words);
            examples[i].count = 1 + words[0] % 300;
            if (examples[i].count > longest) longest = examples[i].count;
            chosen[i] = (uint32_t)count - 1 - i;
        }
        for (int r = 0; r < ranks; r++) {
            struct error err;
            uint32_t *mine;
            size_t mine_count, tokens = 0;
            assert_ok(pack_share(&mine, &mine_count, examples, chosen, count, r, ranks, &arena, &err), &err);
            for (size_t i = 0; i < mine_count; i++) {
                if (i) assert_true(mine[i] < mine[i - 1]); /* `chosen` falls */
                seen[mine[i]]++;
                tokens += examples[mine[i]].count;
            }
            if (tokens > most) most = tokens;
            if (tokens < least) least = tokens;
        }
        for (size_t i = 0; i < count; i++) assert_int_equal(seen[i], 1);
        assert_true(most - least <= longest);
        arena_release(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_is_a_permutation_that_seed_and_epoch_choose),
        cmocka_unit_test(every_order_is_as_likely),
        cmocka_unit_test(every_example_is_laid_once_and_nothing_overflows),
        cmocka_unit_test(micro_batches_are_few_and_balanced),
        cmocka_unit_test(an_example_that_fits_nowhere_is_refused),
        cmocka_unit_test(a_step_is_shared_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
