/* A run for which the memory is too small: what would fit is named, with its figure. */
#ifndef HONE_TRAIN_RUN_REFUSE_H
#define HONE_TRAIN_RUN_REFUSE_H

#include "train/run_choice.h"
#include "train/run_plan.h"

/* Always false, with ERROR_MEMORY. `smallest`: of all plans; `last`: the choice that takes the least;
 * `source` says whose bound `budget` is. */
bool run_refuse(const struct run_plan *smallest, const struct run_choice *last, uint64_t budget,
                const char *source, const struct recipe *recipe, const struct inputs *inputs,
                enum dtype compute, const struct device_ops *ops, struct device *device, struct error *err);

#endif
