/* Rows of logits (head_body.h) for each instruction set. */
#ifndef HONE_DEVICE_CPU_HEAD_KERNELS_H
#define HONE_DEVICE_CPU_HEAD_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"

struct head_row {
    float *logits; /* [count] */
    int64_t count;
    int32_t target;
    float dlogp;
    bool gradient;
    enum dtype stored; /* of the gradient */
};

/* How many chunks `rows` rows of logits are computed in. */
int64_t cpu_head_chunks(int64_t rows, int64_t vocabulary, bool trained);

float head_row_avx2(const struct head_row *row);
float head_row_avx512(const struct head_row *row);

#endif
