/* What the users of AMX tiles share; for files that are compiled for it. */
#ifndef HONE_DEVICE_CPU_GEMM_AMX_H
#define HONE_DEVICE_CPU_GEMM_AMX_H

#include <stdint.h>

/* Shapes of the eight tiles of this thread: 0 and 1, 4 have the first 16 of `rows` rows, 2 and 3, 5 the
 * others; 6 and 7 have 16; all are 64 bytes wide. They stay until the thread leaves (gemm_kernel.leave). */
void gemm_amx_shapes(int rows);

/* Some compilers take the instructions of tiles to read no memory, or 8 bytes: what was written comes first.
 */
static inline void gemm_amx_written(const void *at) { __asm__ volatile("" : : "r"(at) : "memory"); }

void gemm_narrow_amx(int rows, int columns, const float *a, int64_t lda, const uint16_t *b, int64_t ldb,
                     int64_t k, float *sums);

#endif
