/* Where a program's time goes: with HONE_CUDA_TRACE=FILE the first runs of each program are timed node by
 * node and appended there in Chrome's trace format (chrome://tracing, Perfetto). Timed runs wait for the GPU.
 */
#ifndef HONE_DEVICE_CUDA_TRACE_H
#define HONE_DEVICE_CUDA_TRACE_H

#include "device/cuda/cuda.h"

struct trace;

/* *out is NULL where nothing is asked for. */
bool trace_open(struct trace **out, struct device *device, int nodes, struct error *err);
void trace_close(struct trace **trace);
/* True when this run is timed. */
bool trace_begin(struct trace *trace);
/* Node n of a run is launched. */
void trace_node(struct trace *trace, int n);
/* Waits, and writes what was timed. */
bool trace_end(struct trace *trace, const struct graph *graph, struct error *err);

#endif
