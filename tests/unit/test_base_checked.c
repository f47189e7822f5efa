/* Checked sums against 128-bit arithmetic at the boundaries where wrapping hides. */
#include "support/test.h"

#include "base/checked.h"

static const uint64_t edges[] = {0,
                                 1,
                                 2,
                                 63,
                                 64,
                                 0x7fffffff,
                                 0x80000000,
                                 0x80000001,
                                 0xffffffff,
                                 0x100000000,
                                 0x100000001,
                                 INT64_MAX - 1,
                                 INT64_MAX,
                                 (uint64_t)INT64_MAX + 1,
                                 UINT64_MAX - 63,
                                 UINT64_MAX};

static void sums_equal_128_bit_arithmetic(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++)
        for (unsigned j = 0; j < sizeof edges / sizeof *edges; j++) {
            uint64_t a = edges[i], b = edges[j], out = 7;
            unsigned __int128 sum = (unsigned __int128)a + b, product = (unsigned __int128)a * b;
            assert_int_equal(checked_add(a, b, &out), sum <= UINT64_MAX);
            assert_true(sum > UINT64_MAX ? out == 7 : out == (uint64_t)sum);
            out = 7;
            assert_int_equal(checked_mul(a, b, &out), product <= UINT64_MAX);
            assert_true(product > UINT64_MAX ? out == 7 : out == (uint64_t)product);
            assert_int_equal(checked_range(a, b, 1000), sum <= 1000);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_equal_128_bit_arithmetic)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
