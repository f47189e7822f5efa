/* Passes over a graph: the backward pass, dropping what nobody reads, folding, recomputation, a dump.
 *
 * This folder knows graphs as data. It runs nothing and knows no device. */
#ifndef HONE_GRAPH_GRAPH_H
#define HONE_GRAPH_GRAPH_H

#include "base/buf.h"
#include "op/op.h"

/* Appends the backward pass of every root (a node without outputs that has a backward rule, such as
 * the loss). `state_gradient` gives the state value that gathers the gradient of a trained state value.
 * Roots move to the end, since they may then read what the backward pass yields. */
bool graph_backward(struct graph *graph, int (*state_gradient)(void *user, int state_value), void *user,
                    struct error *err);

/* Removes nodes whose outputs nobody reads and that write no state. */
bool graph_prune(struct graph *graph, struct error *err);

/* Puts a linear product of low rank (an adapter's) onto the product that it is added to: one node instead of
 * two, and its sum is not written and read again. */
bool graph_fold(struct graph *graph, struct error *err);

/* Recomputation inside blocks: what the backward pass of a block reads is computed again just before, and
 * nothing else. GRAPH_KEEP_EDGES keeps only what crosses a block's edge; GRAPH_KEEP_COSTLY keeps all but the
 * outputs of operations that are cheap (op_row.cheap), which costs almost no time. GRAPH_KEEP_OFFLOADED keeps
 * the same, but elsewhere (value.offloaded): copied there once made, and back before the block's backward
 * pass reads it. GRAPH_KEEP_EDGES_OFFLOADED does so with what GRAPH_KEEP_EDGES keeps, and copies back a block
 * ahead: for a device that computes meanwhile, and makes the rest sooner than it would come back. All this
 * for the first `layers`; those behind them are kept as GRAPH_KEEP_COSTLY does. */
enum graph_keep {
    GRAPH_KEEP_ALL,
    GRAPH_KEEP_COSTLY,
    GRAPH_KEEP_EDGES,
    GRAPH_KEEP_OFFLOADED,
    GRAPH_KEEP_EDGES_OFFLOADED
};
/* `span` neighbouring layers are one block. What crosses from one to the next inside is then made again with
 * them, and attention's outputs are held till their layer's turn; all other operations of a layer are done
 * once more for its own backward pass, so that no more of the block than that is there at a time. */
bool graph_recompute(struct graph *graph, enum graph_keep keep, int layers, int span, struct error *err);

/* The second half of both: inserts the copies of what the first `layers` read. */
bool graph_offload(struct graph *graph, bool ahead, int layers, int span, struct error *err);

/* The block of `span` layers that a node is in; -1: none. */
static inline int graph_block(const struct node *node, int span) {
    return node->block < 0 ? -1 : node->block / span;
}

/* Rows of pieces are multiples of this, so that each piece of rows begins at 64 bytes. */
enum { piece_step = 32 };

/* The last pass: makes loops of neighbours that can be run for at most `rows` rows of tokens at a time,
 * rounded up to a multiple of piece_step (pieces.c). */
bool graph_cut(struct graph *graph, int64_t rows, struct error *err);
/* Rows of each piece but the last, of so many rows of tokens: even pieces. */
int64_t graph_piece(const struct graph *graph, int64_t rows);

/* Notes for each value which node writes it, after nodes have moved. */
void graph_set_producers(struct graph *graph);

/* Nodes in a new order, which a pass gathers and then gives to the graph in place of its own. All zero:
 * empty. */
struct node_list {
    struct node *nodes;
    int count, capacity;
};
bool node_list_add(struct node_list *list, const struct node *node); /* false: out of memory */
void node_list_give(struct node_list *list, struct graph *graph);    /* sets producers too */

/* One line a node, for people. */
bool graph_dump(const struct graph *graph, struct buf *out);

#endif
