#include "device/timeline.h"

#include "base/mem.h"
#include "device/operand.h"

static double flops_of(const struct graph *graph, const struct binding *binding, int node) {
    const struct op_row *row = op_row(graph->nodes[node].op);
    int64_t counts[COUNT_KINDS];
    binding_counts(binding, counts);
    return row->flops ? row->flops(graph, &graph->nodes[node], counts) : 0;
}

bool timeline_add(struct timeline *timeline, const struct graph *graph, const struct binding *binding,
                  int node, int nodes, double begin, double end, struct error *err) {
    if (timeline->count == timeline->room) {
        size_t room = timeline->room ? 2 * timeline->room : 1024;
        struct timeline_span *spans = mem_realloc(timeline->spans, room * sizeof *spans);
        if (!spans) return error_no_memory(err, "timeline", room * sizeof *spans);
        timeline->spans = spans;
        timeline->room = room;
    }
    struct timeline_span span = {.graph = graph, .node = node, .nodes = nodes, .begin = begin, .end = end};
    for (int n = node; n < node + nodes; n++) span.flops += flops_of(graph, binding, n);
    timeline->spans[timeline->count++] = span;
    return true;
}

void timeline_clear(struct timeline *timeline) { timeline->count = 0; }

void timeline_release(struct timeline *timeline) {
    mem_free(timeline->spans);
    *timeline = (struct timeline){0};
}
