#include "device/cuda/trace.h"

#include "base/mem.h"
#include "base/thread.h"
#include "device/timeline.h"

struct trace {
    struct device *device;
    cudaEvent_t *events; /* [nodes + 1]; the first is the run's beginning */
    int nodes;
    double begun; /* seconds, of clock_seconds */
};

static bool make(struct trace **out, struct device *device, int nodes, struct error *err) {
    struct trace *trace = mem_calloc(1, sizeof *trace);
    *out = trace;
    if (!trace) return error_no_memory(err, "cuda", sizeof *trace);
    trace->device = device;
    trace->nodes = nodes;
    trace->events = mem_calloc((size_t)nodes + 1, sizeof *trace->events);
    bool ok = trace->events || error_no_memory(err, "cuda", (size_t)nodes * sizeof *trace->events);
    for (int i = 0; ok && i <= nodes; i++)
        ok = cuda_check(cudaEventCreate(&trace->events[i]), "make an event", err);
    if (!ok) trace_close(out);
    return ok;
}

void trace_close(struct trace **handle) {
    struct trace *trace = *handle;
    if (!trace) return;
    for (int i = 0; trace->events && i <= trace->nodes; i++)
        if (trace->events[i]) cudaEventDestroy(trace->events[i]);
    mem_free(trace->events);
    mem_free(trace);
    *handle = NULL;
}

bool trace_begin(struct trace **trace, struct device *device, int nodes, struct error *err) {
    if ((!*trace && !make(trace, device, nodes, err)) || !cuda_wait(device, err)) return false;
    (*trace)->begun = clock_seconds();
    cudaEventRecord((*trace)->events[0], device->stream);
    return true;
}

void trace_node(struct trace *trace, int n) { cudaEventRecord(trace->events[n + 1], trace->device->stream); }

bool trace_end(struct trace *trace, const struct graph *graph, const struct binding *binding,
               struct error *err) {
    float begin = 0, end = 0; /* milliseconds from the run's beginning */
    if (!cuda_wait(trace->device, err)) return false;
    for (int n = 0; n < trace->nodes; n++, begin = end) {
        cudaEventElapsedTime(&end, trace->events[0], trace->events[n + 1]);
        if (!timeline_add(binding->timeline, graph, binding, n, 1, trace->begun + (double)begin * 1e-3,
                          trace->begun + (double)end * 1e-3, err))
            return false;
    }
    return true;
}
