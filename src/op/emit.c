/* Growing a graph: values and nodes, with shapes from the operations' rows. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "op/op.h"

void graph_init(struct graph *graph) {
    memset(graph, 0, sizeof *graph);
    graph->block = -1;
}

void graph_release(struct graph *graph) {
    mem_free(graph->values);
    mem_free(graph->nodes);
    graph_init(graph);
}

/* Room for one more element of `size` bytes; the array doubles. */
static bool grow(struct graph *graph, void **array, int count, int *capacity, size_t size) {
    if (count < *capacity) return true;
    int larger = *capacity ? *capacity * 2 : 256;
    void *moved = mem_realloc(*array, (size_t)larger * size);
    if (!moved) {
        graph->failed = true;
        return false;
    }
    *array = moved;
    *capacity = larger;
    return true;
}

static int add_value(struct graph *graph, const struct value *value, const char *name) {
    if (graph->failed ||
        !grow(graph, (void **)&graph->values, graph->value_count, &graph->value_capacity, sizeof *value))
        return -1;
    struct value *added = &graph->values[graph->value_count];
    *added = *value;
    snprintf(added->name, sizeof added->name, "%s", name ? name : "");
    return graph->value_count++;
}

int graph_input(struct graph *graph, enum input_name name, enum dtype dtype, enum count count, int64_t most) {
    for (int i = 0; i < graph->value_count; i++) /* one value per input, however often it is asked for */
        if (graph->values[i].kind == VALUE_INPUT && graph->values[i].which == (int)name) return i;
    struct value value = {.kind = VALUE_INPUT,
                          .dtype = dtype,
                          .count = count,
                          .rank = 1,
                          .dim = {most},
                          .producer = -1,
                          .which = (int)name};
    return add_value(graph, &value, "input");
}

int graph_state(struct graph *graph, int row, enum dtype dtype, int rank, const int64_t *dim,
                const char *name) {
    for (int i = 0; i < graph->value_count; i++)
        if (graph->values[i].kind == VALUE_STATE && graph->values[i].which == row) return i;
    struct value value = {.kind = VALUE_STATE,
                          .dtype = dtype,
                          .count = COUNT_FIXED,
                          .rank = rank,
                          .producer = -1,
                          .which = row};
    memcpy(value.dim, dim, (size_t)rank * sizeof *dim);
    return add_value(graph, &value, name);
}

int graph_transient(struct graph *graph, enum dtype dtype, enum count count, int rank, const int64_t *dim,
                    const char *name) {
    struct value value = {
        .kind = VALUE_TRANSIENT, .dtype = dtype, .count = count, .rank = rank, .producer = -1, .which = -1};
    memcpy(value.dim, dim, (size_t)rank * sizeof *dim);
    return add_value(graph, &value, name);
}

int graph_emit(struct graph *graph, enum op_code op, const int *inputs, const struct attributes *attributes,
               enum dtype dtype, const char *name) {
    const struct op_row *row = op_row(op);
    if (graph->failed ||
        !grow(graph, (void **)&graph->nodes, graph->node_count, &graph->node_capacity, sizeof(struct node)))
        return -1;
    struct node node = {.op = op,
                        .inputs = row->inputs,
                        .outputs = row->outputs,
                        .block = graph->block,
                        .backward = graph->backward};
    if (attributes) node.attributes = *attributes;
    bool needs_gradient = false;
    for (int i = 0; i < row->inputs; i++) {
        node.input[i] = inputs[i];
        if (inputs[i] >= 0 && graph->values[inputs[i]].needs_gradient) needs_gradient = true;
    }
    struct value out[op_max_outputs] = {0};
    for (int o = 0; o < row->outputs; o++)
        out[o] = (struct value){.kind = VALUE_TRANSIENT,
                                .dtype = dtype,
                                .producer = graph->node_count,
                                .which = -1,
                                .needs_gradient = needs_gradient && !graph->backward};
    if (row->shapes) row->shapes(graph, &node, out, dtype);
    for (int o = 0; o < row->outputs; o++) {
        node.output[o] = add_value(graph, &out[o], name ? name : row->name);
        if (node.output[o] < 0) return -1;
    }
    graph->nodes[graph->node_count] = node;
    return graph->node_count++;
}

int graph_output(const struct graph *graph, int node, int which) {
    return node < 0 ? -1 : graph->nodes[node].output[which];
}
