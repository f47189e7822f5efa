/* Learning rates against transformers' schedules (make_schedules.py).
 *
 * Tolerance: f64 on both sides, a handful of roundings each: 16 · 2⁻⁵³. */
#include "support/test.h"

#include <math.h>

#include "base/json.h"
#include "train/schedule.h"

static void rates_equal_transformers(void **unused) {
    (void)unused;
    struct error err;
    json_t *golden, *one;
    size_t c;
    unsigned seen = 0;
    assert_ok(json_read_file(&golden, TEST_DATA "/golden/schedules.json", 0, &err), &err);
    int64_t total = json_integer_value(json_object_get(golden, "total"));
    json_array_foreach(json_object_get(golden, "cases"), c, one) {
        struct recipe r;
        const char *name;
        json_t *value;
        assert_ok(recipe_init(&r, &err), &err);
        json_object_foreach(json_object_get(one, "settings"), name, value)
            assert_ok(recipe_set(&r, USE_TRAIN, name, json_string_value(value), &err), &err);
        r.learning_rate = 1;
        seen |= 1u << r.schedule;
        for (int64_t step = 1; step <= total; step++) {
            const json_t *rates = json_object_get(one, "rates");
            double want = json_number_value(json_array_get(rates, (size_t)step - 1));
            double got = schedule_rate(&r, step, total);
            if (!(fabs(got - want) <= 0x1p-49))
                fail_msg("case %zu, step %lld: %.17g, transformers' is %.17g", c, (long long)step, got, want);
        }
        recipe_release(&r);
    }
    assert_int_equal(seen, (2u << SCHEDULE_INVERSE_SQRT) - 1);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rates_equal_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
