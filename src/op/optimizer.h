/* What the update operations share: the parts of the trained block, and the numbers of a step.
 *
 * All trained values lie in one contiguous block, their gradients in another of the same layout. A part is
 * one tensor in it. An update node carries the table of parts (attributes.parts): optimizers that treat a
 * matrix as a matrix need its shape, and each part names the group whose numbers it is updated with. */
#ifndef HONE_OP_OPTIMIZER_H
#define HONE_OP_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

enum { op_part_slots = 2 };

struct op_part {
    int64_t offset;              /* of its first element in the block; a multiple of 16 */
    int64_t rows, columns;       /* columns 1: a vector */
    int64_t slot[op_part_slots]; /* of its first element in the optimizer's packed states */
    int group;                   /* row of INPUT_HYPER */
    bool hidden;                 /* a matrix of a hidden layer: neither embedding, head nor vector */
    char name[104];              /* "model.layers.0.self_attn.q_proj.lora_A" */
};

struct op_parts {
    struct op_part *items;
    int count, groups;
};

static inline int64_t op_part_elements(const struct op_part *part) { return part->rows * part->columns; }

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
    HYPER_MOMENTUM,   /* SGD, Muon */
    HYPER_DAMPENING,  /* SGD */
    HYPER_NESTEROV,   /* SGD, Muon: 1 or 0 */
    HYPER_DECAY_RATE, /* Adafactor: β₂ = 1 - t^-this */
    HYPER_CLIP,       /* Adafactor: most root mean square of an update */
    HYPER_SCALE,      /* Adafactor: 1: the rate is relative to the part's root mean square */
    HYPER_AVERAGE,    /* decay of the moving average of the parameters; that of group 0 counts */
    HYPER_ADJUST,     /* Muon: enum muon_adjust */
    HYPER_ROUNDS,     /* Muon: iterations of Newton and Schulz */
    HYPER_COLUMNS = 16
};

/* How Muon's rate follows from a matrix' shape; as torch.optim.Muon's adjust_lr_fn. */
enum muon_adjust {
    MUON_MATCH_RMS_ADAMW, /* 0.2 √max(rows, columns): an update is as large as AdamW's */
    MUON_ORIGINAL,        /* √max(1, rows / columns) */
};
double muon_ratio(enum muon_adjust adjust, int64_t rows, int64_t columns);

/* Newton and Schulz: X = (a I + b G + c G²) X, G = X Xᵀ, from X = update / max(‖update‖, ε). */
#define MUON_A 3.4445
#define MUON_B -4.7750
#define MUON_C 2.0315
#define MUON_EPSILON 1e-7

/* AdamW in 8 bits (optimizer_8bit.c): elements of a block, and the fewest of a part that is quantised. */
enum { optimizer_block = 256, optimizer_least = 4096, optimizer_codes = 256 };

static inline bool optimizer_is_quantised(const struct op_part *part) {
    return op_part_elements(part) >= optimizer_least;
}
static inline int64_t optimizer_blocks(const struct op_part *part) {
    return (op_part_elements(part) + optimizer_block - 1) / optimizer_block;
}
/* From the first moment's codes of a part to the second's, and the same of what is f32: largest magnitudes,
 * or a small part's moments. */
static inline int64_t optimizer_code_stride(const struct op_part *part) {
    return (op_part_elements(part) + 63) & ~(int64_t)63;
}
static inline int64_t optimizer_scale_stride(const struct op_part *part) {
    return op_padded(optimizer_is_quantised(part) ? optimizer_blocks(part) : op_part_elements(part));
}
/* What a code stands for, in its block's largest magnitude; ascending. */
void optimizer_map(bool is_signed, float map[optimizer_codes]);

/* Elements that a part takes in the packed states of AdamW in 8 bits, and of Muon: its momentum, or AdamW's
 * two moments where it is not hidden. */
int64_t optimizer_code_elements(const struct op_part *part);
int64_t optimizer_scale_elements(const struct op_part *part);
int64_t optimizer_muon_elements(const struct op_part *part);

/* Elements that a part takes in Adafactor's packed state: its rows' and its columns' factors, or all of a
 * vector's second moments; rounded up to 16. */
int64_t optimizer_factors(const struct op_part *part);

/* What the references share. */
struct reference_call;
/* What every update begins with: counts the step. False: the gradient is not finite, nothing changes. */
bool update_reference_begin(const struct reference_call *call, double *step);
double update_reference_clip(const struct reference_call *call, const double *hyper);
/* AdamW on one number. */
void adamw_reference_number(double *p, double g, double *m, double *v, const double *hyper, double step);

#endif
