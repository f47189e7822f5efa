#include "model/optimizer.h"

/* AdamW's default rate is measured (train/recipe.h). Lion moves every number by the whole rate: its paper
 * takes 3 to 10 times less than AdamW. Adafactor's update has a root mean square of at most 1, as AdamW's
 * about has. SGD's update is as long as the clipped gradient, and AdamW's as √P. Muon's ratio makes its
 * update as large as AdamW's. */
const struct optimizer_row optimizer_rows[OPTIMIZER_KINDS] = {
    [OPTIMIZER_ADAMW] = {"adamw", OP_ADAMW, 1, "", {{"moment1"}, {"moment2"}}},
    [OPTIMIZER_ADAMW8BIT] = {"adamw8bit",
                             OP_ADAMW8BIT,
                             1,
                             "",
                             {{"codes", .dtype = DTYPE_U8, .elements = optimizer_code_elements},
                              {"scales", .elements = optimizer_scale_elements}}},
    [OPTIMIZER_SGD] = {"sgd", OP_SGD, 100, "; 100 times AdamW's for sgd", {{"momentum", .momentum = true}}},
    [OPTIMIZER_LION] = {"lion", OP_LION, 0.2, "; a fifth of AdamW's for lion", {{"moment1"}}},
    [OPTIMIZER_ADAFACTOR] = {"adafactor", OP_ADAFACTOR, 1, "", {{"factors", .elements = optimizer_factors}}},
    [OPTIMIZER_MUON] = {"muon", OP_MUON, 1, "", {{"moments", .elements = optimizer_muon_elements}}},
};
