#include "train/recipe_groups.h"

#include "train/recipe_method.h"

bool recipe_groups(struct group_rules *out, const struct recipe *recipe, struct arena *arena,
                   struct error *err) {
    *out = (struct group_rules){.decay = recipe->weight_decay, .b_ratio = recipe->loraplus_ratio};
    return recipe_patterns(&recipe->learning_rate_pattern, "learning-rate-pattern", PATTERN_NOT_NEGATIVE,
                           &out->rates, &out->rate_count, arena, err) &&
           recipe_patterns(&recipe->weight_decay_pattern, "weight-decay-pattern", PATTERN_NOT_NEGATIVE,
                           &out->decays, &out->decay_count, arena, err);
}
