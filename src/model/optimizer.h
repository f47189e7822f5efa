/* Optimizers as table rows: the update operation, the state that it keeps (from which plan, store and
 * checkpoints follow), and its learning rate beside AdamW's. Adding one is a row, an operation and its
 * kernels. */
#ifndef HONE_MODEL_OPTIMIZER_H
#define HONE_MODEL_OPTIMIZER_H

#include "op/op.h"

/* In the order of the setting --optimizer. */
enum optimizer_kind {
    OPTIMIZER_ADAMW,
    OPTIMIZER_ADAMW8BIT,
    OPTIMIZER_SGD,
    OPTIMIZER_LION,
    OPTIMIZER_ADAFACTOR,
    OPTIMIZER_MUON,
    OPTIMIZER_KINDS
};

enum { optimizer_most_states = op_part_slots };

struct optimizer_row {
    const char *name;
    enum op_code op;
    double rate; /* the default learning rate, in AdamW's */
    struct {
        const char *name; /* in checkpoints; NULL: no more */
        enum dtype dtype; /* f32 unless said otherwise */
        int64_t (*elements)(
            const struct op_part *part); /* packed by part; NULL: as large as the trained block */
        bool momentum;                   /* only with momentum */
    } states[optimizer_most_states];
};

extern const struct optimizer_row optimizer_rows[OPTIMIZER_KINDS];

/* What a run chooses of it that changes the state. */
struct optimizer {
    enum optimizer_kind kind;
    bool momentum; /* SGD with momentum */
};

#endif
