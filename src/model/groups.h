/* Groups of trained parts: what of the optimizer's numbers differs between them. */
#ifndef HONE_MODEL_GROUPS_H
#define HONE_MODEL_GROUPS_H

#include "model/method.h"
#include "op/optimizer.h"

/* A row of INPUT_HYPER is the run's numbers with these. */
struct group {
    double rate; /* factor of the learning rate */
    double decay;
};

/* A pattern is one of model/method.h that matches a part's name ("model.layers.0.mlp.up_proj.lora_A") or that
 * without its last word, the module's path. The first that matches counts. */
struct group_rules {
    double decay;   /* of parts that no pattern names; biases and norms have none, as in Hugging Face's
                       Trainer */
    double b_ratio; /* LoRA+ (Hayou et al. 2024): B's rate in A's, as PEFT's create_loraplus_optimizer: also
                       of an adapter's vectors. 1: none */
    struct method_pattern *rates, *decays; /* factors; decays */
    size_t rate_count, decay_count;
};

/* Sets the parts' groups and their number; *out: the groups, from mem_alloc. Errors: ERROR_USAGE naming the
 * flag whose pattern matches nothing. */
bool groups_assign(struct op_parts *parts, const struct group_rules *rules, struct group **out,
                   struct error *err);

#endif
