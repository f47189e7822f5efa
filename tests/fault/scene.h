/* What the tests of faults share: a training run through the public API, what it must leave behind to the
 * bit, and the states in which a fault meets it. */
#ifndef TESTS_FAULT_SCENE_H
#define TESTS_FAULT_SCENE_H

#include <hone/hone.h>
#include <stdbool.h>

#include "base/buf.h"
#include "support/test.h"

enum { scene_most_results = 8, scene_most_settings = 24 };

/* A run: its settings, a value of NULL for a flag, and the files of its output that count. Both lists end
 * with NULL. */
struct scene_run {
    const char *settings[scene_most_settings][2];
    const char *results[scene_most_results + 1];
    const char *type, *container; /* what the model is converted to first; NULL: left as it is */
};

struct scene {
    const struct scene_run *run;
    const char *device;
    char *root, *data, *model, *output;
    char *begun;                             /* a run that was stopped after its first checkpoint */
    struct buf expected[scene_most_results]; /* of a run that nothing disturbs */
};

/* Told each event of a run; may cancel it. */
typedef void (*scene_listener)(void *user, struct hone_job *job, const char *event);

/* Runs a job of the public API by its settings: pairs, a value of NULL for a flag, ended by NULL. */
bool scene_job(const char *name, const char *const (*settings)[2], struct hone_error *err);

void scene_open(struct scene *scene, const struct scene_run *run, const char *device);
void scene_close(struct scene *scene);
bool scene_train(const struct scene *scene, const char *output, scene_listener listener, void *user,
                 struct hone_error *err);
/* The state that a fault meets: nothing, or a run that goes on. */
void scene_prepare(const struct scene *scene, bool begun);

/* Fails unless every result of `output` is that of the undisturbed run; `when` says what came before. */
void scene_check(const struct scene *scene, const char *output, const char *when);
/* The same when there is a result: it has its name only when it is whole. */
void scene_check_whole(const struct scene *scene, const char *output, const char *when);
int scene_count_events(const char *output, const char *name); /* lines of events.jsonl that hold it */

#endif
