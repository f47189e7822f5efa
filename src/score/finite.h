/* Which operation made the first number that is not finite. A run is watched operation by operation; what
 * each has written is read back and looked at, which takes many times as long as running it: for a step that
 * is known to have gone wrong, and is done again from the same bits. */
#ifndef HONE_SCORE_FINITE_H
#define HONE_SCORE_FINITE_H

#include "score/engine.h"

struct nonfinite {
    const char *operation; /* "attention"; NULL: nothing was found */
    const char *pass;      /* "forward", "backward"; "update" from finite_state */
    int layer;             /* -1: of none */
    double number;         /* the first of them: NaN or an infinity */
    int64_t row;           /* of the data set, as the example names it; -1: no row of tokens held it */
    char value[96];        /* what was written: "q_proj"; of state, its name */
    char cause[104]; /* a weight or a part of the adapter that the operation read, which holds one; "" none */
    bool frozen;     /* the cause is a weight that every step reads */
};

/* Runs the program with this binding (leave and after are set here) and stops at the first such number. True:
 * it ran, and *out says whether one was found. Takes memory for one value while it runs. */
bool finite_watch(struct nonfinite *out, struct engine *engine, struct engine_program *program,
                  const struct binding *binding, struct error *err);
/* Looks through what is trained and the optimizer's state. */
bool finite_state(struct nonfinite *out, struct engine *engine, struct error *err);

#endif
