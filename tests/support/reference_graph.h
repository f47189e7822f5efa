/* Small graphs of matrices, computed node by node by the operations' f64 references: what a pass over a graph
 * must leave as it was. */
#ifndef TESTS_SUPPORT_REFERENCE_GRAPH_H
#define TESTS_SUPPORT_REFERENCE_GRAPH_H

#include <math.h>
#include <string.h>

#include "graph/graph.h"

/* The numbers of value v begin at numbers[v * room]. */
struct reference_graph {
    double *numbers;
    size_t room;
};

static inline double *reference_numbers(const struct reference_graph *r, int value) {
    return r->numbers + (size_t)value * r->room;
}

/* A new matrix, which no node makes, with numbers of its own. */
static inline int reference_matrix(const struct reference_graph *r, struct graph *graph, int64_t rows,
                                   int64_t columns) {
    int64_t dim[2] = {rows, columns};
    int value = graph_transient(graph, DTYPE_F32, COUNT_FIXED, 2, dim, "matrix");
    for (int64_t i = 0; i < rows * columns; i++)
        reference_numbers(r, value)[i] = sin((double)(i + 1) * (value + 2));
    return value;
}

static inline void reference_compute(const struct reference_graph *r, const struct graph *graph) {
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        struct reference_call call = {.attributes = &node->attributes};
        struct reference_operand *operands[2] = {call.in, call.out};
        for (int side = 0; side < 2; side++)
            for (int i = 0; i < (side ? node->outputs : node->inputs); i++) {
                int value = side ? node->output[i] : node->input[i];
                if (value < 0) continue;
                operands[side][i].data = reference_numbers(r, value);
                operands[side][i].rank = 2;
                memcpy(operands[side][i].dim, graph->values[value].dim, sizeof operands[side][i].dim);
            }
        op_row(node->op)->reference(&call);
    }
}

#endif
