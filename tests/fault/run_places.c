#include "fault/run_places.h"

#include "base/fs.h"

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

void run_places_fail(const struct scene_run *run, const char *device, const struct fault_kind *kind,
                     bool begun, struct place_share share) {
    struct trial trial = {.begun = begun};
    scene_open(&trial.scene, run, device);
    place_each(kind, share, train, &trial, prepare, try_place);
    scene_close(&trial.scene);
}
