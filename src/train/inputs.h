/* What a run reads before it starts: model, starting adapter, template, data and examples; and the values of
 * the recipe that follow from them. */
#ifndef HONE_TRAIN_INPUTS_H
#define HONE_TRAIN_INPUTS_H

#include "format/peft.h"
#include "model/method.h"
#include "score/engine.h"
#include "score/render.h"
#include "text/dataset.h"
#include "train/recipe.h"

struct inputs {
    struct model *model;
    struct peft *adapter; /* --adapter, or NULL */
    struct render render;
    struct dataset data, valid; /* valid is empty without --valid */
    bool *held;                 /* [rows of data] held out by --valid-split, or NULL */
    struct examples train, held_out;
    struct method method;
    enum dtype base; /* DTYPE_F32: as stored */
};

/* Reads everything and resolves the recipe's `auto` values that follow (max-length, learning-rate, alpha,
 * digests, clock). `warn` is told one sentence at a time. Where the template shows the time, and the recipe
 * does not say which, `agree` may put another in place of this process's. Both may be NULL. */
bool inputs_open(struct inputs *out, struct recipe *recipe, const char *model_path,
                 void (*warn)(void *user, const char *message),
                 bool (*agree)(void *user, double *clock, struct error *err), void *user, struct error *err);
/* What follows from the method alone; anew for another recipe of the same model and data. */
bool inputs_renew_method(struct inputs *inputs, struct recipe *recipe, struct error *err);
void inputs_close(struct inputs *inputs);

#endif
