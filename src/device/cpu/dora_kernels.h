/* DoRA's kernels of one instruction set each, for the table in dora.c. */
#ifndef HONE_DEVICE_CPU_DORA_KERNELS_H
#define HONE_DEVICE_CPU_DORA_KERNELS_H

#include "device/cpu/kernel.h"

void rescale_avx2(const struct cpu_call *call);
void rescale_grad_avx2(const struct cpu_call *call);
void row_norms_avx2(const struct cpu_call *call);
void rescale_avx512(const struct cpu_call *call);
void rescale_grad_avx512(const struct cpu_call *call);
void row_norms_avx512(const struct cpu_call *call);

#endif
