/* From settings to the groups of trained parts. */
#ifndef HONE_TRAIN_RECIPE_GROUPS_H
#define HONE_TRAIN_RECIPE_GROUPS_H

#include "model/groups.h"
#include "train/recipe.h"

/* The patterns live in `arena`. Errors: ERROR_USAGE. */
bool recipe_groups(struct group_rules *out, const struct recipe *recipe, struct arena *arena,
                   struct error *err);

#endif
