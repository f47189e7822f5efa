/* Offloading: what a block's forward pass makes and its backward pass reads goes to a file in between.
 *
 *   forward:   v = op(...)        file = copy(v)       v's place is free after its last forward reader
 *   backward:  twin = copy(file)  reads of v in this block become reads of twin */
#include "base/mem.h"
#include "graph/graph.h"

struct offload {
    struct graph *graph;
    struct node_list list;
    bool *wanted;    /* [values] */
    int *file;       /* [values] its place in the file, -1: not copied yet */
    int *twin;       /* [values] read back, for … */
    int *twin_block; /* … this block */
    int waiting;     /* node of the old order up to which outputs have been copied */
};

/* A value like another; -1 once the graph has failed. */
static int like(struct graph *graph, int value, bool offloaded) {
    const struct value from = graph->values[value];
    int made = graph_transient(graph, from.dtype, from.count, from.rank, from.dim, from.name);
    if (made >= 0) graph->values[made].offloaded = offloaded;
    return made;
}

static bool copy(struct offload *o, int from, int to, int block, bool backward) {
    struct node node = {.op = OP_COPY,
                        .inputs = 1,
                        .outputs = 1,
                        .input = {from},
                        .output = {to},
                        .block = block,
                        .backward = backward};
    return to >= 0 && node_list_add(&o->list, &node);
}

/* Copies what the nodes from `waiting` to before `n` have made. Nodes of one operation stay side by side,
 * since a device may run them in one go. */
static bool flush(struct offload *o, int n) {
    for (; o->waiting < n; o->waiting++) {
        const struct node *node = &o->graph->nodes[o->waiting];
        for (int i = 0; i < node->outputs; i++) {
            int v = node->output[i];
            if (v < 0 || !o->wanted[v]) continue;
            o->file[v] = like(o->graph, v, true);
            if (!copy(o, v, o->file[v], node->block, false)) return false;
        }
    }
    return true;
}

/* Reads of a backward node become reads of what is copied back, once a block. */
static bool read_back(struct offload *o, struct node *node) {
    for (int i = 0; i < node->inputs; i++) {
        int v = node->input[i];
        if (v < 0 || !o->wanted[v]) continue;
        if (o->twin[v] < 0 || o->twin_block[v] != node->block) {
            o->twin[v] = like(o->graph, v, false);
            o->twin_block[v] = node->block;
            if (!copy(o, o->file[v], o->twin[v], node->block, true)) return false;
        }
        node->input[i] = o->twin[v];
    }
    return true;
}

static void choose(struct offload *o, int values) {
    const struct graph *graph = o->graph;
    for (int v = 0; v < values; v++) o->file[v] = o->twin[v] = -1;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        for (int i = 0; node->backward && i < node->inputs; i++) {
            int v = node->input[i], made_by = v < 0 ? -1 : graph->values[v].producer;
            if (made_by >= 0 && !graph->nodes[made_by].backward && graph->nodes[made_by].block >= 0 &&
                !graph->values[v].keep)
                o->wanted[v] = true;
        }
    }
}

bool graph_offload(struct graph *graph, struct error *err) {
    size_t values = (size_t)graph->value_count + 1;
    struct offload o = {.graph = graph,
                        .wanted = mem_calloc(values, sizeof *o.wanted),
                        .file = mem_array(values, sizeof *o.file),
                        .twin = mem_array(values, sizeof *o.twin),
                        .twin_block = mem_calloc(values, sizeof *o.twin_block)};
    bool ok = o.wanted && o.file && o.twin && o.twin_block;
    graph_set_producers(graph);
    if (ok) choose(&o, graph->value_count);
    for (int n = 0; ok && n < graph->node_count; n++) {
        struct node node = graph->nodes[n];
        if (n && graph->nodes[n - 1].op != node.op) ok = flush(&o, n);
        ok =
            ok && (!node.backward || (flush(&o, n) && read_back(&o, &node))) && node_list_add(&o.list, &node);
    }
    if (ok)
        node_list_give(&o.list, graph);
    else
        error_no_memory(err, "graph", values * sizeof(int));
    mem_free(o.list.nodes);
    mem_free(o.wanted);
    mem_free(o.file);
    mem_free(o.twin);
    mem_free(o.twin_block);
    return ok;
}
