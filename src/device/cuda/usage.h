/* What this process takes of the GPU's memory: the driver's context and what the libraries load, which no
 * plan can know beforehand, are measured while the device is opened; later readings are what a plan is
 * compared with.
 *
 * NVML, which the driver brings, tells it: this process's own bytes where it knows the process, else what the
 * whole GPU holds more than before, in which what other programs have taken since then counts too. Without
 * NVML the context is taken to be as large as it is on most GPUs. */
#ifndef HONE_DEVICE_CUDA_USAGE_H
#define HONE_DEVICE_CUDA_USAGE_H

#include <stdint.h>

struct usage;

/* Before anything makes a context on the GPU `index`; NULL when out of memory. */
struct usage *usage_open(int index, uint64_t total);
/* After the context stands and the libraries have been started. */
void usage_begin(struct usage *usage);
/* `bytes` more have come to the context. */
void usage_add(struct usage *usage, uint64_t bytes);
void usage_close(struct usage **usage);

/* Bytes that this process takes now; what it took when usage_begin was called, and what is loaded later. */
uint64_t usage_now(const struct usage *usage);
uint64_t usage_context(const struct usage *usage);

#endif
