/* The learning rate of a step, as a table of schedules. */
#ifndef HONE_TRAIN_SCHEDULE_H
#define HONE_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "train/recipe.h"

/* Steps are counted from 1 to `total`. In the first w = ceil(warmup · total) steps the rate is peak · step /
 * w. After them it is peak · (m + (1 - m) · shape), m the recipe's least share of the peak, and the shape by
 * schedule (schedule.c). From step w + 1 on these are the values of transformers' get_*_schedule; its
 * warm-up is one step later, at (step - 1) / w, so that its first step trains nothing. */
double schedule_rate(const struct recipe *recipe, int64_t step, int64_t total);

#endif
