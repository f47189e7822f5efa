/* Which checkpoints stay. Directories alone tell, so there is no model here. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "train/checkpoint.h"

enum { most = 8 };

static char *checkpoint_path(const char *run, const char *name) {
    char *folder = fs_join(run, "checkpoints"), *path = fs_join(folder, name);
    mem_free(folder);
    return path;
}

struct scene {
    const char *what;
    const char *names[most];
    int64_t now, best, keep;
    const char *left[most]; /* sorted by name */
};

static const struct scene scenes[] = {
    {.what = "the newest two",
     .names = {"step-00000001", "step-00000002", "step-00000010", "step-00000009"},
     .now = 10,
     .keep = 2,
     .left = {"step-00000009", "step-00000010"}},
    {.what = "and the best one",
     .names = {"step-00000001", "step-00000002", "step-00000003"},
     .now = 3,
     .best = 1,
     .keep = 1,
     .left = {"step-00000001", "step-00000003"}},
    {.what = "none of later steps, nothing that a save left half made",
     .names = {"step-00000001", "step-00000002", "step-00000003", "step-00000002.partial", "notes"},
     .now = 2,
     .keep = 1,
     .left = {"notes", "step-00000002"}},
    {.what = "names with more digits are newer",
     .names = {"step-99999998", "step-99999999", "step-100000000", "step-100000001"},
     .now = 100000001,
     .keep = 2,
     .left = {"step-100000000", "step-100000001"}},
};

static void check_left(const struct scene *scene, const char *run) {
    struct error err;
    struct fs_list list;
    char *folder = fs_join(run, "checkpoints");
    size_t wanted = 0;
    assert_ok(fs_list_open(&list, folder, &err), &err);
    while (scene->left[wanted]) wanted++;
    for (size_t i = 0; i < list.count || i < wanted; i++) {
        const char *found = i < list.count ? list.names[i] : "nothing",
                   *want = i < wanted ? scene->left[i] : "nothing";
        if (strcmp(found, want)) fail_msg("%s: %s stands there, not %s", scene->what, found, want);
    }
    fs_list_close(&list);
    mem_free(folder);
}

static void the_newest_ones_stay(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        const struct scene *scene = &scenes[i];
        struct progress now = {.step = scene->now, .best_step = scene->best};
        struct error err;
        char *run = test_directory();
        for (size_t n = 0; scene->names[n]; n++) {
            char *path = checkpoint_path(run, scene->names[n]);
            assert_ok(fs_make_directories(path, &err), &err);
            mem_free(path);
        }
        assert_ok(checkpoint_prune(run, scene->keep, &now, &err), &err);
        check_left(scene, run);
        test_remove_directory(run);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_newest_ones_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
