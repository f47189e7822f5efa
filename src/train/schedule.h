/* The learning rate of a step, as a table of schedules. */
#ifndef HONE_TRAIN_SCHEDULE_H
#define HONE_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "train/recipe.h"

/* Steps are counted from 1 to `total`. In the first w = ceil(warmup · total) steps the rate is peak · step /
 * w. After them, with f = (step - 1 - w) / (total - w): constant: peak; linear: peak · (1 - f); cosine: peak
 * · (1 + cos πf) / 2. */
double schedule_rate(enum schedule schedule, double peak, double warmup, int64_t step, int64_t total);

#endif
