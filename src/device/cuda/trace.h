/* When each operation of a run was on the GPU, for the timeline of its binding: an event between every two,
 * read when the run is done. A timed run waits for the GPU, before and after, and is no graph. */
#ifndef HONE_DEVICE_CUDA_TRACE_H
#define HONE_DEVICE_CUDA_TRACE_H

#include "device/cuda/cuda.h"

struct trace;

/* A run begins; *trace is made where it is NULL. */
bool trace_begin(struct trace **trace, struct device *device, struct error *err);
/* Node n of it is launched, for so many rows of tokens. */
bool trace_node(struct trace *trace, int n, int64_t rows, struct error *err);
/* Waits, and adds what was timed to the binding's timeline. */
bool trace_end(struct trace *trace, const struct graph *graph, const struct binding *binding,
               struct error *err);
void trace_close(struct trace **trace);

#endif
