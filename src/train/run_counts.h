/* The counts of the micro-batches that a run will compute, in its order, from the lengths of its examples
 * alone: for what a device makes once for counts that come again (device_ops.recorded_bytes). */
#ifndef HONE_TRAIN_RUN_COUNTS_H
#define HONE_TRAIN_RUN_COUNTS_H

#include "train/run_plan.h"

struct run_counts {
    struct counts *items;
    size_t count;
};

enum { run_counts_most = 20000 }; /* micro-batches of a run that are looked at */

/* Of the first `steps` steps of this process, `tokens` to a micro-batch. */
bool run_counts_train(struct run_counts *out, const struct recipe *recipe, const struct examples *examples,
                      int64_t tokens, int64_t steps, struct error *err);
/* Of one evaluation of what is held out. */
bool run_counts_score(struct run_counts *out, const struct recipe *recipe, const struct examples *examples,
                      int64_t tokens, int64_t segments, struct error *err);
void run_counts_release(struct run_counts *counts);

/* Bytes that the device keeps of its own memory for counts that come again in the whole run. */
bool run_counts_recorded(uint64_t *out, const struct run_plan *plan, const struct run_programs *programs,
                         const struct recipe *recipe, const struct inputs *inputs, struct error *err);

#endif
