#include "model/optimizer.h"

/* AdamW's default rate is measured (train/recipe.h). Lion moves every number by the whole rate: its paper
 * takes 3 to 10 times less than AdamW. Adafactor's update has a root mean square of at most 1, as AdamW's
 * about has. SGD's update is as long as the clipped gradient, and AdamW's as √P. */
const struct optimizer_row optimizer_rows[OPTIMIZER_KINDS] = {
    [OPTIMIZER_ADAMW] = {"adamw", OP_ADAMW, 1, "", {{"moment1", NULL, false}, {"moment2", NULL, false}}},
    [OPTIMIZER_SGD] = {"sgd", OP_SGD, 100, "; 100 times AdamW's for sgd", {{"momentum", NULL, true}}},
    [OPTIMIZER_LION] = {"lion", OP_LION, 0.2, "; a fifth of AdamW's for lion", {{"moment1", NULL, false}}},
    [OPTIMIZER_ADAFACTOR] = {"adafactor", OP_ADAFACTOR, 1, "", {{"factors", optimizer_factors, false}}},
};
