/* The attention kernels of one instruction set each, for the table in attention.c. */
#ifndef HONE_DEVICE_CPU_ATTENTION_KERNELS_H
#define HONE_DEVICE_CPU_ATTENTION_KERNELS_H

#include "device/cpu/kernel.h"

void attention_avx2(const struct cpu_call *call);
void attention_grad_avx2(const struct cpu_call *call);
void cache_attention_avx2(const struct cpu_call *call);

void attention_avx512(const struct cpu_call *call);
void attention_grad_avx512(const struct cpu_call *call);
void cache_attention_avx512(const struct cpu_call *call);

void attention_avx512bf16(const struct cpu_call *call);
void attention_grad_avx512bf16(const struct cpu_call *call);
void cache_attention_avx512bf16(const struct cpu_call *call);

#endif
