#include "fault/scene.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

static const char rows[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
    "\"Yo.\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
    "\"b\"}]}\n"
    "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", \"content\": \"1\"},"
    " {\"role\": \"assistant\", \"content\": \"2 3\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"é\"}, {\"role\": \"assistant\", \"content\": "
    "\"è\"}]}\n";

struct ear {
    scene_listener listener;
    void *user;
    struct hone_job *job;
};

static void on_event(void *user, const char *line) {
    const struct ear *ear = user;
    ear->listener(ear->user, ear->job, line);
}

bool scene_job(const char *name, const char *const (*settings)[2], struct hone_error *err) {
    struct hone_job *job = NULL;
    memset(err, 0, sizeof *err);
    bool ok = hone_job_open(&job, name, err);
    for (; ok && (*settings)[0]; settings++) ok = hone_job_set(job, (*settings)[0], (*settings)[1], err);
    ok = ok && hone_job_run(job, err);
    hone_job_close(&job);
    return ok;
}

bool scene_train(const struct scene *scene, const char *output, scene_listener listener, void *user,
                 struct hone_error *err) {
    struct ear ear = {.listener = listener, .user = user};
    memset(err, 0, sizeof *err);
    bool ok = hone_job_open(&ear.job, "train", err) && hone_job_set(ear.job, "output", output, err) &&
              hone_job_set(ear.job, "model", scene->model, err) &&
              hone_job_set(ear.job, "data", scene->data, err) &&
              hone_job_set(ear.job, "device", scene->device, err);
    for (size_t i = 0; ok && scene->run->settings[i][0]; i++)
        ok = hone_job_set(ear.job, scene->run->settings[i][0], scene->run->settings[i][1], err);
    if (ok && listener) hone_job_on_event(ear.job, on_event, &ear);
    ok = ok && hone_job_run(ear.job, err);
    hone_job_close(&ear.job);
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

void scene_prepare(const struct scene *scene, bool begun) {
    struct error err;
    assert_ok(fs_remove_tree(scene->output, &err), &err);
    if (begun) copy_tree(scene->begun, scene->output);
}

/* ---- comparing ---- */

static void read_result(const char *output, const char *name, struct buf *out) {
    struct error err;
    char *path = fs_join(output, name);
    buf_clear(out);
    assert_ok(fs_read(path, 0, out, &err), &err);
    mem_free(path);
}

void scene_check(const struct scene *scene, const char *output, const char *when) {
    struct buf found = {0};
    for (size_t i = 0; scene->run->results[i]; i++) {
        const struct buf *expected = &scene->expected[i];
        read_result(output, scene->run->results[i], &found);
        if (found.size != expected->size || memcmp(found.data, expected->data, found.size))
            fail_msg("%s: %s is not that of an undisturbed run", when, scene->run->results[i]);
    }
    buf_release(&found);
}

void scene_check_whole(const struct scene *scene, const char *output, const char *when) {
    static const char *const names[] = {"adapter", "model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *result = fs_join(output, names[i]);
        if (fs_kind_of(result) != FS_NOTHING) scene_check(scene, output, when);
        mem_free(result);
    }
}

int scene_count_events(const char *output, const char *name) {
    struct buf log = {0};
    int count = 0;
    read_result(output, "events.jsonl", &log);
    for (const char *at = log.data; (at = strstr(at, name)); at++) count++;
    buf_release(&log);
    return count;
}

/* ---- opening ---- */

static void stop_after_save(void *user, struct hone_job *job, const char *event) {
    (void)user;
    if (strstr(event, "\"event\":\"checkpoint\"")) hone_job_cancel(job);
}

static const char golden_model[] = TEST_DATA "/golden/data/qwen2";

static char *make_model(const struct scene *scene) {
    struct hone_error err;
    if (!scene->run->type) return mem_strdup(golden_model);
    char *path = fs_join(scene->root, "model");
    const char *const settings[][2] = {{"model", golden_model},
                                       {"type", scene->run->type},
                                       {"to", scene->run->container},
                                       {"output", path},
                                       {NULL, NULL}};
    if (!scene_job("convert", settings, &err)) fail_msg("%s: %s: %s", err.where, err.what, err.why);
    return path;
}

void scene_open(struct scene *scene, const struct scene_run *run, const char *device) {
    struct hone_error err;
    struct error cause;
    *scene = (struct scene){.run = run, .device = device, .root = test_directory()};
    scene->data = fs_join(scene->root, "rows.jsonl");
    scene->output = fs_join(scene->root, "run");
    scene->begun = fs_join(scene->root, "begun");
    assert_ok(fs_write_atomic(scene->data, rows, sizeof rows - 1, &cause), &cause);
    scene->model = make_model(scene);
    if (!scene_train(scene, scene->output, NULL, NULL, &err))
        fail_msg("%s: %s: %s", err.where, err.what, err.why);
    if (scene_train(scene, scene->begun, stop_after_save, NULL, &err) || err.code != HONE_INTERRUPTED)
        fail_msg("the run did not stop: %s: %s", err.where, err.what);
    for (size_t i = 0; run->results[i]; i++) read_result(scene->output, run->results[i], &scene->expected[i]);
}

void scene_close(struct scene *scene) {
    for (size_t i = 0; scene->run->results[i]; i++) buf_release(&scene->expected[i]);
    mem_free(scene->data);
    mem_free(scene->model);
    mem_free(scene->output);
    mem_free(scene->begun);
    test_remove_directory(scene->root);
}
