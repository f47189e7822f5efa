/* The kernels that are matrix products; see device_kernel_harness.h. */
#include "support/test.h"

#include "op/device_kernel_harness.h"

static void linear_kernels_equal_the_reference(void **state) {
    (void)state, check_kernels(cpu_kernels_linear);
}
static void head_kernels_equal_the_reference(void **state) { (void)state, check_kernels(cpu_kernels_head); }

static void times(void **state) {
    (void)state;
    if (!getenv("HONE_TIME")) skip();
    time_kernels(cpu_kernels_linear);
    time_kernels(cpu_kernels_head);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_kernels_equal_the_reference),
        cmocka_unit_test(head_kernels_equal_the_reference),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, pools_open, pools_close);
}
