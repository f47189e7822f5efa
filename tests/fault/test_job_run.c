/* A whole training run, through the public API, in which the k-th request for memory or the k-th system call
 * on a file fails, alone or with all that follow. The run then ends with an error that says so, or does
 * without; either way what it leaves goes on, undisturbed, to the same bits. Leaks and wild accesses are
 * found by the sanitizer build. jansson's requests are counted too. */
#include "base/fs.h"
#include "fault/places.h"
#include "fault/scene.h"

#define STEPS                                                                              \
    {"valid-split", "0.25"}, {"batch-size", "1"}, {"max-steps", "3"}, {"save-every", "1"}, \
        {"eval-every", "2"}, {"threads", "1"}, {"compute", "f32"}, {                       \
        "resume", NULL                                                                     \
    } /* or starts */

#define ADAPTER                                                                                       \
    {                                                                                                 \
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/README.md",      \
            "adapter/tokenizer.json", "adapter/tokenizer_config.json", "adapter/chat_template.jinja", \
            "checkpoints/step-00000003/optimizer.safetensors",                                        \
            "checkpoints/step-00000003/adapter/adapter_model.safetensors"                             \
    }

#define MODEL                                                                   \
    {                                                                           \
        "model/model.safetensors", "model/config.json", "model/tokenizer.json", \
            "checkpoints/step-00000003/optimizer.safetensors",                  \
            "checkpoints/step-00000003/model/model.safetensors"                 \
    }

static const struct scene_run lora = {.settings = {STEPS, {"lora-rank", "2"}}, .results = ADAPTER},
                              full = {.settings = {STEPS, {"method", "full"}}, .results = MODEL},
                              offloaded = {.settings = {STEPS,
                                                        {"method", "full"},
                                                        {"recompute", "offload"},
                                                        {"offload-optimizer", NULL}},
                                           .results = MODEL},
                              nf4 = {.settings = {STEPS, {"lora-rank", "2"}},
                                     .results = ADAPTER,
                                     .type = "nf4",
                                     .container = "safetensors"},
                              mlx = {.settings = {STEPS, {"lora-rank", "2"}},
                                     .results = ADAPTER,
                                     .type = "mlx-4bit-g32",
                                     .container = "mlx"};

static const struct place_share half = {2, 1}, some = {5, 1}, few = {10, 1};

struct trial {
    struct scene scene;
    bool begun;
};

static bool train(void *user, struct hone_error *err) {
    const struct trial *trial = user;
    return scene_train(&trial->scene, trial->scene.output, NULL, NULL, err);
}

static void prepare(void *user) {
    const struct trial *trial = user;
    scene_prepare(&trial->scene, trial->begun);
}

static void try_place(void *user, const struct fault_kind *kind, long k, bool lasting) {
    const struct trial *trial = user;
    const struct scene *scene = &trial->scene;
    struct hone_error err;
    char when[place_text];
    bool ok = place_try(kind, k, lasting, train, user, when);
    if (ok)
        scene_check(scene, scene->output, when);
    else
        scene_check_whole(scene, scene->output, when);
    if (ok || fs_kind_of(scene->output) == FS_NOTHING) return;
    if (!train(user, &err)) fail_msg("%s: it does not go on: %s: %s: %s", when, err.where, err.what, err.why);
    scene_check(scene, scene->output, when);
}

static void each_place_may_fail(const struct scene_run *run, const char *device,
                                const struct fault_kind *kind, bool begun, struct place_share share) {
    struct trial trial = {.begun = begun};
    scene_open(&trial.scene, run, device);
    place_each(kind, share, train, &trial, prepare, try_place);
    scene_close(&trial.scene);
}

static void a_run_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&lora, "ref", &memory_fault, false, half);
}

static void a_resume_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&lora, "ref", &memory_fault, true, half);
}

/* It measures itself, which takes long: fewer places. */
static void a_run_on_the_cpu_device_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&lora, "cpu", &memory_fault, false, (struct place_share){20, 10});
}

static void a_run_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&lora, "ref", &file_fault, false, half);
}

static void a_resume_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&lora, "ref", &file_fault, true, half);
}

static void a_run_of_all_weights_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&full, "ref", &memory_fault, true, few);
}

static void a_run_of_all_weights_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&full, "ref", &file_fault, true, some);
}

static void an_offloaded_run_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&offloaded, "ref", &memory_fault, false, few);
}

static void an_offloaded_run_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&offloaded, "ref", &file_fault, false, some);
}

static void a_run_on_nf4_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&nf4, "ref", &memory_fault, false, few);
}

static void a_run_on_nf4_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&nf4, "ref", &file_fault, false, few);
}

static void a_run_on_a_model_of_mlx_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail(&mlx, "ref", &memory_fault, false, few);
}

static void a_run_on_a_model_of_mlx_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail(&mlx, "ref", &file_fault, false, few);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_whose_memory_fails),
        cmocka_unit_test(a_resume_whose_memory_fails),
        cmocka_unit_test(a_run_on_the_cpu_device_whose_memory_fails),
        cmocka_unit_test(a_run_whose_files_fail),
        cmocka_unit_test(a_resume_whose_files_fail),
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
