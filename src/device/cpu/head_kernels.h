/* Rows of logits (head_body.h) for each instruction set. */
#ifndef HONE_DEVICE_CPU_HEAD_KERNELS_H
#define HONE_DEVICE_CPU_HEAD_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

float head_row_avx2(float *logits, int64_t count, bool gradient, float factor);
float head_row_avx512(float *logits, int64_t count, bool gradient, float factor);

#endif
