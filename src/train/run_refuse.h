/* Runs that do not start: those that the memory is too small for, with the figure of what would fit, and
 * those that ask for more layers than there are. */
#ifndef HONE_TRAIN_RUN_REFUSE_H
#define HONE_TRAIN_RUN_REFUSE_H

#include "train/run_choice.h"
#include "train/run_plan.h"

/* Always false, with ERROR_MEMORY. `smallest`: of all plans; `last`: the choice that takes the least;
 * `source` says whose bound `budget` is. */
bool run_refuse(const struct run_plan *smallest, const struct run_choice *last, uint64_t budget,
                const char *source, const struct recipe *recipe, const struct inputs *inputs,
                enum dtype compute, const struct device_ops *ops, struct device *device, struct error *err);

/* Refuses to compute more layers again than the model has, or more of them together. */
bool run_check_layers(const struct recipe *recipe, int64_t layers, struct error *err);

#endif
