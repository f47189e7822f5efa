/* What the recipe says of an update, as the numbers that the operation reads. */
#ifndef HONE_TRAIN_UPDATE_H
#define HONE_TRAIN_UPDATE_H

#include "model/groups.h"
#include "train/recipe.h"

/* INPUT_HYPER [groups, HYPER_COLUMNS] for a step with this learning rate. */
void update_hyper(const struct recipe *recipe, double rate, const struct group *groups, int count,
                  float *out);
/* Refuses numbers that do not go together. Errors: ERROR_USAGE. */
bool update_check(const struct recipe *recipe, struct error *err);

#endif
