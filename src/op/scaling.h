/* Dynamic loss scaling (Micikevicius et al. 2018, Mixed Precision Training, section 3.2): f16 has no numbers
 * below 6e-8, so the loss is multiplied before the backward pass, and the gradients divided after it, by a
 * factor as large as does not overflow. It is a power of two, so that nothing is rounded by it, and state, so
 * that the device decides alone. */
#ifndef HONE_OP_SCALING_H
#define HONE_OP_SCALING_H

/* Columns of the state. */
enum scaling {
    SCALING_FACTOR, /* of the loss */
    SCALING_GOOD,   /* finite steps since it last changed */
    SCALING_COLUMNS = 4
};

enum {
    SCALING_FIRST = 1 << 16, /* as torch.amp.GradScaler begins */
    SCALING_LEAST = 1,       /* below it the gradient itself does not fit */
    SCALING_MOST = 1 << 24,
    SCALING_INTERVAL =
        200, /* finite steps, then it doubles; torch waits for 2,000, which few runs here have */
};

#endif
