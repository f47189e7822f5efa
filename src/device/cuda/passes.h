/* Nodes that one reading of their wide rows serves (pass.cu). Which ones is found when a program is compiled,
 * from its graph and plan (passes_find.c); the graph says nothing of it.
 *
 * A node leads, runs as usual, or is served: what it adds to state the leader has added already, and of what
 * it yields, for which the plan has a place only when its turn comes, parts of the sums wait in the
 * workspace. So such nodes stand right behind the leader. */
#ifndef HONE_DEVICE_CUDA_PASSES_H
#define HONE_DEVICE_CUDA_PASSES_H

#include "device/cuda/cuda.h"
#include "graph/plan.h"

enum pass_role { PASS_ALONE, PASS_LEADS, PASS_FOLLOWS, PASS_DONE };

/* A pass: its leader, and the nodes whose products its factors are; -1: none. One of a higher rank than a
 * factor has several. */
struct pass_group {
    enum pass_kind kind;
    int leader, wide; /* node, and which of its inputs has the rows, PASS_ROWS alone */
    int norm, rstd;   /* PASS_NORM: the node whose rows it makes, and the one that has made their rstd */
    int along[pass_most], across[pass_most];
    int alongs, acrosses;
    struct pass pass; /* of this run */
};
struct passes {
    const struct plan *plan;
    struct pass_group *groups;
    struct {
        enum pass_role role;
        int group;
    } * nodes; /* [nodes] */
    int count;
};

/* A product with a wide side, whose rows a pass reads, and a factor. */
struct thin_node {
    bool across;
    int wide;   /* which input has the rows */
    int factor; /* which one the factor's numbers */
    int64_t rank;
    bool by_rank; /* numbers (along), or sums (across), lie rank by rank */
};

/* passes_find.c: fills a passes whose arrays are zero. */
void passes_find(struct passes *passes);
/* False where the node is no such product. */
bool pass_thin_node(const struct graph *graph, const struct node *node, struct thin_node *out);
/* Scratch bytes of a node that may lead. */
size_t passes_workspace(const struct graph *graph, const struct node *node);

/* Whether a pass of so many rows has to do with one of the nodes [first, end). */
bool passes_claim(const struct passes *passes, int first, int end, int64_t rows);

bool passes_open(struct passes **out, const struct plan *plan, struct error *err);
void passes_close(struct passes **passes);
/* Whether node n or a later one is served by an earlier node than n. */
bool passes_cross(const struct passes *passes, int n);
/* The node at whose turn node n reads what it reads: itself, or a leader before it. */
int passes_reads_at(const struct passes *passes, int n);
/* Runs node n where it leads or is served: *served, else it is to be run as usual. call_of gives the operands
 * of a node in this run; rows: of the run's tokens. */
bool passes_run(struct passes *passes, int n, int64_t rows, struct call (*call_of)(void *user, int node),
                void *user, bool *served, struct error *err);

#endif
