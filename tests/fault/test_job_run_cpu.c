/* The same on the device that measures itself before each run, which takes long: fewer places. */
#include "fault/run_places.h"

static const struct scene_run lora = {.settings = {RUN_STEPS, {"lora-rank", "2"}}, .results = RUN_ADAPTER};

static void a_run_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&lora, "cpu", &memory_fault, false, (struct place_share){20, 40});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_whose_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
