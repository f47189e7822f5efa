#include "device/cuda/trace.h"

#include "base/mem.h"
#include "base/thread.h"
#include "device/timeline.h"

struct launched {
    int node;
    int64_t rows;
    cudaEvent_t end;
};

struct trace {
    struct device *device;
    cudaEvent_t begin;
    struct launched *launched; /* [room], whose events stay from run to run */
    int count, room;
    double begun; /* seconds, of clock_seconds */
};

static bool make(struct trace **out, struct device *device, struct error *err) {
    struct trace *trace = mem_calloc(1, sizeof *trace);
    *out = trace;
    if (!trace) return error_no_memory(err, "cuda", sizeof *trace);
    trace->device = device;
    if (cuda_check(cudaEventCreate(&trace->begin), "make an event", err)) return true;
    trace_close(out);
    return false;
}

void trace_close(struct trace **handle) {
    struct trace *trace = *handle;
    if (!trace) return;
    if (trace->begin) cudaEventDestroy(trace->begin);
    for (int i = 0; i < trace->room; i++)
        if (trace->launched[i].end) cudaEventDestroy(trace->launched[i].end);
    mem_free(trace->launched);
    mem_free(trace);
    *handle = NULL;
}

bool trace_begin(struct trace **trace, struct device *device, struct error *err) {
    if ((!*trace && !make(trace, device, err)) || !cuda_wait(device, err)) return false;
    (*trace)->count = 0;
    (*trace)->begun = clock_seconds();
    return cuda_check(cudaEventRecord((*trace)->begin, device->stream), "record an event", err);
}

static bool more_room(struct trace *trace, struct error *err) {
    int room = trace->room ? 2 * trace->room : 1024;
    struct launched *launched = mem_realloc(trace->launched, (size_t)room * sizeof *launched);
    if (!launched) return error_no_memory(err, "cuda", (size_t)room * sizeof *launched);
    for (int i = trace->room; i < room; i++) launched[i] = (struct launched){0};
    trace->launched = launched;
    trace->room = room;
    return true;
}

bool trace_node(struct trace *trace, int n, int64_t rows, struct error *err) {
    if (trace->count == trace->room && !more_room(trace, err)) return false;
    struct launched *now = &trace->launched[trace->count++];
    now->node = n;
    now->rows = rows;
    return (now->end || cuda_check(cudaEventCreate(&now->end), "make an event", err)) &&
           cuda_check(cudaEventRecord(now->end, trace->device->stream), "record an event", err);
}

bool trace_end(struct trace *trace, const struct graph *graph, const struct binding *binding,
               struct error *err) {
    float begin = 0, end = 0; /* milliseconds from the run's beginning */
    struct binding counts = *binding;
    if (!cuda_wait(trace->device, err)) return false;
    for (int i = 0; i < trace->count; i++, begin = end) {
        const struct launched *one = &trace->launched[i];
        cudaEventElapsedTime(&end, trace->begin, one->end);
        counts.tokens = one->rows;
        if (!timeline_add(binding->timeline, graph, &counts, one->node, 1,
                          trace->begun + (double)begin * 1e-3, trace->begun + (double)end * 1e-3, err))
            return false;
    }
    return true;
}
