/* Rows of stored types to and from f32, one pair of functions for each instruction set; cpu_row_load and
 * cpu_row_store (kernel.h) choose. All are bit-equal to tensor/rowcodec.h, signalling NaN apart. Any
 * alignment; `elements` is a multiple of the type's block. */
#ifndef HONE_DEVICE_CPU_ROW_H
#define HONE_DEVICE_CPU_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/stored.h"

#if defined(__x86_64__)
void row_load_avx2(float *out, const void *source, enum dtype dtype, int64_t elements);
void row_store_avx2(void *out, const float *source, enum dtype dtype, int64_t elements); /* bf16, f16 */
void stored_load_avx2(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count);
void row_load_avx512(float *out, const void *source, enum dtype dtype, int64_t elements);
void row_store_avx512(void *out, const float *source, enum dtype dtype, int64_t elements); /* bf16, f16 */
void stored_load_avx512(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count);
/* As bf16 for products of it, subnormals as zeros. False where there is no such way. */
bool stored_halves_avx512bf16(uint16_t *out, const struct stored *stored, int64_t row, int64_t column,
                              int64_t count);
void row_halves_avx512bf16(uint16_t *out, const float *from, int64_t elements);
#endif

#endif
