/* Closed to other folders: the parts of a run between trainer.c (the loop) and run.c (its beginning and end).
 */
#ifndef HONE_TRAIN_RUN_INTERNAL_H
#define HONE_TRAIN_RUN_INTERNAL_H

#include "base/group.h"
#include "device/timeline.h"
#include "score/finite.h"
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
    char device_name[48]; /* of this process */
    struct group *group;  /* the processes that share the run; NULL: it is alone */
    bool device_sums;     /* their devices add up among themselves */
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
    struct best {
        double loss;  /* NAN: none */
        int64_t step; /* 0: none */
    } kept;           /* the best evaluation whose checkpoint stands */
    bool halted;      /* by --nan-policy, with a state that is good */
    uint32_t *order;
    float *hyper;     /* INPUT_HYPER */
    uint64_t highest; /* memory, as peak_bytes counts it */
    uint64_t mapped;  /* the most pages of files that were mapped at a time */
    struct {
        uint64_t reserve; /* bytes that are left to other programs; 0: nobody looks */
        bool told;        /* that no smaller micro-batch would help */
    } watch;
    struct run_trace {
        struct timeline timeline;
        struct fs_appender file;
        bool open;
        double begun;                              /* of the first step traced, seconds of clock_seconds */
        int64_t steps;                             /* done so far */
        double seconds[OP_COUNT], flops[OP_COUNT]; /* of each operation */
    } trace;
    struct patience {
        double begun, expected; /* of the step under way: when, and seconds that it will take */
        double asked;           /* when a stop was first seen in it; 0: not yet */
        double per_token;       /* seconds, of the last step; 0: none yet */
    } patience;
};

/* One step: what it takes, and what came of it. */
struct step {
    struct pack_layout layout;
    size_t count, tokens, supervised; /* examples and tokens */
    float weight;                     /* of a target: -1 / supervised */
    double rate, loss;
    float scale; /* of its loss, a power of two: 1 but in f16 */
    float norm;  /* of its gradient; not finite: nothing was changed */
    float state; /* after the update; not finite: what is trained is lost */
};

/* Takes the next step, and tells of it. Errors: ERROR_INTERRUPTED when it was abandoned. */
bool run_step(struct run *run, struct error *err);
/* Its examples count as used, whatever came of them. */
void step_count(struct run *run, const struct step *step);
/* Does the micro-batches again from the same bits, looking for the first number that is not finite. */
bool step_replay(struct run *run, const struct step *step, struct nonfinite *found, struct error *err);
/* What is found where each number is finite and `norm`, the root of the sum of their squares, is not. */
struct nonfinite nonfinite_norm(const char *value, double norm);
/* What --nan-policy says of a step whose loss, gradient or result is not finite. False: the run ends. */
bool run_nonfinite(struct run *run, const struct step *step, struct error *err);
/* Back to a good checkpoint, further each time that the same step is not passed, or to the start. */
bool run_go_back(struct run *run, struct error *err);

/* Looks at what other programs leave of the memory (watch.c): from here on; before each step. */
void run_watch_begin(struct run *run);
bool run_watch(struct run *run, struct error *err);
bool run_write_recipe(struct run *run, struct error *err);
bool run_out_of_patience(const struct run *run); /* early stopping: it trains no further */

/* A run that several processes share (ranks.c); each of these is called by all of them, and does nothing in a
 * run that is alone. run_join waits until all are there, for OUTPUT is made. */
bool run_join(struct run *run, struct error *err);
/* The clock of rank 0 for all, before the rows are rendered by it: these may show the time, and all must have
 * the same rows. `user`: the run, for inputs_open. */
bool run_agree_clock(void *user, double *clock, struct error *err);
int run_ranks(const struct run *run);
bool run_first(const struct run *run); /* alone, or rank 0: who writes */
/* Whether one of them says so. */
bool run_any(struct run *run, bool mine, bool *any, struct error *err);
/* After what each did on its own: false where one failed. After what the first did alone: what came of it. */
bool run_all_well(struct run *run, bool ok, struct error *err);
bool run_outcome(struct run *run, bool ok, struct error *err);
/* The examples of a step that are this process's, in place of all of them. */
bool run_share(const struct run *run, const uint32_t **chosen, size_t *count, struct arena *arena,
               struct error *err);
/* Loss and gradients, or the parts of a score, become the sums of all. */
bool run_sum(struct run *run, struct error *err);
bool run_sum_score(struct run *run, struct score *score, struct error *err);

/* --trace (trace.c). OUTPUT/trace.json is begun; an earlier one is replaced. */
bool run_trace_begin(struct run *run, struct error *err);
/* Where the step under way is traced: what to bind. NULL: it is not. */
struct timeline *run_trace_timeline(struct run *run);
/* A program has run: what is on the timeline is written, under this name. */
bool run_trace_pass(struct run *run, const char *name, struct error *err);
/* The step is done; after the last one that was asked for, or at the end of the run, the file is whole and an
 * event tells of it. */
bool run_trace_step(struct run *run, const struct step *step, struct error *err);
bool run_trace_end(struct run *run, struct error *err);
void run_trace_close(struct run *run);

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
/* What the result is called in the output directory: "adapter" or "model". */
const char *run_result_name(const struct run *run);
/* OUTPUT/adapter or OUTPUT/model, complete or not at all, from the store; `reached`: where that state was. */
bool run_write_result(struct run *run, const struct progress *reached, struct error *err);
void run_close(struct run *run);
void run_sample_memory(struct run *run);

#endif
