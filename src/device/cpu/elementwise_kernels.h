/* The elementwise kernels of one instruction set each, for the table in elementwise.c. */
#ifndef HONE_DEVICE_CPU_ELEMENTWISE_KERNELS_H
#define HONE_DEVICE_CPU_ELEMENTWISE_KERNELS_H

#include "device/cpu/kernel.h"

void norm_avx2(const struct cpu_call *call);
void norm_grad_avx2(const struct cpu_call *call);
void norm_grad_w_avx2(const struct cpu_call *call);
void bias_grad_avx2(const struct cpu_call *call);
void embedding_grad_avx2(const struct cpu_call *call);
void rope_avx2(const struct cpu_call *call);
void glu_avx2(const struct cpu_call *call);
void glu_grad_avx2(const struct cpu_call *call);
void add_avx2(const struct cpu_call *call);
void dropout_avx2(const struct cpu_call *call);
void noise_avx2(const struct cpu_call *call);

void norm_avx512(const struct cpu_call *call);
void norm_grad_avx512(const struct cpu_call *call);
void norm_grad_w_avx512(const struct cpu_call *call);
void bias_grad_avx512(const struct cpu_call *call);
void embedding_grad_avx512(const struct cpu_call *call);
void rope_avx512(const struct cpu_call *call);
void glu_avx512(const struct cpu_call *call);
void glu_grad_avx512(const struct cpu_call *call);
void add_avx512(const struct cpu_call *call);
void dropout_avx512(const struct cpu_call *call);
void noise_avx512(const struct cpu_call *call);

#endif
