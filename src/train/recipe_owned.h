/* Settings that only some choices of another setting read: those of one method, optimizer or schedule. */
#ifndef HONE_TRAIN_RECIPE_OWNED_H
#define HONE_TRAIN_RECIPE_OWNED_H

#include "train/recipe.h"

/* Refuses one that was given and that nothing reads. With `resume`, only after recipe_continue: the owner's
 * choice is the stored run's. Errors: ERROR_USAGE. */
bool recipe_owned_check(struct recipe *recipe, struct error *err);

#endif
