/* The inside of the CPU device, shared by its files and by the benchmarks. */
#ifndef HONE_DEVICE_CPU_CPU_H
#define HONE_DEVICE_CPU_CPU_H

#include "base/thread.h"
#include "device/host.h"

struct cpu_kernel;

struct device {
    struct pool *pool;
    unsigned detected; /* enum cpu_feature bits of the machine */
    unsigned features; /* … less those that are masked */
};

/* The first row of the tables that serves `op` with these features; NULL: none. */
const struct cpu_kernel *cpu_kernel_select(enum op_code op, unsigned features);
const struct cpu_kernel *const *cpu_kernel_tables(size_t *count);

#endif
