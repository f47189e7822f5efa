#include "device/cuda/offload.h"

#include "base/mem.h"
#include "base/process.h"
#include "base/text.h"

struct offload {
    struct device *device;
    const struct plan *plan;
    unsigned char *host;       /* page-locked */
    cudaStream_t stream;       /* of the copies */
    cudaEvent_t *begun, *done; /* [count]: all nodes before it are done; the copy is */
    int *before;               /* [nodes + 1] copies that stand before a node */
    int *needs;                /* [nodes] so many copies must be done before it runs */
    int count;
};

bool offload_allocate(void **out, uint64_t bytes, struct error *err) {
    char need[32], have[32];
    uint64_t available = process_memory_available();
    *out = NULL;
    cudaError_t status = cudaSuccess;
    if (!available || bytes <= available) status = cudaHostAlloc(out, (size_t)bytes, cudaHostAllocDefault);
    if (*out) return true;
    if (status != cudaSuccess && status != cudaErrorMemoryAllocation)
        return cuda_check(status, "allocate page-locked memory", err);
    cudaGetLastError(); /* it is told here */
    error_set(err, ERROR_MEMORY, "cuda", "what is offloaded needs %s of the host's memory, which has %s free",
              text_bytes(bytes, need), text_bytes(available, have));
    return error_fix(err, "Offload less, or end other programs.");
}

/* The value of the arena that a copy reads or writes; -1: node n is no copy to or from the host. */
static int copied_value(const struct graph *graph, int n) {
    const struct node *node = &graph->nodes[n];
    if (node->op != OP_COPY) return -1;
    if (graph->values[node->output[0]].offloaded) return node->input[0];
    return graph->values[node->input[0]].offloaded ? node->output[0] : -1;
}

static bool overlap(const struct plan *plan, int a, int b) {
    const struct value *values = plan->graph->values;
    if (values[a].kind != VALUE_TRANSIENT || values[b].kind != VALUE_TRANSIENT || values[a].offloaded ||
        plan->offset[a] == UINT64_MAX || plan->offset[b] == UINT64_MAX)
        return false;
    return plan->offset[a] < plan->offset[b] + plan->bytes[b] &&
           plan->offset[b] < plan->offset[a] + plan->bytes[a];
}

/* The first node behind the copy `n` that must not run before it is done; the number of nodes: none. What is
 * read for a node ahead of its turn has been copied by then, or it would not be. */
static int first_in_need(const struct plan *plan, const struct passes *passes, int n) {
    const struct graph *graph = plan->graph;
    int value = copied_value(graph, n), first = graph->node_count;
    bool back = graph->nodes[n].output[0] == value;
    for (int i = n + 1; i < graph->node_count; i++) {
        const struct node *node = &graph->nodes[i];
        int at = graph->node_count;
        if (copied_value(graph, i) >= 0) continue; /* copies are done one after another */
        for (int k = 0; k < node->outputs; k++)
            if (node->output[k] >= 0 && overlap(plan, node->output[k], value)) at = i;
        for (int k = 0; back && k < node->inputs; k++)
            if (node->input[k] == value) at = passes_reads_at(passes, i);
        if (at < first) first = at;
    }
    return first;
}

static void find_needs(struct offload *offload, const struct passes *passes) {
    const struct graph *graph = offload->plan->graph;
    for (int n = 0; n < graph->node_count; n++) {
        offload->before[n + 1] = offload->before[n] + (copied_value(graph, n) >= 0);
        if (copied_value(graph, n) < 0) continue;
        int first = first_in_need(offload->plan, passes, n);
        /* A later copy's end is the end of all before it. */
        if (first < graph->node_count) offload->needs[first] = offload->before[n + 1];
    }
    /* Nor does one wait again for what an earlier one has waited for: a launch that does begins later. */
    for (int n = 0, waited = 0; n < graph->node_count; n++) {
        if (offload->needs[n] <= waited) offload->needs[n] = 0;
        if (offload->needs[n]) waited = offload->needs[n];
    }
    offload->count = offload->before[graph->node_count];
}

