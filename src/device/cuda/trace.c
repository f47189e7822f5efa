#include "device/cuda/trace.h"

#include <stdlib.h>

#include "base/fs.h"
#include "base/mem.h"

enum { timed_runs = 6 };

struct trace {
    struct device *device;
    const char *path;
    cudaEvent_t *events; /* [nodes + 1]; the first is the run's beginning */
    int nodes, runs;
    double at; /* microseconds of all runs so far: where the next one is drawn */
};

bool trace_open(struct trace **out, struct device *device, int nodes, struct error *err) {
    const char *path = getenv("HONE_CUDA_TRACE");
    *out = NULL;
    if (!path || !*path) return true;
    struct trace *trace = mem_calloc(1, sizeof *trace);
    if (!trace) return error_no_memory(err, "cuda", sizeof *trace);
    trace->device = device;
    trace->path = path;
    trace->nodes = nodes;
    trace->events = mem_calloc((size_t)nodes + 1, sizeof *trace->events);
    bool ok = trace->events || error_no_memory(err, "cuda", (size_t)nodes * sizeof *trace->events);
    for (int i = 0; ok && i <= nodes; i++)
        ok = cuda_check(cudaEventCreate(&trace->events[i]), "make an event", err);
    if (!ok) trace_close(&trace);
    *out = trace;
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

bool trace_begin(struct trace *trace) {
    if (!trace || trace->runs >= timed_runs) return false;
    trace->runs++;
    cudaEventRecord(trace->events[0], trace->device->stream);
    return true;
}

void trace_node(struct trace *trace, int n) { cudaEventRecord(trace->events[n + 1], trace->device->stream); }

/* "linear 16384x2048 8192x2048": the operation with the sizes of its first operands. */
static void write_name(const struct graph *graph, const struct node *node, struct buf *out) {
    buf_text(out, op_row(node->op)->name);
    for (int i = 0; i < 2 && i < node->inputs; i++) {
        const struct value *value = node->input[i] < 0 ? NULL : &graph->values[node->input[i]];
        for (int d = 0; value && d < value->rank; d++)
            buf_printf(out, "%s%lld", d ? "x" : " ", (long long)value->dim[d]);
    }
}

/* Other programs append to the same file: it is opened for each run. */
static bool append(const char *path, const struct buf *text, struct error *err) {
    struct fs_info info;
    struct fs_appender file;
    if (text->failed) return error_no_memory(err, "cuda", 0);
    if (!fs_stat(path, &info, err) || !fs_appender_open(&file, path, info.size, err)) return false;
    bool ok = (info.size || fs_appender_write(&file, "[\n", 2, err)) &&
              fs_appender_write(&file, text->data, text->size, err);
    fs_appender_close(&file);
    return ok;
}

bool trace_end(struct trace *trace, const struct graph *graph, struct error *err) {
    struct buf text = {0};
    if (!cuda_wait(trace->device, err)) return false;
    for (int n = 0; n < trace->nodes; n++) {
        float begin = 0, end = 0;
        cudaEventElapsedTime(&begin, trace->events[0], trace->events[n]);
        cudaEventElapsedTime(&end, trace->events[0], trace->events[n + 1]);
        buf_text(&text, "{\"name\":\"");
        write_name(graph, &graph->nodes[n], &text);
        buf_printf(&text, "\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.2f,\"dur\":%.2f},\n",
                   op_row(graph->nodes[n].op)->name, trace->nodes, trace->runs,
                   trace->at + (double)begin * 1e3, ((double)end - (double)begin) * 1e3);
        if (n + 1 == trace->nodes) trace->at += (double)end * 1e3;
    }
    bool ok = append(trace->path, &text, err);
    buf_release(&text);
    return ok;
}
