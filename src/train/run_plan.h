/* The plan of a run: how many tokens a micro-batch holds, what is recomputed, whether decoded weights are
 * kept, and every byte by class; made before anything is allocated. */
#ifndef HONE_TRAIN_RUN_PLAN_H
#define HONE_TRAIN_RUN_PLAN_H

#include "score/engine.h"
#include "train/inputs.h"

struct run_plan {
    char method[16]; /* as the setting says it */
    enum dtype compute;
    bool decoded;
    enum graph_keep keep;
    int layers;         /* that are kept so; 0: all */
    int span;           /* layers that are computed again together */
    int64_t piece_rows; /* 0: all tokens at once */
    int64_t micro_batch_tokens, segments;
    /* Bytes; peak is the sum of the first eight. On a device with memory of its own it is of that device:
     * process is then 0, and host has it; elsewhere context is. */
    uint64_t weights, adapter, gradient, optimizer, activation, workspace, process, context, peak;
    uint64_t mapped, host, offloaded;
    uint64_t recorded; /* of context: launches that the device keeps for counts that come again */
    uint64_t start;    /* what making the adapter's start takes meanwhile; counted in process where it is more
                          than a copy for saving */
    double flops, seconds;             /* of the whole run */
    double update_seconds;             /* of all updates, in `seconds` */
    double start_seconds;              /* of making the adapter's start, in `seconds` */
    double passes, evaluations;        /* over the training data; over what is held out */
    int64_t steps, tokens, supervised; /* of the whole run */
    int64_t parameters;                /* trained numbers */
};

/* A run that can start: engine and the three programs, planned. */
struct run_programs {
    struct engine engine;
    struct engine_program train, update, score;
};

/* Chooses and resolves the recipe's compute, micro-batch-tokens, piece-rows, recompute with its layers and
 * span, and frozen-weights. The programs are planned, not compiled. Errors: ERROR_MEMORY naming what would
 * fit. */
bool run_plan_build(struct run_plan *out, struct run_programs *programs, struct recipe *recipe,
                    const struct inputs *inputs, const struct device_ops *ops, struct device *device,
                    struct error *err);
/* After the devices of a shared run have come together: the context is what it is found to be. */
bool run_plan_joined(struct run_plan *plan, const struct run_programs *programs, const struct recipe *recipe,
                     struct error *err);
/* The same run with another micro-batch over the same store: plans and compiles train and score anew. Their
 * arena must not grow. After a failure the run cannot go on. */
bool run_plan_resize(struct run_plan *plan, struct run_programs *programs, const struct recipe *recipe,
                     int64_t tokens, struct error *err);
/* The peak of the run in one of its ways; 0 where it cannot run so. */
struct run_choice;
uint64_t run_plan_peak(const struct run_choice *choice, const struct recipe *recipe,
                       const struct inputs *inputs, enum dtype compute, const struct device_ops *ops,
                       struct device *device);
/* Tokens of the longest example: a micro-batch holds at least these. */
int64_t run_plan_longest(const struct inputs *inputs);
/* The program that needs the largest arena. */
const struct engine_program *run_programs_largest(const struct run_programs *programs);
void run_programs_release(struct run_programs *programs);

/* Steps from one evaluation or save to the next where none are given: ten times a run. */
int64_t run_plan_interval(int64_t steps);
/* Tokens, targets and segments of all examples together. */
void run_plan_counts(const struct examples *examples, int64_t counts[COUNT_KINDS]);

/* The plan event's fields; `every`: all operations in its profile (run_profile.h). */
bool run_plan_json(const struct run_plan *plan, const struct run_programs *programs, bool every, json_t **out,
                   struct error *err);

#endif
