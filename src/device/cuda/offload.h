/* Copies of values to page-locked host memory and back, on a stream of their own, beside the computing. They
 * are done in the order of the nodes. Nobody waits for one but the first node that reads what was copied
 * back, or writes where a copy reads or writes still; which that is follows from the plan. */
#ifndef HONE_DEVICE_CUDA_OFFLOAD_H
#define HONE_DEVICE_CUDA_OFFLOAD_H

#include "device/cuda/passes.h"

struct offload;
/* *out NULL: the plan offloads nothing, and so do all functions below. The plan must outlive it. `passes`
 * says which nodes read ahead of their turn. */
bool offload_open(struct offload **out, struct device *device, const struct plan *plan,
                  const struct passes *passes, struct error *err);
void offload_close(struct offload **offload);
/* Where an offloaded value lies. */
void *offload_place(const struct offload *offload, int value);

/* Before node n runs; makes the device's stream wait for what it needs. */
bool offload_wait(const struct offload *offload, int n, struct error *err);
/* False: node n is no such copy. */
bool offload_owns(const struct offload *offload, int n);
/* Starts node n's copy once all nodes before it are done. */
bool offload_copy(const struct offload *offload, int n, const struct operand *to, const struct operand *from,
                  struct error *err);
/* Makes the device's stream wait for the copies up to node n. */
bool offload_join(const struct offload *offload, int n, struct error *err);

/* Page-locked host memory that kernels reach too; refuses what the machine does not have free. */
bool offload_allocate(void **out, uint64_t bytes, struct error *err);

#endif
