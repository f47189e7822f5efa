/* A disk that fills up during a run, and is freed. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "fault/scene.h"

static const struct scene_run lora = {
    .settings = {{"valid-split", "0.25"},
                 {"batch-size", "1"},
                 {"max-steps", "3"},
                 {"save-every", "1"},
                 {"eval-every", "2"},
                 {"lora-rank", "2"},
                 {"threads", "1"},
                 {"compute", "f32"},
                 {"resume", NULL}},
    .results = {"adapter/adapter_model.safetensors", "checkpoints/step-00000003/optimizer.safetensors",
                "checkpoints/step-00000003/adapter/adapter_model.safetensors"},
};

/* Its held-out loss falls for some steps and rises then. Nothing is saved but the best, and the end. */
static const struct scene_run stopping = {
    .settings = {{"valid-split", "0.25"},
                 {"batch-size", "1"},
                 {"epochs", "20"},
                 {"max-steps", "30"},
                 {"learning-rate", "0.02"},
                 {"schedule", "constant"},
                 {"save-every", "1000"},
                 {"eval-every", "1"},
                 {"early-stopping", "4"},
                 {"lora-rank", "2"},
                 {"threads", "1"},
                 {"compute", "f32"},
                 {"resume", NULL}},
    .results = {"adapter/adapter_model.safetensors"},
};

struct full_disk {
    const char *path, *also; /* what is below cannot be written */
    int most;                /* it has room again after so many calls; 0: never */
    int refused;
};

static int fail_below(void *user, const char *call, const char *path) {
    struct full_disk *disk = user;
    bool writes = !strcmp(call, "write") || !strcmp(call, "fsync");
    if (!writes || (disk->most && disk->refused == disk->most)) return 0;
    if (!strstr(path, disk->path) && !(disk->also && strstr(path, disk->also))) return 0;
    disk->refused++;
    return ENOSPC;
}

static bool train_on_full_disk(const struct scene *scene, struct full_disk *disk, struct hone_error *err) {
    scene_prepare(scene, false);
    fs_set_fault(fail_below, disk);
    bool ok = scene_train(scene, scene->output, NULL, NULL, err);
    fs_set_fault(NULL, NULL);
    assert_true(disk->refused > 0);
    return ok;
}

static void a_save_that_fails_on_the_way_is_told_and_made_up_for(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    scene_open(&scene, &lora, "ref");
    struct full_disk disk = {.path = "checkpoints/step-00000001"};
    if (!train_on_full_disk(&scene, &disk, &err)) fail_msg("%s: %s", err.where, err.what);
    scene_check(&scene, scene.output, "after a save that failed");
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"save_failed\""), 1);
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"checkpoint\""), 2);
    scene_close(&scene);
}

/* On a disk that is full the events find no room either. */
static void events_that_find_no_room_are_written_later(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    scene_open(&scene, &lora, "ref");
    struct full_disk disk = {.path = "checkpoints/step-00000001", .also = "/events.jsonl", .most = 6};
    if (!train_on_full_disk(&scene, &disk, &err)) fail_msg("%s: %s", err.where, err.what);
    assert_int_equal(disk.refused, disk.most);
    scene_check(&scene, scene.output, "after a disk that was full");
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"plan\""), 1);
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"save_failed\""), 1);
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"step\""), 3);
    scene_close(&scene);
}

static void a_last_save_that_fails_is_exit_4_and_resumable(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    scene_open(&scene, &lora, "ref");
    struct full_disk disk = {.path = "checkpoints/"};
    assert_false(train_on_full_disk(&scene, &disk, &err));
    assert_int_equal(hone_exit_status(err.code), 4);
    assert_non_null(strstr(err.fix, "--resume"));
    assert_int_equal(scene_count_events(scene.output, "\"event\":\"save_failed\""), 2);
    if (!scene_train(&scene, scene.output, NULL, NULL, &err)) fail_msg("%s: %s", err.where, err.what);
    scene_check(&scene, scene.output, "resumed when the disk had room again");
    scene_close(&scene);
}

