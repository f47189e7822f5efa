/* Dropping what nobody reads, recomputation by blocks, and the dump. */
#include <string.h>

#include "base/mem.h"
#include "graph/graph.h"

void graph_set_producers(struct graph *graph) {
    for (int v = 0; v < graph->value_count; v++) graph->values[v].producer = -1;
    for (int n = 0; n < graph->node_count; n++)
        for (int o = 0; o < graph->nodes[n].outputs; o++)
            if (graph->nodes[n].output[o] >= 0) graph->values[graph->nodes[n].output[o]].producer = n;
}

bool graph_prune(struct graph *graph, struct error *err) {
    bool *read = mem_calloc((size_t)graph->value_count + 1, sizeof *read);
    bool *live = mem_calloc((size_t)graph->node_count + 1, sizeof *live);
    bool ok = read && live;
    if (!ok) error_no_memory(err, "graph", sizeof *read);
    for (int n = graph->node_count - 1; ok && n >= 0; n--) {
        const struct node *node = &graph->nodes[n];
        live[n] = op_row(node->op)->state_writes != 0;
        for (int o = 0; o < node->outputs; o++)
            if (node->output[o] >= 0 && (read[node->output[o]] || graph->values[node->output[o]].keep))
                live[n] = true;
        for (int i = 0; live[n] && i < node->inputs; i++)
            if (node->input[i] >= 0) read[node->input[i]] = true;
    }
    int kept = 0;
    for (int n = 0; ok && n < graph->node_count; n++)
        if (live[n]) graph->nodes[kept++] = graph->nodes[n];
    if (ok) graph->node_count = kept;
    if (ok) graph_set_producers(graph);
    mem_free(read);
    mem_free(live);
    return ok;
}

bool node_list_add(struct node_list *list, const struct node *node) {
    if (list->count == list->capacity) {
        int larger = list->capacity * 2 + 64;
        struct node *moved = mem_realloc(list->nodes, (size_t)larger * sizeof *moved);
        if (!moved) return false;
        list->nodes = moved;
        list->capacity = larger;
    }
    list->nodes[list->count++] = *node;
    return true;
}

void node_list_give(struct node_list *list, struct graph *graph) {
    mem_free(graph->nodes);
    graph->nodes = list->nodes;
    graph->node_count = list->count;
    graph->node_capacity = list->capacity;
    *list = (struct node_list){0};
    graph_set_producers(graph);
}

struct recompute {
    struct graph *graph;
    struct node_list list;
    int *clone;   /* [values] its recomputed twin, -1: none yet, made for the backward pass of … */
    int *layer;   /* … this one */
    bool *inside; /* [values] made and read inside one block only: not kept for the backward pass */
    bool *held;   /* [values] its twin serves all layers of its block */
    int reader;   /* the layer that twins are made for now */
    const struct node *old;
};

/* The recomputed twin of `value`. Depth is bounded by the nodes of one block. */
static int twin(struct recompute *r, int value, int producer_of[]) {
    if (value < 0 || !r->inside[value]) return value;
    if (r->clone[value] >= 0 && (r->held[value] || r->layer[value] == r->reader)) return r->clone[value];
    struct node copy = r->old[producer_of[value]];
    for (int i = 0; i < copy.inputs; i++) copy.input[i] = twin(r, copy.input[i], producer_of);
    for (int o = 0; o < copy.outputs; o++) {
        int made = copy.output[o];
        if (made < 0) continue;
        const struct value like = r->graph->values[made];
        copy.output[o] = graph_transient(r->graph, like.dtype, like.count, like.rank, like.dim, like.name);
        r->clone[made] = copy.output[o];
        r->layer[made] = r->reader;
    }
    copy.backward = true;
    if (!node_list_add(&r->list, &copy)) r->graph->failed = true;
    return r->clone[value];
}

/* What a reading of wide rows has made narrow, an adapter's x Aᵀ: kept, it takes a hundredth of x, and made
 * again, it costs that reading. */
static bool is_narrow(const struct graph *graph, int value) {
    enum { times = 128 };
    const struct value *made = &graph->values[value];
    const struct node *node = &graph->nodes[made->producer];
    return node->op == OP_LINEAR && made->dim[1] * times <= graph->values[node->input[0]].dim[1];
}

