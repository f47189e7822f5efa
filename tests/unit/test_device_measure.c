/* What a device measures of itself: that which is asked for. */
#include "support/test.h"

#include <string.h>

#include "device/device.h"

static void the_rates_are_those_of_the_compute_type_asked_for(void **state) {
    (void)state;
    const int64_t shapes[2][3] = {{16, 16, 16}, {16, 32, 16}};
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct device_options options = {.threads = 1};
    struct device *device;
    struct error err;
    const struct device_ops *ops = device_find("cpu", &err);
    assert_non_null(ops);
    assert_ok(ops->open(&device, &options, &err), &err);
    for (size_t i = 0; i <= sizeof types / sizeof *types; i++) {
        bool all = i == sizeof types / sizeof *types;
        json_t *rates, *row;
        size_t at;
        assert_ok(ops->measure(device, all ? NULL : &types[i], shapes, 2, 0, &rates, &err), &err);
        const json_t *products = json_object_get(rates, "products");
        assert_int_equal(json_array_size(products), all ? 6 : 2);
        json_array_foreach(products, at, row) {
            assert_true(json_number_value(json_object_get(row, "flops_per_second")) > 0);
            if (!all)
                assert_string_equal(json_string_value(json_object_get(row, "compute")),
                                    dtype_row(types[i])->name);
        }
        json_decref(rates);
    }
    ops->close(&device);
}

static void every_product_has_a_reason(void **state) {
    (void)state;
    struct device_options options = {.threads = 1};
    struct device *device;
    struct error err;
    json_t *facts, *row;
    size_t at, selected = 0;
    bool library = false;
    const struct device_ops *ops = device_find("cpu", &err);
    assert_ok(ops->open(&device, &options, &err), &err);
    assert_ok(ops->describe(device, &facts, &err), &err);
    json_array_foreach(json_object_get(facts, "products"), at, row) {
        assert_true(json_string_length(json_object_get(row, "why")) > 0);
        selected += json_is_true(json_object_get(row, "selected"));
        library |= !strcmp(json_string_value(json_object_get(row, "name")), "onednn");
    }
    assert_int_equal(selected, 3); /* one for each of f32, bf16 and f16 */
    assert_true(library);
    json_decref(facts);
    ops->close(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_product_has_a_reason),
        cmocka_unit_test(the_rates_are_those_of_the_compute_type_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
