/* The log of all that two runs write, one stopped and one resumed: cut after every step, with what was not
 * synced kept, lost or torn, it leaves a directory from which a resume goes on. It takes the checkpoint that
 * the run had told of, or the one under way, and a result that has its name is whole.
 *
 * Of each prefix one of the eight states that follow from it, of some of them the end too, to the same bits;
 * HONE_TEST_LONG: all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "fault/disk_log.h"
#include "fault/scene.h"

enum { most_saves = 16, states = DISK_SOME_LOST + 4, finished_of = 20 };

/* One checkpoint is kept, so that every one counts. */
static const struct scene_run lora = {
    .settings = {{"valid-split", "0.25"},
                 {"batch-size", "1"},
                 {"max-steps", "3"},
                 {"save-every", "1"},
                 {"eval-every", "2"},
                 {"keep", "1"},
                 {"lora-rank", "2"},
                 {"threads", "1"},
                 {"compute", "f32"},
                 {"resume", NULL}},
    .results = {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/README.md",
                "adapter/tokenizer.json", "adapter/tokenizer_config.json", "adapter/chat_template.jinja"},
};

static const struct scene_run full = {
    .settings = {{"method", "full"},
                 {"valid-split", "0.25"},
                 {"batch-size", "1"},
                 {"max-steps", "3"},
                 {"save-every", "1"},
                 {"eval-every", "2"},
                 {"keep", "1"},
                 {"threads", "1"},
                 {"compute", "f32"},
                 {"resume", NULL}},
    .results = {"model/model.safetensors", "model/config.json", "model/tokenizer.json"},
};

/* What the run has told of, and after how many steps of the log. */
struct promises {
    struct {
        size_t at;
        long step;
    } saves[most_saves];
    size_t count;
    long stop_after; /* the step after which the run is stopped, before its evaluation; 0: none */
};

static long step_of(const char *event) {
    const char *at = strstr(event, "\"step\":");
    return at ? strtol(at + strlen("\"step\":"), NULL, 10) : -1;
}

static void on_recorded(void *user, struct hone_job *job, const char *event) {
    struct promises *promises = user;
    if (strstr(event, "\"event\":\"checkpoint\"")) {
        assert_true(promises->count < most_saves);
        promises->saves[promises->count].at = disk_log_count();
        promises->saves[promises->count++].step = step_of(event);
    }
    if (strstr(event, "\"event\":\"step\"") && step_of(event) == promises->stop_after) hone_job_cancel(job);
}

/* The stopped run saves step 2 without its evaluation, the resumed one saves it once more with it. */
static void record(const struct scene *scene, const char *root, struct promises *promises) {
    struct hone_error err;
    struct error cause;
    char *output = fs_join(root, "run");
    assert_ok(fs_make_directories(root, &cause), &cause);
    *promises = (struct promises){.stop_after = 2};
    disk_log_begin(root);
    if (scene_train(scene, output, on_recorded, promises, &err) || err.code != HONE_INTERRUPTED)
        fail_msg("the run did not stop: %s: %s", err.where, err.what);
    promises->stop_after = 0;
    if (!scene_train(scene, output, on_recorded, promises, &err)) fail_msg("%s: %s", err.where, err.what);
    disk_log_end();
    scene_check(scene, output, "while it was recorded");
    assert_int_equal(promises->count, 4); /* 1, 2, 2 with its evaluation, 3 */
    mem_free(output);
}

struct resumed {
    long from; /* -1: not told yet */
};

static void on_resumed(void *user, struct hone_job *job, const char *event) {
    struct resumed *resumed = user;
    if (strstr(event, "\"event\":\"plan\"")) hone_job_cancel(job);
    if (strstr(event, "\"event\":\"resume\"")) resumed->from = step_of(event);
}

struct place {
    size_t steps; /* of the log */
    enum disk_loss loss;
    uint64_t seed;
    char when[400];
};

static void describe(struct place *place) {
    static const char *const names[] = {"nothing lost", "all unsynced lost", "data lost", "data torn",
                                        "some lost"};
    snprintf(place->when, sizeof place->when, "after %zu steps, the last a %s, %s (%llu)", place->steps,
             place->steps ? disk_log_step(place->steps - 1) : "none", names[place->loss],
             (unsigned long long)place->seed);
}

