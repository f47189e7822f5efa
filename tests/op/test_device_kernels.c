/* The kernels that are no products; see device_kernel_harness.h. */
#include "support/test.h"

#include "op/device_kernel_harness.h"

static void elementwise_kernels_equal_the_reference(void **state) {
    (void)state, check_kernels(cpu_kernels_elementwise);
}
static void attention_kernels_equal_the_reference(void **state) {
    (void)state, check_kernels(cpu_kernels_attention);
}
static void optimizer_kernels_equal_the_reference(void **state) {
    (void)state, check_kernels(cpu_kernels_optimizer);
}
static void dora_kernels_equal_the_reference(void **state) { (void)state, check_kernels(cpu_kernels_dora); }

/* A gradient that is not a number must reach the norm, or the update would not be skipped. */
static void gradient_norm_shows_nan_and_infinity(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const struct sizes z = {.tokens = 401, .width = 333};
    for (const struct cpu_kernel *row = cpu_kernels_optimizer; row->run; row++) {
        if (row->op != OP_GRADIENT_NORM || (row->needs & cpu_features()) != row->needs) continue;
        for (size_t b = 0; b < 3; b++)
            for (int64_t at = 0; at < z.tokens * z.width; at += 4999) {
                struct trial trial;
                struct attempt attempt;
                trial_open(&trial, row->op, &z, DTYPE_F32, DTYPE_F32);
                ((float *)(void *)trial.in[0].data)[at] = bad[b];
                attempt_run(&attempt, &trial, row, 2, false);
                if (isfinite(*(float *)attempt.call.out[0].data))
                    fail_msg("%s hides %g", row->name, (double)bad[b]);
                attempt_release(&attempt);
                trial_release(&trial);
            }
    }
}

static void times(void **state) {
    (void)state;
    if (!getenv("HONE_TIME")) skip();
    time_kernels(cpu_kernels_elementwise);
    time_kernels(cpu_kernels_attention);
    time_kernels(cpu_kernels_optimizer);
    time_kernels(cpu_kernels_dora);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_kernels_equal_the_reference),
        cmocka_unit_test(attention_kernels_equal_the_reference),
        cmocka_unit_test(optimizer_kernels_equal_the_reference),
        cmocka_unit_test(dora_kernels_equal_the_reference),
        cmocka_unit_test(gradient_norm_shows_nan_and_infinity),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, pools_open, pools_close);
}
