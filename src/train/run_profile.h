/* Live bytes over one step, from the lifetimes that the plan placed. */
#ifndef HONE_TRAIN_RUN_PROFILE_H
#define HONE_TRAIN_RUN_PROFILE_H

#include "train/run_plan.h"

/* {"operations": how many a step has, "backward_from", "update_from": where those phases begin, and columns:
 * "position" (operations before it), "activation_bytes", "workspace_bytes"}. The fullest operation of each of
 * some hundred stretches; `every`: all of them, with "operation" (its name) and "layer" (-1: none). NULL when
 * out of memory. */
json_t *run_profile(const struct run_programs *programs, bool every);

#endif
