/* The plan: every transient value of a graph placed in one arena by lifetime, before anything is
 * allocated, and the figures that the user is shown. */
#ifndef HONE_GRAPH_PLAN_H
#define HONE_GRAPH_PLAN_H

#include "op/op.h"

struct plan {
    const struct graph *graph;
    uint64_t *offset;         /* [values] byte offset in the arena, or in the file; UINT64_MAX: in neither */
    uint64_t *bytes;          /* [values] bytes at the planned size */
    uint64_t offloaded_bytes; /* the same of the file that offloaded values lie in */
    uint64_t arena_bytes;     /* highest end of a placed value, a multiple of 64 */
    uint64_t workspace_bytes; /* the most that a node asks for; lies after the arena */
    double flops;             /* of one run at the planned size */
    /* [nodes] What is alive while each node runs: of the arena, and its own workspace. */
    uint64_t *live, *workspace;
};

/* `workspace` asks the device; may be NULL (0). The graph must outlive the plan. */
bool plan_build(struct plan *out, const struct graph *graph,
                size_t (*workspace)(const void *device, const struct graph *graph, const struct node *node),
                const void *device, struct error *err);
void plan_release(struct plan *plan);

#endif