static bool make_events(struct offload *offload, struct error *err) {
    size_t count = (size_t)offload->count;
    offload->begun = mem_calloc(count + 1, sizeof *offload->begun);
    offload->done = mem_calloc(count + 1, sizeof *offload->done);
    bool ok = (offload->begun && offload->done) || error_no_memory(err, "cuda", count * sizeof(cudaEvent_t));
    for (size_t i = 0; ok && i < count; i++)
        ok = cuda_check(cudaEventCreateWithFlags(&offload->begun[i], cudaEventDisableTiming), "make an event",
                        err) &&
             cuda_check(cudaEventCreateWithFlags(&offload->done[i], cudaEventDisableTiming), "make an event",
                        err);
    return ok;
}

bool offload_open(struct offload **out, struct device *device, const struct plan *plan,
                  const struct passes *passes, struct error *err) {
    size_t nodes = (size_t)plan->graph->node_count;
    *out = NULL;
    if (!plan->offloaded_bytes) return true;
    struct offload *offload = mem_calloc(1, sizeof *offload);
    if (!offload) return error_no_memory(err, "cuda", sizeof *offload);
    *out = offload;
    offload->device = device;
    offload->plan = plan;
    offload->before = mem_calloc(nodes + 1, sizeof *offload->before);
    offload->needs = mem_calloc(nodes + 1, sizeof *offload->needs);
    bool ok = (offload->before && offload->needs) || error_no_memory(err, "cuda", nodes * sizeof(int));
    if (ok) find_needs(offload, passes);
    ok = ok && make_events(offload, err) &&
         cuda_check(cudaStreamCreateWithFlags(&offload->stream, cudaStreamNonBlocking), "open a stream",
                    err) &&
         offload_allocate((void **)&offload->host, plan->offloaded_bytes, err);
    if (!ok) offload_close(out);
    return ok;
}

void offload_close(struct offload **handle) {
    struct offload *offload = *handle;
    if (!offload) return;
    if (offload->stream) {
        cudaStreamSynchronize(offload->stream);
        cudaStreamDestroy(offload->stream);
    }
    for (int i = 0; i < offload->count; i++) {
        if (offload->begun && offload->begun[i]) cudaEventDestroy(offload->begun[i]);
        if (offload->done && offload->done[i]) cudaEventDestroy(offload->done[i]);
    }
    cudaFreeHost(offload->host);
    mem_free(offload->begun);
    mem_free(offload->done);
    mem_free(offload->before);
    mem_free(offload->needs);
    mem_free(offload);
    *handle = NULL;
}

void *offload_place(const struct offload *offload, int value) {
    return offload->host + offload->plan->offset[value];
}

bool offload_owns(const struct offload *offload, int n) {
    return offload && offload->before[n + 1] > offload->before[n];
}

static bool wait_for(const struct offload *offload, int copies, struct error *err) {
    return !copies || cuda_check(cudaStreamWaitEvent(offload->device->stream, offload->done[copies - 1], 0),
                                 "wait for a copy", err);
}

bool offload_wait(const struct offload *offload, int n, struct error *err) {
    return !offload || wait_for(offload, offload->needs[n], err);
}

bool offload_join(const struct offload *offload, int n, struct error *err) {
    return !offload || wait_for(offload, offload->before[n + 1], err);
}

bool offload_copy(const struct offload *offload, int n, const struct operand *to, const struct operand *from,
                  struct error *err) {
    int copy = offload->before[n];
    bool out = offload->plan->graph->values[offload->plan->graph->nodes[n].output[0]].offloaded;
    enum cudaMemcpyKind kind = out ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice;
    size_t element = dtype_row(from->dtype)->bytes, rows = (size_t)from->dim[0];
    size_t width = rows ? (size_t)operand_elements(from) / rows * element : 0,
           to_pitch = (size_t)to->stride * element, from_pitch = (size_t)from->stride * element;
    bool first = !n || !offload_owns(offload, n - 1); /* nothing is computed between neighbours */
    if (first && (!cuda_check(cudaEventRecord(offload->begun[copy], offload->device->stream),
                              "record an event", err) ||
                  !cuda_check(cudaStreamWaitEvent(offload->stream, offload->begun[copy], 0),
                              "wait for an event", err)))
        return false;
    cudaError_t status = cudaSuccess;
    if (to_pitch == width && from_pitch == width)
        status = cudaMemcpyAsync(to->data, from->data, rows * width, kind, offload->stream);
    else if (rows && width)
        status =
            cudaMemcpy2DAsync(to->data, to_pitch, from->data, from_pitch, width, rows, kind, offload->stream);
    return cuda_check(status, "copy between GPU and host", err) &&
           cuda_check(cudaEventRecord(offload->done[copy], offload->stream), "record an event", err);
}
