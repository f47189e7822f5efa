/* `hone convert` and `hone report` in which the k-th request for memory or the k-th operation on a file
 * fails, alone or with all that follow: an error that says so and nothing under the final name, or the same
 * bytes as ever. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "fault/places.h"
#include "fault/scene.h"

enum { most_settings = 8, most_files = 3 };

static const struct tool {
    const char *job;
    const char *settings[most_settings][2]; /* "output" besides */
    const char *files[most_files + 1];      /* of the output, when that is a directory */
} to_gguf = {"convert",
             {{"model", TEST_DATA "/golden/data/qwen2"}, {"to", "gguf"}, {"type", "q8_0"}},
             {NULL}},
  to_nf4 = {"convert",
            {{"model", TEST_DATA "/golden/data/qwen2"}, {"to", "safetensors"}, {"type", "nf4"}},
            {"model.safetensors", "config.json", "tokenizer.json"}},
  to_mlx = {"convert",
            {{"model", TEST_DATA "/golden/data/qwen2"}, {"to", "mlx"}, {"type", "mlx-4bit-g32"}},
            {"model.safetensors", "config.json", "tokenizer.json"}},
  from_config = {"convert",
                 {{"config", TEST_DATA "/golden/data/qwen2/config.json"},
                  {"random-weights", NULL},
                  {"to", "gguf"},
                  {"type", "q4_0"}},
                 {NULL}},
  report = {"report", {{NULL, NULL}}, {NULL}};

struct trial {
    const struct tool *tool;
    struct scene scene; /* of the report: whose run it is */
    char *root, *output;
    struct buf expected[most_files + 1];
};

static bool run_tool(void *user, struct hone_error *err) {
    const struct trial *trial = user;
    const char *settings[most_settings + 3][2] = {{NULL, NULL}};
    memcpy(settings, trial->tool->settings, sizeof trial->tool->settings);
    size_t count = 0;
    while (settings[count][0]) count++;
    settings[count][0] = "output";
    settings[count++][1] = trial->output;
    if (trial->tool == &report) {
        settings[count][0] = "run";
        settings[count][1] = trial->scene.output;
    }
    return scene_job(trial->tool->job, (const char *const(*)[2])settings, err);
}

static void remove_output(void *user) {
    const struct trial *trial = user;
    struct error err;
    assert_ok(fs_remove_tree(trial->root, &err) && fs_make_directories(trial->root, &err), &err);
}

static void read_output(const struct trial *trial, size_t index, struct buf *out) {
    struct error err;
    const char *name = trial->tool->files[index];
    char *path = name ? fs_join(trial->output, name) : mem_strdup(trial->output);
    buf_clear(out);
    assert_ok(fs_read(path, 0, out, &err), &err);
    mem_free(path);
}

static size_t file_count(const struct tool *tool) {
    size_t count = 0;
    while (tool->files[count]) count++;
    return count ? count : 1;
}

static void check_output(const struct trial *trial, const char *when) {
    struct buf found = {0};
    for (size_t i = 0; i < file_count(trial->tool); i++) {
        read_output(trial, i, &found);
        if (found.size != trial->expected[i].size || memcmp(found.data, trial->expected[i].data, found.size))
            fail_msg("%s: %s is not what is written undisturbed", when,
                     trial->tool->files[i] ? trial->tool->files[i] : "the output");
    }
    buf_release(&found);
}

/* What could not be removed for the fault's own sake may stand there, under a name that nobody takes for it.
 */
static void check_nothing_left(const struct trial *trial, bool lasting, const char *when) {
    struct fs_list list;
    struct error err;
    assert_ok(fs_list_open(&list, trial->root, &err), &err);
    for (size_t i = 0; i < list.count; i++)
        if (!lasting || !strstr(list.names[i], ".partial"))
            fail_msg("%s: left behind: %s", when, list.names[i]);
    fs_list_close(&list);
}

static void try_place(void *user, const struct fault_kind *kind, long k, bool lasting) {
    const struct trial *trial = user;
    char when[place_text];
    bool ok = place_try(kind, k, lasting, run_tool, user, when);
    /* A report says of a run what it can: a recipe that cannot be read is told on the page. */
    if (ok && trial->tool == &report && kind == &file_fault) return;
    if (ok || fs_kind_of(trial->output) != FS_NOTHING)
        check_output(trial, when); /* an error after the rename: what has the name is whole */
    else
        check_nothing_left(trial, lasting, when);
}

static void each_place_may_fail(const struct tool *tool) {
    static const struct scene_run run = {
        .settings = {{"valid-split", "0.25"}, {"batch-size", "1"}, {"max-steps", "2"}, {"lora-rank", "2"}}};
    struct trial trial = {.tool = tool};
    struct hone_error err;
    scene_open(&trial.scene, &run, "ref");
    trial.root = fs_join(trial.scene.root, "made");
    trial.output = fs_join(trial.root, "output");
    remove_output(&trial);
    if (!run_tool(&trial, &err)) fail_msg("%s: %s: %s", err.where, err.what, err.why);
    for (size_t i = 0; i < file_count(tool); i++) read_output(&trial, i, &trial.expected[i]);
    place_each(&memory_fault, (struct place_share){2, 1}, run_tool, &trial, remove_output, try_place);
    place_each(&file_fault, (struct place_share){1, 1}, run_tool, &trial, remove_output, try_place);
    for (size_t i = 0; i < file_count(tool); i++) buf_release(&trial.expected[i]);
    mem_free(trial.output);
    mem_free(trial.root);
    scene_close(&trial.scene);
}

static void a_conversion_to_gguf_that_fails_leaves_nothing(void **state) {
    (void)state;
    each_place_may_fail(&to_gguf);
}

static void a_conversion_to_nf4_that_fails_leaves_nothing(void **state) {
    (void)state;
    each_place_may_fail(&to_nf4);
}

static void a_conversion_to_mlx_that_fails_leaves_nothing(void **state) {
    (void)state;
    each_place_may_fail(&to_mlx);
}

static void a_drawn_model_that_fails_leaves_nothing(void **state) {
    (void)state;
    each_place_may_fail(&from_config);
}

static void a_report_that_fails_leaves_nothing(void **state) {
    (void)state;
    each_place_may_fail(&report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversion_to_gguf_that_fails_leaves_nothing),
        cmocka_unit_test(a_conversion_to_nf4_that_fails_leaves_nothing),
        cmocka_unit_test(a_conversion_to_mlx_that_fails_leaves_nothing),
        cmocka_unit_test(a_drawn_model_that_fails_leaves_nothing),
        cmocka_unit_test(a_report_that_fails_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
