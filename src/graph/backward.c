/* The backward pass: each node's rule in reverse order, gradients gathered per value. */
#include <string.h>

#include "base/mem.h"
#include "graph/graph.h"

struct pass {
    struct graph *graph;
    int *gradient; /* [values of the forward pass] gathered so far, -1: none */
};

static int replace_reads(void *user, int old_value, int new_value) {
    struct pass *pass = user;
    int replaced = 0;
    for (int n = 0; n < pass->graph->node_count; n++) {
        struct node *node = &pass->graph->nodes[n];
        for (int i = 0; i < node->inputs; i++)
            if (node->input[i] == old_value) {
                node->input[i] = new_value;
                replaced++;
            }
    }
    return replaced;
}

struct pass_user {
    struct pass *pass;
    int (*state_gradient)(void *user, int state_value);
    void *user;
};

static int pass_replace(void *user, int old_value, int new_value) {
    return replace_reads(((struct pass_user *)user)->pass, old_value, new_value);
}

static int pass_state_gradient(void *user, int state_value) {
    struct pass_user *u = user;
    return u->state_gradient(u->user, state_value);
}

static void node_backward(struct pass_user *user, int index) {
    struct graph *graph = user->pass->graph;
    const struct node node = graph->nodes[index];
    const struct op_row *row = op_row(node.op);
    struct backward b = {.graph = graph,
                         .node = index,
                         .state_gradient = pass_state_gradient,
                         .replace = pass_replace,
                         .user = user};
    bool reached = node.outputs == 0, wanted = false;
    for (int o = 0; o < node.outputs; o++) {
        b.output_gradient[o] = node.output[o] >= 0 ? user->pass->gradient[node.output[o]] : -1;
        if (o == 0 && b.output_gradient[o] >= 0) reached = true;
    }
    int none[op_max_inputs];
    for (int i = 0; i < node.inputs; i++) {
        int value = node.input[i];
        none[i] = -1;
        b.input_gradient[i] = value >= 0 ? &user->pass->gradient[value] : &none[i];
        b.needed[i] = value >= 0 && graph->values[value].needs_gradient;
        if (b.needed[i]) wanted = true;
    }
    if (!row->backward || !reached || !wanted) return;
    graph->block = node.block;
    row->backward(&b);
}

/* Moves nodes without outputs of the forward part behind everything else. */
static bool roots_last(struct graph *graph, int forward, struct error *err) {
    struct node *roots = mem_array((size_t)forward + 1, sizeof *roots);
    if (!roots) return error_no_memory(err, "graph", (size_t)forward * sizeof *roots);
    int kept = 0, count = 0;
    for (int n = 0; n < graph->node_count; n++) {
        if (n < forward && graph->nodes[n].outputs == 0)
            roots[count++] = graph->nodes[n];
        else
            graph->nodes[kept++] = graph->nodes[n];
    }
    memcpy(graph->nodes + kept, roots, (size_t)count * sizeof *roots);
    mem_free(roots);
    for (int n = 0; n < graph->node_count; n++)
        for (int o = 0; o < graph->nodes[n].outputs; o++)
            if (graph->nodes[n].output[o] >= 0) graph->values[graph->nodes[n].output[o]].producer = n;
    return true;
}

bool graph_backward(struct graph *graph, int (*state_gradient)(void *user, int state_value), void *user,
                    struct error *err) {
    int forward = graph->node_count, values = graph->value_count;
    struct pass pass = {.graph = graph, .gradient = mem_array((size_t)values + 1, sizeof(int))};
    struct pass_user pass_user = {&pass, state_gradient, user};
    if (!pass.gradient) return error_no_memory(err, "graph", (size_t)values * sizeof(int));
    for (int i = 0; i < values; i++) pass.gradient[i] = -1;
    graph->backward = true;
    for (int n = forward - 1; n >= 0 && !graph->failed; n--) node_backward(&pass_user, n);
    graph->backward = false;
    graph->block = -1;
    mem_free(pass.gradient);
    if (graph->failed) return error_no_memory(err, "graph", 0);
    return roots_last(graph, forward, err);
}
