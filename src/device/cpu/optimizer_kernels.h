/* What the optimizer's kernels share, and the kernels of one instruction set each, for the table in
 * optimizer.c. */
#ifndef HONE_DEVICE_CPU_OPTIMIZER_KERNELS_H
#define HONE_DEVICE_CPU_OPTIMIZER_KERNELS_H

#include "device/cpu/kernel.h"

enum { optimizer_piece = 16384 }; /* elements of a task */

static inline int64_t optimizer_elements(const struct operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->dim[i];
    return n;
}

static inline int64_t optimizer_pieces(int64_t elements) {
    return (elements + optimizer_piece - 1) / optimizer_piece;
}

void gradient_norm_avx2(const struct cpu_call *call);
void adamw_avx2(const struct cpu_call *call);
void sgd_avx2(const struct cpu_call *call);
void lion_avx2(const struct cpu_call *call);
void adafactor_avx2(const struct cpu_call *call);
void adamw8bit_avx2(const struct cpu_call *call);
void muon_avx2(const struct cpu_call *call);
void average_avx2(const struct cpu_call *call);
void gradient_norm_avx512(const struct cpu_call *call);
void adamw_avx512(const struct cpu_call *call);
void sgd_avx512(const struct cpu_call *call);
void lion_avx512(const struct cpu_call *call);
void adafactor_avx512(const struct cpu_call *call);
void adamw8bit_avx512(const struct cpu_call *call);
void muon_avx512(const struct cpu_call *call);
void average_avx512(const struct cpu_call *call);

#endif
