/* What this processor is and does: the description and the measured rates that estimates use. */
#ifndef HONE_DEVICE_CPU_MEASURE_H
#define HONE_DEVICE_CPU_MEASURE_H

#include "device/cpu/cpu.h"

bool cpu_describe(const struct device *device, json_t **out, struct error *err);

/* Per shape {m, n, k} and compute type (NULL: each): the best of a few repeats of the selected product (w as
 * f32) on the pool, in flops per second; and bytes per second of a sum over a block larger than the caches,
 * all within `memory` bytes (0: no bound). */
bool cpu_measure(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3], int count,
                 uint64_t memory, json_t **out, struct error *err);

/* As device_ops.fixed_flops says. */
double cpu_fixed_flops(const struct device *device, const struct graph *graph,
                       const int64_t counts[COUNT_KINDS], enum dtype compute);

#endif
