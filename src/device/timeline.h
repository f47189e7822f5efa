/* When the operations of programs ran: a device adds them to the timeline that its binding names, and whoever
 * bound it reads them after the run. */
#ifndef HONE_DEVICE_TIMELINE_H
#define HONE_DEVICE_TIMELINE_H

#include "device/device.h"

struct timeline_span {
    const struct graph *graph;
    int node, nodes;   /* the first one, and how many from it on ran as one */
    double begin, end; /* seconds, of clock_seconds */
    double flops;      /* floating-point operations, with the counts of that run */
};

struct timeline {
    struct timeline_span *spans; /* [count], in the order in which they ran */
    size_t count, room;
};

/* Adds `nodes` nodes from `node` on. */
bool timeline_add(struct timeline *timeline, const struct graph *graph, const struct binding *binding,
                  int node, int nodes, double begin, double end, struct error *err);
/* Forgets the spans and keeps their room. */
void timeline_clear(struct timeline *timeline);
void timeline_release(struct timeline *timeline);

#endif