/* The checkpoint that is read is the last one told of or a later one. */
static void check_read(const struct scene *scene, const char *output, const struct promises *promises,
                       const struct place *place) {
    struct resumed resumed = {.from = 0};
    struct hone_error err;
    long least = 0, most = promises->saves[0].step;
    for (size_t i = 0; i < promises->count && promises->saves[i].at <= place->steps; i++) {
        least = promises->saves[i].step;
        most = promises->saves[i + 1 < promises->count ? i + 1 : i].step;
    }
    bool ended = scene_train(scene, output, on_resumed, &resumed, &err); /* there may be nothing left to do */
    if (!ended && err.code != HONE_INTERRUPTED)
        fail_msg("%s: it is not read: %s: %s: %s", place->when, err.where, err.what, err.why);
    if (resumed.from < least || resumed.from > most)
        fail_msg("%s: it goes on from step %ld, not %ld or %ld", place->when, resumed.from, least, most);
    if (ended) scene_check(scene, output, place->when);
}

/* No checkpoint is ahead of its log: what is told of a step was synced before the checkpoint was. */
static void check_told(const char *output, const struct promises *promises, const struct place *place) {
    long saved = 0;
    struct buf text = {0};
    struct error err;
    char *path = fs_join(output, "events.jsonl"), step[64];
    for (size_t i = 0; i < promises->count && promises->saves[i].at <= place->steps; i++)
        saved = promises->saves[i].step;
    if (saved) assert_ok(fs_read(path, 0, &text, &err), &err);
    for (long s = 1; s <= saved; s++) {
        snprintf(step, sizeof step, "\"step\":%ld,\"loss\"", s);
        if (!strstr(text.data, step)) fail_msg("%s: the log does not tell of step %ld", place->when, s);
    }
    buf_release(&text);
    mem_free(path);
}

static void try_place(const struct scene *scene, const struct promises *promises, struct place *place,
                      bool finish) {
    struct hone_error err;
    struct error cause;
    char *root = fs_join(scene->root, "state"), *output = fs_join(root, "run");
    describe(place);
    disk_log_lay(place->steps, place->loss, place->seed, root);
    scene_check_whole(scene, output, place->when);
    check_told(output, promises, place);
    check_read(scene, output, promises, place);
    if (finish) {
        if (!scene_train(scene, output, NULL, NULL, &err))
            fail_msg("%s: it does not go on: %s: %s: %s", place->when, err.where, err.what, err.why);
        scene_check(scene, output, place->when);
    }
    assert_ok(fs_remove_tree(root, &cause), &cause);
    mem_free(output);
    mem_free(root);
}

static void each_prefix(const struct scene_run *run) {
    struct scene scene;
    struct promises promises;
    scene_open(&scene, run, "ref");
    char *root = fs_join(scene.root, "recorded");
    record(&scene, root, &promises);
    size_t tried = 0, finished = 0, steps = disk_log_count();
    bool all = getenv("HONE_TEST_LONG") != NULL;
    assert_true(steps > 100);
    for (struct place place = {0}; place.steps <= steps; place.steps++)
        for (size_t n = 0; n < states; n++) {
            bool finish = all || tried % finished_of == 0;
            if (!all && (place.steps + n) % states) continue;
            place.loss = n < DISK_SOME_LOST ? (enum disk_loss)n : DISK_SOME_LOST;
            place.seed = n < DISK_SOME_LOST ? 0 : n;
            try_place(&scene, &promises, &place, finish);
            tried++;
            finished += finish;
        }
    print_message("%zu steps, %zu states read, %zu carried to the end\n", steps, tried, finished);
    disk_log_release();
    mem_free(root);
    scene_close(&scene);
}

static void the_log_of_a_lora_run_cut_anywhere_is_read(void **state) {
    (void)state;
    each_prefix(&lora);
}

static void the_log_of_a_full_run_cut_anywhere_is_read(void **state) {
    (void)state;
    each_prefix(&full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_of_a_lora_run_cut_anywhere_is_read),
        cmocka_unit_test(the_log_of_a_full_run_cut_anywhere_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