/* Which values are made again, and which of their twins are held. */
static void choose(struct recompute *r, enum graph_keep keep, int layers, int span, const int producer[],
                   size_t values) {
    const struct graph *graph = r->graph;
    for (size_t v = 0; v < values; v++) {
        int made_by = producer[v];
        r->clone[v] = r->layer[v] = -1;
        bool whole = made_by >= 0 && keep == GRAPH_KEEP_EDGES && graph->nodes[made_by].block < layers;
        bool again = whole || (made_by >= 0 && op_row(graph->nodes[made_by].op)->cheap);
        /* A number a row takes no memory to speak of, and what it stands for may be all that is wanted. */
        r->inside[v] = again && !graph->nodes[made_by].backward && graph->nodes[made_by].block >= 0 &&
                       !graph->values[v].keep && graph->values[v].rank > 1 && !is_narrow(graph, (int)v);
        r->held[v] = made_by >= 0 && !op_row(graph->nodes[made_by].op)->by_rows;
    }
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        for (int i = 0; i < node->inputs && !node->backward; i++) {
            int v = node->input[i];
            if (v < 0 || !r->inside[v]) continue;
            const struct node *maker = &graph->nodes[producer[v]];
            if (graph_block(maker, span) != graph_block(node, span)) r->inside[v] = false;
            if (maker->block != node->block) r->held[v] = true;
        }
    }
}

bool graph_recompute(struct graph *graph, enum graph_keep keep, int layers, int span, struct error *err) {
    if (keep == GRAPH_KEEP_ALL) return true;
    if (keep == GRAPH_KEEP_OFFLOADED)
        return graph_recompute(graph, GRAPH_KEEP_COSTLY, layers, span, err) &&
               graph_offload(graph, false, layers, span, err);
    if (keep == GRAPH_KEEP_EDGES_OFFLOADED)
        return graph_recompute(graph, GRAPH_KEEP_EDGES, layers, span, err) &&
               graph_offload(graph, true, layers, span, err);
    size_t values = (size_t)graph->value_count;
    struct recompute r = {.graph = graph,
                          .clone = mem_array(values + 1, sizeof(int)),
                          .layer = mem_array(values + 1, sizeof(int)),
                          .inside = mem_calloc(values + 1, sizeof(bool)),
                          .held = mem_calloc(values + 1, sizeof(bool)),
                          .old = graph->nodes};
    int *producer = mem_array(values + 1, sizeof(int));
    bool ok = r.clone && r.layer && r.inside && r.held && producer;
    graph_set_producers(graph);
    for (size_t v = 0; ok && v < values; v++) producer[v] = graph->values[v].producer;
    if (ok) choose(&r, keep, layers, span, producer, values);
    for (int n = 0; ok && n < graph->node_count; n++) {
        struct node node = graph->nodes[n];
        r.reader = node.block;
        for (int i = 0; i < node.inputs && node.backward; i++)
            node.input[i] = twin(&r, node.input[i], producer);
        ok = node_list_add(&r.list, &node) && !graph->failed;
    }
    if (ok)
        node_list_give(&r.list, graph);
    else
        error_no_memory(err, "graph", values * sizeof(int));
    mem_free(r.list.nodes);
    mem_free(r.clone);
    mem_free(r.layer);
    mem_free(r.inside);
    mem_free(r.held);
    mem_free(producer);
    return ok;
}

bool graph_dump(const struct graph *graph, struct buf *out) {
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        buf_printf(out, "%4d %s%s block %d loop %d:", n, node->backward ? "<" : ">", op_row(node->op)->name,
                   node->block, node->loop);
        for (int i = 0; i < node->inputs; i++) {
            if (node->input[i] < 0)
                buf_text(out, " -");
            else
                buf_printf(out, " %d:%s", node->input[i], graph->values[node->input[i]].name);
        }
        buf_text(out, " ->");
        for (int o = 0; o < node->outputs; o++) {
            const struct value *v = &graph->values[node->output[o]];
            buf_printf(out, " %d[%lld,%lld]%s", node->output[o], (long long)v->dim[0],
                       (long long)(v->rank > 1 ? v->dim[1] : 1), dtype_row(v->dtype)->name);
        }
        buf_byte(out, '\n');
    }
    return !out->failed;
}
