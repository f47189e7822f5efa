/* A whole training run, through the public API, in which the k-th request for memory or the k-th system call
 * on a file fails. The run then ends with an error that says so, or does without; either way what it leaves
 * goes on, undisturbed, to the same bits. Leaks and wild accesses are found by the sanitizer build.
 *
 * The ordinary tier tries the first places and some of the others, drawn with a fixed seed; HONE_TEST_LONG=N
 * every N-th place. jansson's requests are counted too. */
#include "support/test.h"

#include <errno.h>
#include <hone/hone.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"

enum { first = 50, sample = 150 };

static const char rows[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
    "\"Yo.\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
    "\"b\"}]}\n"
    "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", \"content\": \"1\"},"
    " {\"role\": \"assistant\", \"content\": \"2 3\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"é\"}, {\"role\": \"assistant\", \"content\": "
    "\"è\"}]}\n";

static const char *const settings[][2] = {
    {"model", TEST_DATA "/golden/data/qwen2"},
    {"valid-split", "0.25"},
    {"batch-size", "1"},
    {"max-steps", "3"},
    {"save-every", "1"},
    {"eval-every", "2"},
    {"lora-rank", "2"},
    {"threads", "1"},
    {"compute", "f32"},
    {"resume", NULL}, /* goes on, or starts where nothing is */
};

/* What two runs must have in common, to the bit. */
static const char *const results[] = {
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/README.md",
    "adapter/tokenizer.json",
    "adapter/tokenizer_config.json",
    "adapter/chat_template.jinja",
    "checkpoints/step-00000003/optimizer.safetensors",
    "checkpoints/step-00000003/adapter/adapter_model.safetensors",
};
enum { result_count = sizeof results / sizeof *results };

/* ---- a run ---- */

struct scene {
    const char *device;
    char *root, *data, *output;
    char *begun;                       /* a run that was stopped after its first checkpoint */
    struct buf expected[result_count]; /* of a run that nothing disturbs */
};

struct watch {
    struct hone_job *job;
    int saves, most; /* cancelled after so many checkpoints; 0: never */
};

static void on_event(void *user, const char *line) {
    struct watch *watch = user;
    if (strstr(line, "\"event\":\"checkpoint\"") && ++watch->saves == watch->most)
        hone_job_cancel(watch->job);
}

static bool train(const struct scene *scene, const char *output, int most_saves, struct hone_error *err) {
    struct watch watch = {.most = most_saves};
    memset(err, 0, sizeof *err);
    bool ok = hone_job_open(&watch.job, "train", err) && hone_job_set(watch.job, "output", output, err) &&
              hone_job_set(watch.job, "data", scene->data, err) &&
              hone_job_set(watch.job, "device", scene->device, err);
    for (size_t i = 0; ok && i < sizeof settings / sizeof *settings; i++)
        ok = hone_job_set(watch.job, settings[i][0], settings[i][1], err);
    if (ok) hone_job_on_event(watch.job, on_event, &watch);
    ok = ok && hone_job_run(watch.job, err);
    hone_job_close(&watch.job);
    return ok;
}

static void copy_tree(const char *from, const char *to) {
    struct error err;
    struct fs_list list;
    struct buf bytes = {0};
    assert_ok(fs_make_directories(to, &err) && fs_list_open(&list, from, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        char *source = fs_join(from, list.names[i]), *copy = fs_join(to, list.names[i]);
        buf_clear(&bytes);
        if (fs_kind_of(source) == FS_DIRECTORY)
            copy_tree(source, copy);
        else
            assert_ok(fs_read(source, 0, &bytes, &err) && fs_write_atomic(copy, bytes.data, bytes.size, &err),
                      &err);
        mem_free(source);
        mem_free(copy);
    }
    buf_release(&bytes);
    fs_list_close(&list);
}

/* The state that a fault meets: nothing, or a run that goes on. */
static void prepare(const struct scene *scene, bool begun) {
    struct error err;
    assert_ok(fs_remove_tree(scene->output, &err), &err);
    if (begun) copy_tree(scene->begun, scene->output);
}

/* ---- comparing ---- */

static void read_result(const struct scene *scene, const char *name, struct buf *out) {
    struct error err;
    char *path = fs_join(scene->output, name);
    buf_clear(out);
    assert_ok(fs_read(path, 0, out, &err), &err);
    mem_free(path);
}

static void check_results(const struct scene *scene, const char *when) {
    struct buf found = {0};
    for (size_t i = 0; i < result_count; i++) {
        const struct buf *expected = &scene->expected[i];
        read_result(scene, results[i], &found);
        if (found.size != expected->size || memcmp(found.data, expected->data, found.size))
            fail_msg("%s: %s is not that of an undisturbed run", when, results[i]);
    }
    buf_release(&found);
}

/* The result has its name only when it is whole. */
static void check_whole(const struct scene *scene, const char *when) {
    char *adapter = fs_join(scene->output, "adapter");
    if (fs_kind_of(adapter) != FS_NOTHING) check_results(scene, when);
    mem_free(adapter);
}

static void open_scene(struct scene *scene, const char *device) {
    struct hone_error err;
    struct error cause;
    *scene = (struct scene){.device = device, .root = test_directory()};
    scene->data = fs_join(scene->root, "rows.jsonl");
    scene->output = fs_join(scene->root, "run");
    scene->begun = fs_join(scene->root, "begun");
    assert_ok(fs_write_atomic(scene->data, rows, sizeof rows - 1, &cause), &cause);
    if (!train(scene, scene->output, 0, &err)) fail_msg("%s: %s: %s", err.where, err.what, err.why);
    if (train(scene, scene->begun, 1, &err) || err.code != HONE_INTERRUPTED)
        fail_msg("the run did not stop: %s: %s", err.where, err.what);
    for (size_t i = 0; i < result_count; i++) read_result(scene, results[i], &scene->expected[i]);
}

static void close_scene(struct scene *scene) {
    for (size_t i = 0; i < result_count; i++) buf_release(&scene->expected[i]);
    mem_free(scene->data);
    mem_free(scene->output);
    mem_free(scene->begun);
    test_remove_directory(scene->root);
}

/* ---- faults ---- */

struct countdown {
    long left;
    bool hit;
    char what[300];
};

static int fail_memory(void *user, size_t size) {
    struct countdown *count = user;
    if (count->left-- != 0) return 0;
    snprintf(count->what, sizeof count->what, "%zu bytes", size);
    return count->hit = true;
}

static int fail_file(void *user, const char *call, const char *path) {
    static const int numbers[] = {EIO, ENOSPC, EACCES};
    struct countdown *count = user;
    if (count->left-- != 0) return 0;
    snprintf(count->what, sizeof count->what, "%s of %s", call, path);
    count->hit = true;
    return numbers[strlen(call) % 3];
}

static void set_memory_fault(struct countdown *count) { mem_set_fault(count ? fail_memory : NULL, count); }
static void set_file_fault(struct countdown *count) { fs_set_fault(count ? fail_file : NULL, count); }

static const struct kind {
    const char *name;
    void (*set)(struct countdown *count); /* NULL: off */
    enum hone_code allowed[2];            /* what the run may end with */
} memory = {"request for memory", set_memory_fault, {HONE_MEMORY, HONE_MEMORY}},
  file = {"file operation", set_file_fault, {HONE_INPUT, HONE_DISK}};

/* ---- the tests ---- */

static bool train_failing(const struct scene *scene, const struct kind *kind, struct countdown *count,
                          struct hone_error *err) {
    kind->set(count);
    bool ok = train(scene, scene->output, 0, err);
    kind->set(NULL);
    return ok;
}

static void try_place(const struct scene *scene, const struct kind *kind, bool begun, long k) {
    struct countdown count = {.left = k};
    struct hone_error err;
    char when[400];
    prepare(scene, begun);
    bool ok = train_failing(scene, kind, &count, &err);
    snprintf(when, sizeof when, "%s %ld (%s)", kind->name, k, count.hit ? count.what : "never");
    if (!ok && err.code != kind->allowed[0] && err.code != kind->allowed[1])
        fail_msg("%s: %s: %s: %s: %s", when, hone_code_name(err.code), err.where, err.what, err.why);
    if (!ok && (!count.hit || !err.where[0] || !err.what[0])) fail_msg("%s: %s", when, err.what);
    if (ok)
        check_results(scene, when);
    else
        check_whole(scene, when);
    if (!ok && fs_kind_of(scene->output) != FS_NOTHING) {
        if (!train(scene, scene->output, 0, &err))
            fail_msg("%s: it does not go on: %s: %s: %s", when, err.where, err.what, err.why);
        check_results(scene, when);
    }
}

static long count_places(const struct scene *scene, const struct kind *kind, bool begun) {
    struct countdown count = {.left = LONG_MAX};
    struct hone_error err;
    prepare(scene, begun);
    if (!train_failing(scene, kind, &count, &err)) fail_msg("%s: %s", err.where, err.what);
    return LONG_MAX - count.left;
}

/* `thin`: of the places behind the first, only one in so many of those that would be tried. */
static bool is_tried(long k, long places, long thin) {
    const char *every = getenv("HONE_TEST_LONG");
    uint32_t bits[4];
    if (k < first / thin) return true;
    if (every) return k % (thin * strtol(every, NULL, 10)) == 0;
    philox(7, (uint32_t[4]){(uint32_t)k, 0, 0, 0}, bits);
    return bits[0] % places < sample / thin;
}

static void each_place_may_fail(const char *device, const struct kind *kind, bool begun, long thin) {
    struct scene scene;
    open_scene(&scene, device);
    long places = count_places(&scene, kind, begun), tried = 0;
    assert_true(places > first); /* the hook was really asked */
    for (long k = 0; k < places; k++) {
        if (!is_tried(k, places, thin)) continue;
        try_place(&scene, kind, begun, k);
        tried++;
    }
    print_message("%ld of %ld places tried\n", tried, places);
    close_scene(&scene);
}

static void a_run_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail("ref", &memory, false, 1);
}

static void a_resume_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail("ref", &memory, true, 1);
}

