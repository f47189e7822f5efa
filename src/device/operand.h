/* A value of a graph as one run sees it. */
#ifndef HONE_DEVICE_OPERAND_H
#define HONE_DEVICE_OPERAND_H

#include "device/device.h"
#include "tensor/stored.h"

struct operand {
    void *data; /* NULL: absent. 64-byte aligned for transients and state, any alignment for mapped weights */
    enum dtype dtype;
    int rank;
    int64_t dim[op_max_rank];              /* actual, not planned, in dim[0] */
    int64_t stride;                        /* elements from a row to the next */
    struct stored_part part[tensor_parts]; /* of a weight whose scales lie apart (tensor/stored.h) */
};

/* How many rows of each kind a run has. */
void binding_counts(const struct binding *binding, int64_t counts[COUNT_KINDS]);
/* Everything but where it lies. */
struct operand operand_bound(const struct value *value, const struct binding *binding);
/* Where a run of a program stands: at a node, and at which rows of tokens where the node is of a loop. */
struct walk {
    const struct graph *graph;
    int node;  /* graph->node_count: the run is over */
    int begin; /* of the loop */
    int64_t first, rows, tokens;
};
/* At the node `first`, which is not inside of a loop. */
struct walk walk_begin(const struct graph *graph, const struct binding *binding, int first);
/* On by `nodes` nodes of one loop, or of none: behind a loop's last one, to its first one for the next rows.
 */
void walk_on(struct walk *walk, int nodes);
/* A node's operand, bound for all rows and with its place, cut to those that the walk is at. */
void walk_cut(const struct walk *walk, const struct value *value, struct operand *operand);
/* The same binding, for counting what the node does. */
struct binding walk_binding(const struct walk *walk, const struct binding *binding);
/* Looks at the node where the binding asks for it (binding.after). */
bool walk_look(const struct walk *walk, const struct binding *binding, int node, struct error *err);
/* Checks that the counts fit the plan and that every input the graph reads is bound. */
bool operands_check(const struct graph *graph, const struct binding *binding, struct error *err);
/* What stands between two operations: ERROR_INTERRUPTED when the run is to be left. */
bool operands_go_on(const struct binding *binding, struct error *err);
/* A matrix of any stored type. */
struct stored operand_stored(const struct operand *operand);
int64_t operand_elements(const struct operand *operand);
/* What a product is made in: bf16 or f16 when one of the activations that it reads is stored so or its
 * attribute says so; otherwise f32. */
enum dtype operand_compute(const struct graph *graph, const struct node *node);

#endif
