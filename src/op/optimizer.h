/* What the update operations share: the parts of the trained block, and the numbers of a step.
 *
 * All trained values lie in one contiguous block, their gradients in another of the same layout. A part is
 * one tensor in it. An update node carries the table of parts (attributes.parts): optimizers that treat a
 * matrix as a matrix need its shape, and each part names the group whose numbers it is updated with. */
#ifndef HONE_OP_OPTIMIZER_H
#define HONE_OP_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

struct op_part {
    int64_t offset;        /* of its first element in the block; a multiple of 16 */
    int64_t rows, columns; /* columns 1: a vector */
    int64_t slot;          /* of its first element in the optimizer's packed state */
    int group;             /* row of INPUT_HYPER */
    char name[104];        /* "model.layers.0.self_attn.q_proj.lora_A" */
};

struct op_parts {
    struct op_part *items;
    int count, groups;
};

/* Elements, rounded up to whole lines of 64 bytes of f32. */
static inline int64_t op_padded(int64_t elements) { return (elements + 15) & ~(int64_t)15; }

/* Columns of INPUT_HYPER, f32 [groups, HYPER_COLUMNS]; an operation reads those that it needs. */
enum hyper {
    HYPER_RATE,       /* learning rate of this step */
    HYPER_DECAY,      /* weight decay */
    HYPER_MAX_NORM,   /* gradients are clipped to this global norm; 0: not at all */
    HYPER_BETA1,      /* AdamW, Lion */
    HYPER_BETA2,      /* the same */
    HYPER_EPSILON,    /* AdamW */
    HYPER_MOMENTUM,   /* SGD */
    HYPER_DAMPENING,  /* SGD */
    HYPER_NESTEROV,   /* SGD: 1 or 0 */
    HYPER_DECAY_RATE, /* Adafactor: β₂ = 1 - t^-this */
    HYPER_CLIP,       /* Adafactor: most root mean square of an update */
    HYPER_SCALE,      /* Adafactor: 1: the rate is relative to the part's root mean square */
    HYPER_AVERAGE,    /* decay of the moving average of the parameters; that of group 0 counts */
    HYPER_COLUMNS = 16
};

/* Elements that a part takes in Adafactor's packed state: its rows' and its columns' factors, or all of a
 * vector's second moments; rounded up to 16. */
int64_t optimizer_factors(const struct op_part *part);

#endif
