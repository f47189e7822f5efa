/* The base type: what the float linears of a model's layers are stored as while it is used. Embedding, norms
 * and head stay as the file has them, as bitsandbytes leaves them; weights that the file holds quantised stay
 * as they lie. */
#ifndef HONE_MODEL_BASE_TYPE_H
#define HONE_MODEL_BASE_TYPE_H

#include "model/model.h"

struct base_wish {
    const char *name;    /* "as-stored" or a type's name; NULL: auto */
    const char *adapter; /* the base type that the adapter was trained on, or NULL */
    bool quantised;      /* a quantised base is wanted (QLoRA) */
};

struct base_choice {
    enum dtype dtype;   /* DTYPE_F32: as stored */
    const char *name;   /* as the setting says it */
    const char *reason; /* where it was left open; else NULL */
};

/* Whether a weight of this role becomes the base type. */
bool base_type_takes(enum weight_role role, const struct tensor *weight);

/* Errors: ERROR_USAGE where the type does not fit the model: no float linear, or a row, named by its tensor,
 * that is no whole number of the type's blocks. */
bool base_type_choose(struct base_choice *out, const struct model *model, const struct base_wish *wish,
                      struct error *err);

#endif
