/* Integers beyond 64 bits, as tokenizer_config.json and the ids of data sets have them; memory that fails. */
#include "support/test.h"

#include <string.h>

#include "base/json.h"
#include "base/mem.h"

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
    static const struct {
        const char *text, *what;
    } cases[] = {{"1e999", "text:1: a number is out of range"},
                 {"[99999999999999999999,\n 1e999]", "text:2: a number is out of range"},
                 {"99999999999999999999x", "text:1: broken JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *value = NULL;
        struct error err = {0};
        assert_false(json_read(&value, cases[i].text, strlen(cases[i].text), "text", 1, &err));
        assert_string_equal(err.what, cases[i].what);
        assert_null(value);
        assert_int_equal(err.code, ERROR_INPUT);
    }
}

static int fail_from(void *user, size_t size) {
    long *left = user;
    (void)size;
    return (*left)-- <= 0;
}

static int fail_once(void *user, size_t size) {
    long *left = user;
    (void)size;
    return (*left)-- == 0;
}

/* A text longer than what jansson takes at a time, with long strings: its buffer grows in the middle of them.
 */
static void put_long_text(struct buf *out) {
    buf_text(out, "{");
    for (int i = 0; i < 40; i++) {
        buf_printf(out, "%s\"key %d\": [%d.5, {}, null, \"", i ? ", " : "", i, i);
        for (int k = 0; k < 40 * i; k++) buf_text(out, "a\\n");
        buf_text(out, "\"]");
    }
    assert_true(buf_text(out, "}"));
}

static void memory_that_fails_is_an_error_of_memory(void **state) {
    (void)state;
    const mem_fault faults[] = {fail_once, fail_from};
    struct buf text = {0};
    put_long_text(&text);
    json_decref(read("0")); /* jansson's requests are ours from now on */
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        bool ok = false;
        for (long k = 0; !ok; k++) {
            json_t *value = NULL;
            struct error err;
            long left = k;
            mem_set_fault(faults[f], &left);
            ok = json_read(&value, text.data, text.size, "text", 1, &err);
            mem_set_fault(NULL, NULL);
            if (ok) assert_true(k > 300 && json_object_size(value) == 40);
            if (!ok && (err.code != ERROR_MEMORY || value)) fail_msg("request %ld: %s", k, err.what);
            json_decref(value);
        }
    }
    buf_release(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_integer_beyond_64_bits_is_a_real),
                                       cmocka_unit_test(integers_at_the_bounds_stay_integers),
                                       cmocka_unit_test(a_real_out_of_range_is_refused),
                                       cmocka_unit_test(memory_that_fails_is_an_error_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
