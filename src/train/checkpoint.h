/* Checkpoints: everything that the next step depends on.
 *
 *   checkpoints/step-00000100/adapter/             the adapter, PEFT layout, f32; or with --method full
 *                             model/               the model, what is trained of it as f32
 *                             optimizer.safetensors the optimizer's state, named as in model/optimizer.c, f32
 *                             state.json            counters
 *                             MANIFEST              {"version", "files": {path: {"bytes","digest"}}}, written
 * last
 *
 * A checkpoint is made beside its name and renamed when it is whole and synced. A reader takes the newest one
 * whose digests hold, and says what it skipped. */
#ifndef HONE_TRAIN_CHECKPOINT_H
#define HONE_TRAIN_CHECKPOINT_H

#include "base/digest.h"
#include "score/engine.h"

struct progress {
    struct digest data;     /* of the rows that it is a place in; "": not known */
    int64_t seed;           /* of their order */
    int64_t step;           /* optimizer steps, with those that were skipped */
    int64_t skipped;        /* of them, for numbers that are not finite; the device does not count these */
    int64_t skipped_in_row; /* the last so many */
    int64_t rollbacks;      /* each halves the learning rate */
    int64_t failed_step;    /* the last step that a rollback was for and that was not passed since; 0: none */
    int64_t tries;          /* rollbacks for it */
    int64_t first_saved;    /* the step of the first checkpoint that was not a stop's; 0: none */
    int64_t stopped;        /* 1: saved because the run was stopped, at a step at which none is due */
    int64_t epoch, cursor;  /* where the next step begins: examples of the epoch already used */
    int64_t tokens;         /* trained so far */
    double loss;            /* of the last step */
    double eval_loss, best_loss; /* NAN: never measured */
    int64_t best_step;           /* 0: none */
    int64_t evaluated;           /* the step after which eval_loss was measured; 0: never */
    int64_t stale;               /* evaluations since one was an improvement */
    int64_t micro_batch_tokens;  /* of the last step's; 0: not told */
    double seconds;              /* spent training so far */
};

/* Writes one; `path` gets its place relative to the run's directory, "checkpoints/step-00000100". */
bool checkpoint_save(struct engine *engine, const char *run, const struct progress *progress,
                     const char *base_model, char path[64], struct error *err);
/* After a save of `now`: removes all but the newest `keep` and the best one, what broken saves left, earlier
 * ones of a stop, which do not count, and those of later steps: a resume or a rollback went back behind them,
 * and they must not pass for the newest. */
bool checkpoint_prune(const char *run, int64_t keep, const struct progress *now, struct error *err);
/* Loads the newest good one into the store. *found false: there is none. `skipped` is told each one that is
 * damaged, or of other data or another seed than `out` says before. A run whose checkpoints are all so is an
 * error. */
bool checkpoint_load(struct engine *engine, const char *run, struct progress *out, bool *found,
                     void (*skipped)(void *user, const char *message), void *user, struct error *err);
/* For a rollback from `failed`: of those that are not later and not of a stop, so that a run goes back to the
 * same place however often it was stopped, the newest at the first try, and one further back at each later
 * one, as far as they stand; where all of them are damaged, the newest of a stop. *found false: to the start,
 * which is the last where none was removed yet. */
bool checkpoint_go_back(struct engine *engine, const char *run, const struct progress *failed,
                        struct progress *out, bool *found, void (*skipped)(void *user, const char *message),
                        void *user, struct error *err);
/* The same as checkpoint_load of one step alone. */
bool checkpoint_load_step(struct engine *engine, const char *run, int64_t step, struct progress *out,
                          struct error *err);
/* Whether its digests hold. Errors: ERROR_INPUT. */
bool checkpoint_check(const struct engine *engine, const char *run, int64_t step, struct error *err);
/* Bytes that one takes on disk, and that the result of the run does; no less. */
uint64_t checkpoint_bytes(const struct engine *engine);
uint64_t checkpoint_result_bytes(const struct engine *engine);
/* Those that stand in a run's directory, damaged ones too. */
bool checkpoint_count(const char *run, uint64_t *out, struct error *err);

#endif