/* It measures itself, which takes long: fewer places. */
static void a_run_on_the_cpu_device_whose_memory_fails(void **state) {
    (void)state;
    each_place_may_fail("cpu", &memory, false, 10);
}

static void a_run_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail("ref", &file, false, 1);
}

static void a_resume_whose_files_fail(void **state) {
    (void)state;
    each_place_may_fail("ref", &file, true, 1);
}

/* ---- a disk that fills up, and is freed ---- */

struct full_disk {
    const char *path; /* what is below cannot be written */
    int refused;
};

static int fail_below(void *user, const char *call, const char *path) {
    struct full_disk *disk = user;
    bool writes = !strcmp(call, "write") || !strcmp(call, "fsync");
    if (!writes || !strstr(path, disk->path)) return 0;
    disk->refused++;
    return ENOSPC;
}

static bool train_on_full_disk(const struct scene *scene, struct full_disk *disk, struct hone_error *err) {
    prepare(scene, false);
    fs_set_fault(fail_below, disk);
    bool ok = train(scene, scene->output, 0, err);
    fs_set_fault(NULL, NULL);
    assert_true(disk->refused > 0);
    return ok;
}

static int count_events(const struct scene *scene, const char *name) {
    struct buf log = {0};
    struct error err;
    char *path = fs_join(scene->output, "events.jsonl");
    int count = 0;
    assert_ok(fs_read(path, 0, &log, &err), &err);
    for (const char *at = log.data; (at = strstr(at, name)); at++) count++;
    mem_free(path);
    buf_release(&log);
    return count;
}

