/* Log-probability of every target of a set of examples: the one place that computes a loss outside a step. */
#ifndef HONE_SCORE_SCORE_H
#define HONE_SCORE_SCORE_H

#include "score/batch.h"
#include "score/engine.h"

struct score {
    double loss; /* mean negative log-probability over all supervised tokens */
    size_t supervised, tokens, examples;
};

/* `program` is a compiled GRAPH_SCORE, `batch` of its sizes; logp [capacity] f32 is scratch. The sum is made
 * in f64 in the order of the examples, which does not depend on how they are packed. `progress` (may be NULL)
 * is called after each run with examples done. */
bool score_examples(struct score *out, struct engine *engine, struct engine_program *program,
                    struct batch *batch, const struct example *examples, size_t count, const atomic_int *stop,
                    void (*progress)(void *user, size_t done, size_t all), void *user, struct error *err);

#endif
