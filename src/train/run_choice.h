/* The ways to run that a recipe leaves open, what a step takes in each, and which of them is taken. */
#ifndef HONE_TRAIN_RUN_CHOICE_H
#define HONE_TRAIN_RUN_CHOICE_H

#include "score/engine.h"
#include "train/inputs.h"

/* One way to run. */
struct run_choice {
    bool decoded;
    enum graph_keep keep;
    int layers; /* that are kept so, from the first one on; 0: all */
    int span;   /* layers that are computed again together */
    int64_t tokens;
    int64_t piece_rows; /* 0: all tokens at once */
    double cost;        /* of a typical step, in flops of its products' time; to compare, not to tell */
    uint64_t bytes;     /* of the device, less what the process holds besides */
    bool fits;
    bool modest; /* takes so little that other programs need not make room for it */
};

struct run_choices {
    struct run_choice items[112]; /* 2 · 4 ways to keep · 9 micro-batches, of the smallest 2 · 6 more, and
                                     some with fewer layers */
    int count;
};

/* The largest span that is tried where the recipe says nothing: 4, or what a model of fewer layers has room
 * for. */
int run_choice_most_span(const struct inputs *inputs);
/* The choices that the recipe leaves open; the smallest in memory is last. `longest`: tokens of an example.
 */
void run_choices_list(struct run_choices *out, struct recipe *recipe, const struct inputs *inputs,
                      int64_t longest, const struct device_ops *ops);
/* Sets its cost, of a step of `batch_size` of the examples (at least one): the flops of its micro-batches,
 * and for each what it costs whatever its tokens. `train` is planned for the choice. */
bool run_choice_cost(struct run_choice *choice, const struct engine *engine,
                     const struct engine_program *train, enum dtype compute, const struct examples *examples,
                     int64_t batch_size, struct error *err);
/* Of those that fit and are within 3 % of the fastest, the smallest in bytes, the faster of equals; instead
 * of one that is not modest, the best of those that are, where that is at most a tenth slower than the
 * fastest of all. NULL: none fits. */
const struct run_choice *run_choices_best(const struct run_choices *choices);

#endif
