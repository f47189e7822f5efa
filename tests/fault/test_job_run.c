/* Any place of a run with an adapter fails. */
#include "fault/run_places.h"

static const struct scene_run lora = {.settings = {RUN_STEPS, {"lora-rank", "2"}}, .results = RUN_ADAPTER};
static const struct place_share half = {2, 1};

static void a_run_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&lora, "ref", &memory_fault, false, half);
}

static void a_resume_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&lora, "ref", &memory_fault, true, half);
}

static void a_run_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&lora, "ref", &file_fault, false, half);
}

static void a_resume_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&lora, "ref", &file_fault, true, half);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_whose_memory_fails),
        cmocka_unit_test(a_resume_whose_memory_fails),
        cmocka_unit_test(a_run_whose_files_fail),
        cmocka_unit_test(a_resume_whose_files_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
