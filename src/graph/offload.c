/* Offloading: what a block's forward pass makes and its backward pass reads lies elsewhere in between.
 *
 *   forward:   v = op(...)        file = copy(v)       v's place is free after its last forward reader
 *   backward:  twin = copy(file)  reads of v in this block become reads of twin
 *
 * The copies back stand in front of their first readers or, `ahead`, where the backward pass of the block
 * before theirs begins, so that a device has that block's time for them; and v's place stays its own till the
 * copies of the next block, by which time it has been copied. */
#include <string.h>

#include "base/mem.h"
#include "graph/graph.h"

/* Values that are copied together. */
struct round {
    int *values;
    int count;
};

struct offload {
    struct graph *graph;
    struct node_list list;
    bool *wanted;    /* [values] */
    int *file;       /* [values] its place in the file, -1: not copied yet */
    int *twin;       /* [values] read back, for … */
    int *twin_block; /* … this block */
    int waiting;     /* node of the old order up to which outputs have been copied */
    int span;        /* layers of a block */
    bool ahead;
    struct round last, now; /* of a forward pass */
    int64_t largest;        /* bytes of a row of what is copied */
};

/* A value like another; -1 once the graph has failed. */
static int like(struct graph *graph, int value, bool offloaded) {
    const struct value from = graph->values[value];
    int made = graph_transient(graph, from.dtype, from.count, from.rank, from.dim, from.name);
    if (made >= 0) graph->values[made].offloaded = offloaded;
    return made;
}

static bool copy(struct offload *o, int from, int to, int block, bool backward) {
    bool holds = o->ahead && !backward && o->now.count < o->last.count;
    struct node node = {.op = OP_COPY,
                        .inputs = 2,
                        .outputs = 1,
                        .input = {from, holds ? o->last.values[o->now.count] : -1},
                        .output = {to},
                        .block = block,
                        .backward = backward};
    if (!backward) o->now.values[o->now.count++] = from;
    return to >= 0 && node_list_add(&o->list, &node);
}

static int64_t row_bytes(const struct graph *graph, int value) {
    const struct value *v = &graph->values[value];
    return v->dim[1] * (int64_t)dtype_row(v->dtype)->bytes;
}

/* Whether a node makes something that takes long to copy. */
static bool makes_large(const struct offload *o, const struct node *node) {
    enum { times = 64 };
    for (int i = 0; i < node->outputs; i++)
        if (node->output[i] >= 0 && o->wanted[node->output[i]] &&
            row_bytes(o->graph, node->output[i]) * times > o->largest)
            return true;
    return false;
}

/* Copies what the nodes from `waiting` to before `n` have made. Nodes of one operation stay side by side,
 * since a device may run them in one go. What is small waits for the next that is large, unless it is to be
 * `all`, so that the copies of a block are one round: a copy ends the time that one of the round before has.
 */
static bool flush(struct offload *o, int n, bool all) {
    const struct round before = o->last;
    for (int i = o->waiting; !all && i < n; i++) all = makes_large(o, &o->graph->nodes[i]);
    for (; all && o->waiting < n; o->waiting++) {
        const struct node *node = &o->graph->nodes[o->waiting];
        for (int i = 0; i < node->outputs; i++) {
            int v = node->output[i];
            if (v < 0 || !o->wanted[v]) continue;
            o->file[v] = like(o->graph, v, true);
            if (!copy(o, v, o->file[v], node->block, false)) return false;
        }
    }
    if (!o->now.count) return true;
    o->last = o->now;
    o->now = (struct round){before.values, 0};
    return true;
}

/* Reads of a backward node become reads of what is copied back, once a block. */
static bool read_back(struct offload *o, struct node *node) {
    for (int i = 0; i < node->inputs; i++) {
        int v = node->input[i];
        if (v < 0 || !o->wanted[v]) continue;
        if (o->twin[v] < 0 || o->twin_block[v] != graph_block(node, o->span)) {
            o->twin[v] = like(o->graph, v, false);
            o->twin_block[v] = graph_block(node, o->span);
            if (!copy(o, o->file[v], o->twin[v], node->block, true)) return false;
        }
        node->input[i] = o->twin[v];
    }
    return true;
}

