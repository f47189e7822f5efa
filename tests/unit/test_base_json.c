/* Integers beyond 64 bits, as tokenizer_config.json and the ids of data sets have them. */
#include "support/test.h"

#include <string.h>

#include "base/json.h"

static json_t *read(const char *text) {
    json_t *value = NULL;
    struct error err = {0};
    bool ok = json_read(&value, text, strlen(text), "text", 1, &err);
    assert_ok(ok, &err);
    return value;
}

static void an_integer_beyond_64_bits_is_a_real(void **state) {
    (void)state;
    json_t *value = read("{\"model_max_length\": 1000000000000000019884624838656, \"padding\": 3, "
                         "\"id\":-99999999999999999999, \"18446744073709551616 \\\" 1\": [1.5, 1e-3]}");
    assert_true(json_is_real(json_object_get(value, "model_max_length")));
    assert_true(json_real_value(json_object_get(value, "model_max_length")) == 1e30);
    assert_true(json_real_value(json_object_get(value, "id")) == -1e20);
    assert_int_equal(json_integer_value(json_object_get(value, "padding")), 3);
    const json_t *list = json_object_get(value, "18446744073709551616 \" 1");
    assert_true(json_real_value(json_array_get(list, 0)) == 1.5);
    assert_true(json_real_value(json_array_get(list, 1)) == 1e-3);
    json_decref(value);
}

static void integers_at_the_bounds_stay_integers(void **state) {
    (void)state;
    json_t *value = read("[9223372036854775807, -9223372036854775808, 9223372036854775808, "
                         "0.99999999999999999999, 12345678901234567890e2]");
    assert_true(json_integer_value(json_array_get(value, 0)) == INT64_MAX);
    assert_true(json_integer_value(json_array_get(value, 1)) == INT64_MIN);
    for (size_t i = 2; i < 5; i++) assert_true(json_is_real(json_array_get(value, i)));
    json_decref(value);
}

static void a_real_out_of_range_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"1e999", "[99999999999999999999, 1e999]", "99999999999999999999x"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = NULL;
        struct error err = {0};
        assert_false(json_read(&value, texts[i], strlen(texts[i]), "text", 1, &err));
        assert_null(value);
        assert_int_equal(err.code, ERROR_INPUT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_integer_beyond_64_bits_is_a_real),
                                       cmocka_unit_test(integers_at_the_bounds_stay_integers),
                                       cmocka_unit_test(a_real_out_of_range_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