static void a_save_that_fails_on_the_way_is_told_and_made_up_for(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    open_scene(&scene, "ref");
    struct full_disk disk = {.path = "checkpoints/step-00000001"};
    if (!train_on_full_disk(&scene, &disk, &err)) fail_msg("%s: %s", err.where, err.what);
    check_results(&scene, "after a save that failed");
    assert_int_equal(count_events(&scene, "\"event\":\"save_failed\""), 1);
    assert_int_equal(count_events(&scene, "\"event\":\"checkpoint\""), 2);
    close_scene(&scene);
}

static void a_last_save_that_fails_is_exit_4_and_resumable(void **state) {
    (void)state;
    struct scene scene;
    struct hone_error err;
    open_scene(&scene, "ref");
    struct full_disk disk = {.path = "checkpoints/"};
    assert_false(train_on_full_disk(&scene, &disk, &err));
    assert_int_equal(hone_exit_status(err.code), 4);
    assert_non_null(strstr(err.fix, "--resume"));
    assert_int_equal(count_events(&scene, "\"event\":\"save_failed\""), 2);
    if (!train(&scene, scene.output, 0, &err)) fail_msg("%s: %s", err.where, err.what);
    check_results(&scene, "resumed when the disk had room again");
    close_scene(&scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_whose_memory_fails),
        cmocka_unit_test(a_resume_whose_memory_fails),
        cmocka_unit_test(a_run_on_the_cpu_device_whose_memory_fails),
        cmocka_unit_test(a_run_whose_files_fail),
        cmocka_unit_test(a_resume_whose_files_fail),
        cmocka_unit_test(a_save_that_fails_on_the_way_is_told_and_made_up_for),
        cmocka_unit_test(a_last_save_that_fails_is_exit_4_and_resumable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