/* Moves copies back up to the first node of the block that the backward pass goes through before theirs; in
 * its first block, to that block's first. Blocks lie side by side in it. */
static void move_ahead(struct node_list *list, int span) {
    int begin = -1, before = -1; /* of this block, and of the one before it */
    for (int n = 0; n < list->count; n++) {
        const struct node node = list->nodes[n];
        if (!node.backward) continue;
        if (begin < 0) begin = before = n;
        if (graph_block(&node, span) != graph_block(&list->nodes[begin], span)) {
            before = begin;
            begin = n;
        }
        if (node.op != OP_COPY) continue;
        memmove(&list->nodes[before + 1], &list->nodes[before], (size_t)(n - before) * sizeof node);
        list->nodes[before] = node;
        if (before < begin) begin++;
    }
}

/* What was made in no block is worth it where one block alone reads it: the first one's input. */
static bool is_of_one_block(const struct graph *graph, int value, int block) {
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; graph->nodes[n].backward && i < graph->nodes[n].inputs; i++)
            if (graph->nodes[n].input[i] == value && graph->nodes[n].block != block) return false;
    return true;
}

/* A number a row stays: it takes no memory to speak of. So does what the head alone reads, whose backward
 * pass comes next. */
static void choose(struct offload *o, int values, int layers) {
    const struct graph *graph = o->graph;
    for (int v = 0; v < values; v++) o->file[v] = o->twin[v] = -1;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        bool reads = node->backward && node->block >= 0 && node->block < layers;
        for (int i = 0; reads && i < node->inputs; i++) {
            int v = node->input[i], made_by = v < 0 ? -1 : graph->values[v].producer;
            if (made_by >= 0 && !o->wanted[v] && !graph->nodes[made_by].backward && !graph->values[v].keep &&
                graph->values[v].rank > 1)
                o->wanted[v] = graph->nodes[made_by].block >= 0 || is_of_one_block(graph, v, node->block);
            if (v >= 0 && o->wanted[v] && row_bytes(graph, v) > o->largest) o->largest = row_bytes(graph, v);
        }
    }
}

bool graph_offload(struct graph *graph, bool ahead, int layers, int span, struct error *err) {
    size_t values = (size_t)graph->value_count + 1;
    struct offload o = {.graph = graph,
                        .span = span,
                        .ahead = ahead,
                        .wanted = mem_calloc(values, sizeof *o.wanted),
                        .file = mem_array(values, sizeof *o.file),
                        .twin = mem_array(values, sizeof *o.twin),
                        .twin_block = mem_calloc(values, sizeof *o.twin_block),
                        .last = {mem_array(values, sizeof *o.last.values), 0},
                        .now = {mem_array(values, sizeof *o.now.values), 0}};
    bool ok = o.wanted && o.file && o.twin && o.twin_block && o.last.values && o.now.values;
    graph_set_producers(graph);
    if (ok) choose(&o, graph->value_count, layers);
    for (int n = 0; ok && n < graph->node_count; n++) {
        struct node node = graph->nodes[n];
        if (n && graph->nodes[n - 1].op != node.op) ok = flush(&o, n, !ahead);
        ok = ok && (!node.backward || (flush(&o, n, true) && read_back(&o, &node))) &&
             node_list_add(&o.list, &node);
    }
    if (ok && ahead) move_ahead(&o.list, span);
    if (ok)
        node_list_give(&o.list, graph);
    else
        error_no_memory(err, "graph", values * sizeof(int));
    mem_free(o.list.nodes);
    mem_free(o.wanted);
    mem_free(o.file);
    mem_free(o.twin);
    mem_free(o.twin_block);
    mem_free(o.last.values);
    mem_free(o.now.values);
    return ok;
}
