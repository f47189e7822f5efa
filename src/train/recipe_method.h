/* From settings to a method, and from an adapter that is started from to settings. */
#ifndef HONE_TRAIN_RECIPE_METHOD_H
#define HONE_TRAIN_RECIPE_METHOD_H

#include "format/peft.h"
#include "model/method.h"
#include "train/recipe.h"

/* Resolves alpha and learning rate, and, with an adapter (or NULL), everything that describes it. Settings
 * that were given beside an adapter must say what it says: a run's own recipe has both. */
bool recipe_method(struct method *out, struct recipe *recipe, const struct model *model,
                   const struct peft *adapter, struct error *err);

/* Resolves the base type, from --base-type, --method, the adapter (or NULL) and the model. */
bool recipe_base(enum dtype *out, struct recipe *recipe, const struct model *model,
                 const struct peft *adapter, struct error *err);

/* Refuses a start of the adapter that the method, the base or the model does not allow. */
bool recipe_check_start(const struct method *method, enum dtype base, const struct model *model,
                        struct error *err);

/* Which numbers a pattern takes. */
enum pattern_numbers { PATTERN_WHOLE, PATTERN_POSITIVE, PATTERN_NOT_NEGATIVE };
/* A setting's "PATTERN=NUMBER" items, in `arena`; `name` is its own. Errors: ERROR_USAGE. */
bool recipe_patterns(const struct text_list *list, const char *name, enum pattern_numbers numbers,
                     struct method_pattern **out, size_t *count, struct arena *arena, struct error *err);

#endif
