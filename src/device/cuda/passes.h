/* Nodes that one reading of their wide rows serves (pass.cu). Which ones is found when a program is compiled,
 * from its graph and plan; the graph says nothing of it.
 *
 * A node leads, runs as usual, or is served: what it adds to state the leader has added already, and of what
 * it yields, for which the plan has a place only when its turn comes, parts of the sums wait in the
 * workspace. So such nodes stand right behind the leader. */
#ifndef HONE_DEVICE_CUDA_PASSES_H
#define HONE_DEVICE_CUDA_PASSES_H

#include "device/cuda/cuda.h"
#include "graph/plan.h"

struct passes;
bool passes_open(struct passes **out, const struct plan *plan, struct error *err);
void passes_close(struct passes **passes);
/* Runs node n where it leads or is served: *served, else it is to be run as usual. call_of gives the operands
 * of a node in this run; rows: of the run's tokens. */
bool passes_run(struct passes *passes, int n, int64_t rows, struct call (*call_of)(void *user, int node),
                void *user, bool *served, struct error *err);
/* Scratch bytes of a node that may lead. */
size_t passes_workspace(const struct graph *graph, const struct node *node);

#endif