/* ---- early stopping, when the best checkpoint cannot be written ---- */

struct measured {
    double best_loss; /* of the evaluations but that after `without` */
    long best_step, last_step, without, result_step, told_best;
};

static long integer(const json_t *event, const char *key) {
    return (long)json_integer_value(json_object_get(event, key));
}

static void read_event(struct measured *m, const json_t *event) {
    const char *name = json_string_value(json_object_get(event, "event"));
    double loss = json_number_value(json_object_get(event, "loss"));
    long step = integer(event, "step");
    if (!strcmp(name, "eval") && step != m->without && !(loss >= m->best_loss)) {
        m->best_loss = loss;
        m->best_step = step;
    }
    if (!strcmp(name, "save_failed")) m->told_best = integer(event, "best_step");
    if (!strcmp(name, "done")) m->result_step = integer(event, "result_step");
    m->last_step = step;
}

static struct measured read_events(const char *output, long without) {
    struct measured m = {.best_loss = NAN, .without = without};
    struct buf log = {0};
    struct error err;
    char *path = fs_join(output, "events.jsonl");
    assert_ok(fs_read(path, 0, &log, &err), &err);
    for (char *line = log.data, *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *event;
        assert_ok(json_read(&event, line, (size_t)(end - line), path, 1, &err), &err);
        read_event(&m, event);
        json_decref(event);
    }
    buf_release(&log);
    mem_free(path);
    return m;
}

static void check_result_is_of(const struct scene *scene, long step) {
    char name[96];
    struct buf result = {0}, checkpoint = {0};
    struct error err;
    snprintf(name, sizeof name, "checkpoints/step-%08ld/adapter/adapter_model.safetensors", step);
    char *a = fs_join(scene->output, "adapter/adapter_model.safetensors"), *b = fs_join(scene->output, name);
    assert_ok(fs_read(a, 0, &result, &err) && fs_read(b, 0, &checkpoint, &err), &err);
    assert_int_equal(result.size, checkpoint.size);
    assert_memory_equal(result.data, checkpoint.data, result.size);
    buf_release(&result);
    buf_release(&checkpoint);
    mem_free(a);
    mem_free(b);
}

static void the_best_is_the_best_that_was_saved(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    char refused[64];
    scene_open(&scene, &stopping, "ref");
    struct measured undisturbed = read_events(scene.output, -1);
    long best = undisturbed.best_step;
    assert_true(best > 2 && best < undisturbed.last_step && undisturbed.result_step == best);
    snprintf(refused, sizeof refused, "checkpoints/step-%08ld", best);
    struct full_disk disk = {.path = refused};
    if (!train_on_full_disk(&scene, &disk, &err)) fail_msg("%s: %s", err.where, err.what);
    struct measured found = read_events(scene.output, best);
    assert_int_equal(found.result_step, found.best_step);
    assert_true(found.told_best > 0 && found.told_best < best);
    check_result_is_of(&scene, found.best_step);
    scene_close(&scene);
}

/* No best checkpoint at all: the result is the last step's, which is exit 4 when it cannot be saved either.
 */
static void without_any_save_the_run_ends_and_can_go_on(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    scene_open(&scene, &stopping, "ref");
    struct full_disk disk = {.path = "checkpoints/"};
    assert_false(train_on_full_disk(&scene, &disk, &err));
    assert_int_equal(hone_exit_status(err.code), 4);
    if (!scene_train(&scene, scene.output, NULL, NULL, &err)) fail_msg("%s: %s", err.where, err.what);
    scene_check(&scene, scene.output, "resumed when the disk had room again");
    scene_close(&scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_save_that_fails_on_the_way_is_told_and_made_up_for),
        cmocka_unit_test(events_that_find_no_room_are_written_later),
        cmocka_unit_test(a_last_save_that_fails_is_exit_4_and_resumable),
        cmocka_unit_test(the_best_is_the_best_that_was_saved),
        cmocka_unit_test(without_any_save_the_run_ends_and_can_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
