/* Examples side by side: positions begin anew, and each target is told from the token before it. */
#include "support/test.h"

#include "score/batch.h"

static void examples_lie_side_by_side_and_predict_from_the_token_before(void **state) {
    (void)state;
    /* Of the first example every token is trained; its first one has nothing before it. */
    static const int32_t ids[2][4] = {{11, 12, 13, 0}, {21, 22, 23, 24}};
    static const uint8_t trained[2][4] = {{1, 1, 1, 0}, {0, 0, 1, 1}};
    static const struct example examples[2] = {
        {.row = 7, .count = 3, .supervised = 2, .ids = ids[0], .trained = trained[0]},
        {.row = 9, .count = 4, .supervised = 2, .ids = ids[1], .trained = trained[1]}};
    static const int32_t all[] = {11, 12, 13, 21, 22, 23, 24}, positions[] = {0, 1, 2, 0, 1, 2, 3},
                         segments[] = {0, 3, 7}, rows[] = {0, 1, 4, 5}, targets[] = {12, 13, 23, 24};
    static const uint32_t of[] = {7, 7, 7, 9, 9, 9, 9};
    static const float weights[] = {0.5f, 0.5f, 0.25f, 0.25f};
    struct batch batch;
    struct error err;
    assert_ok(batch_open(&batch, 8, 3, &err), &err);
    for (int again = 0; again < 2; again++) { /* nothing stays of what was there before */
        batch_clear(&batch);
        assert_true(batch_fits(&batch, &examples[0]));
        batch_add(&batch, &examples[0], 0.5f);
        batch_add(&batch, &examples[1], 0.25f);
        assert_false(batch_fits(&batch, &examples[0])); /* 7 of 8 tokens are taken */
        assert_int_equal(batch.binding.tokens, 7);
        assert_int_equal(batch.binding.targets, 4);
        assert_int_equal(batch.binding.segments, 2);
        assert_int_equal(batch.binding.longest_segment, 4);
        assert_memory_equal(batch.ids, all, sizeof all);
        assert_memory_equal(batch.positions, positions, sizeof positions);
        assert_memory_equal(batch.segments, segments, sizeof segments);
        assert_memory_equal(batch.rows, rows, sizeof rows);
        assert_memory_equal(batch.targets, targets, sizeof targets);
        assert_memory_equal(batch.examples, of, sizeof of);
        assert_memory_equal(batch.weights, weights, sizeof weights);
    }
    batch_close(&batch);
    assert_ok(batch_open(&batch, 8, 1, &err), &err);
    batch_add(&batch, &examples[0], 1);
    assert_false(batch_fits(&batch, &examples[1])); /* there is one segment */
    batch_close(&batch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_lie_side_by_side_and_predict_from_the_token_before)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
