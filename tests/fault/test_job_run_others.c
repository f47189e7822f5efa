/* Any place of a run that trains every weight, keeps state in files, or reads other types and layouts, fails.
 */
#include "fault/run_places.h"

#define MODEL                                                                   \
    {                                                                           \
        "model/model.safetensors", "model/config.json", "model/tokenizer.json", \
            "checkpoints/step-00000003/optimizer.safetensors",                  \
            "checkpoints/step-00000003/model/model.safetensors"                 \
    }

static const struct scene_run full = {.settings = {RUN_STEPS, {"method", "full"}}, .results = MODEL},
                              offloaded = {.settings = {RUN_STEPS,
                                                        {"method", "full"},
                                                        {"recompute", "offload"},
                                                        {"offload-optimizer", NULL}},
                                           .results = MODEL},
                              nf4 = {.settings = {RUN_STEPS, {"lora-rank", "2"}},
                                     .results = RUN_ADAPTER,
                                     .type = "nf4",
                                     .container = "safetensors"},
                              mlx = {.settings = {RUN_STEPS, {"lora-rank", "2"}},
                                     .results = RUN_ADAPTER,
                                     .type = "mlx-4bit-g32",
                                     .container = "mlx"};

static const struct place_share some = {5, 1}, few = {10, 1};

static void a_run_of_all_weights_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&full, "ref", &memory_fault, true, few);
}

static void a_run_of_all_weights_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&full, "ref", &file_fault, true, some);
}

static void an_offloaded_run_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&offloaded, "ref", &memory_fault, false, few);
}

static void an_offloaded_run_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&offloaded, "ref", &file_fault, false, some);
}

static void a_run_on_nf4_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&nf4, "ref", &memory_fault, false, few);
}

static void a_run_on_nf4_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&nf4, "ref", &file_fault, false, few);
}

static void a_run_on_a_model_of_mlx_whose_memory_fails(void **state) {
    (void)state;
    run_places_fail(&mlx, "ref", &memory_fault, false, few);
}

static void a_run_on_a_model_of_mlx_whose_files_fail(void **state) {
    (void)state;
    run_places_fail(&mlx, "ref", &file_fault, false, few);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_of_all_weights_whose_memory_fails),
        cmocka_unit_test(a_run_of_all_weights_whose_files_fail),
        cmocka_unit_test(an_offloaded_run_whose_memory_fails),
        cmocka_unit_test(an_offloaded_run_whose_files_fail),
        cmocka_unit_test(a_run_on_nf4_whose_memory_fails),
        cmocka_unit_test(a_run_on_nf4_whose_files_fail),
        cmocka_unit_test(a_run_on_a_model_of_mlx_whose_memory_fails),
        cmocka_unit_test(a_run_on_a_model_of_mlx_whose_files_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
