#include "model/optimizer.h"

/* AdamW's default rates are measured (train/recipe.h), and the others' beside it (docs/optimizers.md). SGD's
 * update is as long as the clipped gradient, and AdamW's as √P. Muon's ratio gives its update the root mean
 * square that AdamW's has late in a long run, 0.2; a short one's are nearer to 1, as Lion's always are. */
const struct optimizer_row optimizer_rows[OPTIMIZER_KINDS] = {
    [OPTIMIZER_ADAMW] = {"adamw", OP_ADAMW, 1, {{"moment1"}, {"moment2"}}},
    [OPTIMIZER_ADAMW8BIT] = {"adamw8bit",
                             OP_ADAMW8BIT,
                             1,
                             {{"codes", .dtype = DTYPE_U8, .elements = optimizer_code_elements},
                              {"scales", .elements = optimizer_scale_elements}}},
    [OPTIMIZER_SGD] = {"sgd", OP_SGD, 100, {{"momentum", .momentum = true}}},
    [OPTIMIZER_LION] = {"lion", OP_LION, 0.6, {{"moment1"}}},
    [OPTIMIZER_ADAFACTOR] = {"adafactor", OP_ADAFACTOR, 1, {{"factors", .elements = optimizer_factors}}},
    [OPTIMIZER_MUON] = {"muon", OP_MUON, 3, {{"moments", .elements = optimizer_muon_elements}}},
};
