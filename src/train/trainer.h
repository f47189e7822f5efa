/* A run from start to end: plan, steps, evaluation, checkpoints, result. */
#ifndef HONE_TRAIN_TRAINER_H
#define HONE_TRAIN_TRAINER_H

#include <stdatomic.h>

#include "train/recipe.h"

struct trainer_host {
    const char *model_path; /* recipe->model, found */
    const char *base_model; /* what the adapter names as its base; no absolute path. NULL: left out */
    const atomic_int *stop; /* nonzero: save and leave with ERROR_INTERRUPTED. May be NULL */
    void (*event)(void *user, const char *line); /* JSON lines as in events.jsonl. May be NULL */
    /* The recipe is resolved; called before the first event. May be NULL. */
    void (*prepared)(void *user, struct recipe *recipe);
    void *user;
    bool profile;                 /* of a plan: all operations, not a sample of them */
    const struct text_list *runs; /* of a comparison: runs whose measured peaks stand beside; may be NULL */
};

/* Trains as the recipe says; *result: the fields of the done event, and "adapter" (relative). */
bool trainer_run(struct recipe *recipe, const struct trainer_host *host, json_t **result, struct error *err);

/* The plan alone: the fields of the plan event. Nothing is written; warnings go to `event`. */
bool trainer_plan(struct recipe *recipe, const struct trainer_host *host, json_t **result, struct error *err);

/* The plans of every method and every way to recompute that the recipe leaves open: {"rows": [fields of the
 * plan event, "fits", "why" where it does not, "measured_peak_bytes" and "run" where a run was made so]}. */
bool trainer_compare(struct recipe *recipe, const struct trainer_host *host, json_t **result,
                     struct error *err);

#endif
