/* What the recipe says of an update, as the numbers that the operation reads. */
#ifndef HONE_TRAIN_UPDATE_H
#define HONE_TRAIN_UPDATE_H

#include "op/optimizer.h"
#include "train/recipe.h"

/* The row of INPUT_HYPER for a step with this learning rate. */
void update_hyper(const struct recipe *recipe, double rate, float out[HYPER_COLUMNS]);
/* Refuses numbers that do not go together. Errors: ERROR_USAGE. */
bool update_check(const struct recipe *recipe, struct error *err);

#endif
