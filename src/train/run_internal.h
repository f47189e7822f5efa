/* Closed to other folders: the parts of a run between trainer.c (the loop) and run.c (its beginning and end).
 */
#ifndef HONE_TRAIN_RUN_INTERNAL_H
#define HONE_TRAIN_RUN_INTERNAL_H

#include "score/score.h"
#include "text/pack.h"
#include "train/checkpoint.h"
#include "train/events.h"
#include "train/run_plan.h"
#include "train/trainer.h"

struct run {
    struct recipe *recipe;
    const struct trainer_host *host;
    struct recipe stored; /* of the run that is resumed */
    bool resumed;
    json_t *changed;  /* what a resume changed, strings */
    json_t *warnings; /* told before events.jsonl was open, strings */
    struct inputs inputs;
    const struct device_ops *ops;
    struct device *device;
    struct run_plan plan;
    struct run_programs programs;
    struct batch batch;
    struct events events;
    bool events_open;
    int lock;
    size_t standing; /* bytes of the output's path that were there before */
    bool made;       /* what stands in the output directory is this run's, from its first byte */
    struct progress progress;
    int64_t saved_at; /* step; -1: never */
    uint32_t *order;
    uint64_t highest; /* memory, as peak_bytes counts it */
    struct patience {
        double begun, expected; /* of the step under way: when, and seconds that it will take */
        double asked;           /* when a stop was first seen in it; 0: not yet */
        double per_token;       /* seconds, of the last step; 0: none yet */
    } patience;
};

/* Reads everything; writes nothing. `planning`: no output directory is asked for. */
bool run_read(struct run *run, struct recipe *recipe, const struct trainer_host *host, bool planning,
              struct error *err);
/* Plans what was read. */
bool run_make_plan(struct run *run, struct error *err);
/* Plans it once more under another recipe of the same model and data; what was planned and started is
 * released.
 */
bool run_plan_anew(struct run *run, struct recipe *recipe, struct error *err);
/* Makes the directory, locks it, starts the engine, loads where it left off, writes recipe.yaml. On failure
 * nothing of a new run is left. */
bool run_begin(struct run *run, struct error *err);
/* Allocates what the plan says and compiles the programs. */
bool run_start_engine(struct run *run, struct error *err);
/* What there was to warn about before events.jsonl was open. */
bool run_tell_warnings(const struct run *run, struct events *events, struct error *err);
/* Betters plan.seconds by running a little; the engine has been started, its state stays as it is. */
bool run_rehearse(struct run *run, struct error *err);
/* OUTPUT/adapter, complete or not at all. */
bool run_write_result(struct run *run, struct error *err);
void run_close(struct run *run);
void run_sample_memory(struct run *run);

#endif
