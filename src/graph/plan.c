/* Placing transient values. Values that overwrite one another form a group with one place; groups are
 * laid largest first at the lowest offset that no group alive at the same time takes. */
#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

struct group {       /* indexed by its root value */
    int root;        /* the value whose place this one shares */
    int first, last; /* nodes: from the writer to the last reader */
    uint64_t bytes;
};

static bool value_bytes(const struct graph *graph, const struct value *value, uint64_t *out) {
    uint64_t elements = value->rank ? (uint64_t)graph_room(graph, value) : 1;
    for (int i = 1; i < value->rank; i++)
        if (!checked_mul(elements, (uint64_t)(value->dim[i] + (i == 1 ? value->padding : 0)), &elements))
            return false;
    return dtype_bytes(value->dtype, elements, out) && checked_align(*out, 64, out);
}

/* True when output `o` of node `n` may lie on one of its inputs; *input is that value. */
static bool may_overwrite(const struct graph *graph, const struct group *groups, int n, int o, int *input) {
    const struct node *node = &graph->nodes[n];
    int place = op_row(node->op)->overwrite[o];
    if (place < 0 || node->input[place] < 0) return false;
    int in = node->input[place];
    const struct value *a = &graph->values[in], *b = &graph->values[node->output[o]];
    if (a->kind != VALUE_TRANSIENT || a->keep || a->dtype != b->dtype || a->count != b->count ||
        a->loop != b->loop)
        return false;
    for (int i = 0; i < node->inputs; i++) /* no other input may share the place */
        if (i != place && node->input[i] >= 0 && graph->values[node->input[i]].kind == VALUE_TRANSIENT &&
            groups[node->input[i]].root == groups[in].root)
            return false;
    *input = in;
    return groups[groups[in].root].last == n &&
           groups[groups[in].root].bytes == groups[node->output[o]].bytes;
}

/* What a loop shares with what is around it is there from the loop's first node to its last: its rows are
 * written and read piece after piece. */
static void stretch(const struct graph *graph, struct group *groups) {
    for (int v = 0; v < graph->value_count; v++) {
        struct group *group = &groups[v];
        if (group->root != v || group->first < 0 || graph->values[v].loop) continue;
        int loop = graph->nodes[group->first].loop;
        while (loop && group->first > 0 && graph->nodes[group->first - 1].loop == loop) group->first--;
        loop = group->last < graph->node_count ? graph->nodes[group->last].loop : 0;
        while (loop && group->last + 1 < graph->node_count && graph->nodes[group->last + 1].loop == loop)
            group->last++;
    }
}

static bool lifetimes(const struct graph *graph, struct group *groups, uint64_t *bytes, struct error *err) {
    for (int v = 0; v < graph->value_count; v++) {
        groups[v] = (struct group){.root = v, .first = -1, .last = -1};
        if (!value_bytes(graph, &graph->values[v], &groups[v].bytes))
            return error_set(err, ERROR_MEMORY, "plan", "the value %s is too large to address",
                             graph->values[v].name);
        bytes[v] = groups[v].bytes;
    }
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        for (int o = 0; o < node->outputs; o++)
            if (node->output[o] >= 0) groups[node->output[o]].first = groups[node->output[o]].last = n;
        for (int i = 0; i < node->inputs; i++)
            if (node->input[i] >= 0) groups[node->input[i]].last = n;
    }
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].keep) groups[v].last = graph->node_count;
    for (int n = 0; n < graph->node_count; n++)
        for (int o = 0; o < graph->nodes[n].outputs; o++) {
            int out = graph->nodes[n].output[o], in;
            if (out < 0 || !may_overwrite(graph, groups, n, o, &in)) continue;
            int root = groups[in].root;
            groups[out].root = root;
            groups[root].last = groups[out].last;
        }
    stretch(graph, groups);
    return true;
}

struct placed {
    uint64_t offset, bytes;
    int first, last, value;
};

static int larger_first(const void *a, const void *b) {
    const struct placed *p = a, *q = b;
    if (p->bytes != q->bytes) return p->bytes < q->bytes ? 1 : -1;
    return p->value - q->value;
}

static int lower_first(const void *a, const void *b) {
    const struct placed *const *p = a, *const *q = b;
    return (*p)->offset < (*q)->offset ? -1 : (*p)->offset > (*q)->offset;
}

/* Lowest gap among the groups laid so far that live at the same time. `alive` is scratch. */
static uint64_t lowest_gap(struct placed *placed, int count, const struct placed *next,
                           const struct placed **alive) {
    int live = 0;
    for (int i = 0; i < count; i++)
        if (placed[i].first <= next->last && next->first <= placed[i].last) alive[live++] = &placed[i];
    if (live) qsort(alive, (size_t)live, sizeof *alive, lower_first);
    uint64_t at = 0;
    for (int i = 0; i < live; i++) {
        if (alive[i]->offset >= at && alive[i]->offset - at >= next->bytes) break;
        if (alive[i]->offset + alive[i]->bytes > at) at = alive[i]->offset + alive[i]->bytes;
    }
    return at;
}

/* Lays the values of the arena, or those of the file; *end is where the highest ends. */
static bool place(struct plan *plan, const struct group *groups, bool offloaded, uint64_t *end,
                  struct error *err) {
    const struct graph *graph = plan->graph;
    size_t values = (size_t)graph->value_count;
    struct placed *placed = mem_array(values + 1, sizeof *placed);
    const struct placed **alive = mem_array(values + 1, sizeof *alive);
    bool ok = placed && alive;
    int count = 0;
    for (int v = 0; ok && v < graph->value_count; v++)
        if (graph->values[v].kind == VALUE_TRANSIENT && groups[v].root == v && groups[v].first >= 0 &&
            graph->values[v].offloaded == offloaded)
            placed[count++] = (struct placed){0, groups[v].bytes, groups[v].first, groups[v].last, v};
    if (ok) qsort(placed, (size_t)count, sizeof *placed, larger_first);
    for (int i = 0; ok && i < count; i++) {
        placed[i].offset = lowest_gap(placed, i, &placed[i], alive);
        plan->offset[placed[i].value] = placed[i].offset;
        if (placed[i].offset + placed[i].bytes > *end) *end = placed[i].offset + placed[i].bytes;
    }
    for (int v = 0; ok && v < graph->value_count; v++)
        if (groups[v].first >= 0 && groups[v].root != v) plan->offset[v] = plan->offset[groups[v].root];
    if (!ok) error_no_memory(err, "plan", values * sizeof *placed);
    mem_free(placed);
    mem_free(alive);
    return ok;
}

/* Sums of what is alive at each node, from where lives begin and end. */
static void set_live(struct plan *plan, const struct group *groups) {
    const struct graph *graph = plan->graph;
    memset(plan->live, 0, ((size_t)graph->node_count + 2) * sizeof *plan->live);
    for (int v = 0; v < graph->value_count; v++) {
        if (graph->values[v].kind != VALUE_TRANSIENT || graph->values[v].offloaded || groups[v].root != v ||
            groups[v].first < 0)
            continue;
        plan->live[groups[v].first] += groups[v].bytes;
        /* Differences may be below zero: unsigned sums wrap back. */
        if (groups[v].last < graph->node_count) plan->live[groups[v].last + 1] -= groups[v].bytes;
    }
    for (int n = 1; n < graph->node_count; n++) plan->live[n] += plan->live[n - 1];
}

/* What a node asks for; one of a loop, for the rows of a piece. `pieces` are the graph's values as a piece
 * has them. */
static void set_workspace(struct plan *out, struct value *pieces,
                          size_t (*workspace)(const void *device, const struct graph *graph,
                                              const struct node *node),
                          const void *device) {
    const struct graph *graph = out->graph;
    struct graph piece = *graph;
    piece.values = pieces;
    for (int v = 0; v < graph->value_count; v++) {
        pieces[v] = graph->values[v];
        if (pieces[v].count == COUNT_TOKENS && graph->piece_rows && pieces[v].dim[0] > graph->piece_rows)
            pieces[v].dim[0] = graph->piece_rows;
    }
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        uint64_t need = workspace ? workspace(device, node->loop ? &piece : graph, node) : 0;
        out->workspace[n] = need;
        if (need > out->workspace_bytes) out->workspace_bytes = need;
    }
}

bool plan_build(struct plan *out, const struct graph *graph,
                size_t (*workspace)(const void *device, const struct graph *graph, const struct node *node),
                const void *device, struct error *err) {
    memset(out, 0, sizeof *out);
    if (graph->failed) return error_no_memory(err, "plan", 0);
    size_t values = (size_t)graph->value_count;
    struct group *groups = mem_array(values + 1, sizeof *groups);
    struct value *pieces = mem_array(values + 1, sizeof *pieces);
    out->graph = graph;
    out->offset = mem_array(values + 1, sizeof *out->offset);
    out->bytes = mem_array(values + 1, sizeof *out->bytes);
    out->live = mem_array((size_t)graph->node_count + 2, sizeof *out->live);
    out->workspace = mem_array((size_t)graph->node_count + 1, sizeof *out->workspace);
    bool ok = groups && pieces && out->offset && out->bytes && out->live && out->workspace;
    if (!ok) error_no_memory(err, "plan", values * sizeof *groups);
    for (size_t v = 0; ok && v < values; v++) out->offset[v] = UINT64_MAX;
    ok = ok && lifetimes(graph, groups, out->bytes, err) &&
         place(out, groups, false, &out->arena_bytes, err) &&
         place(out, groups, true, &out->offloaded_bytes, err);
    if (ok) set_live(out, groups);
    if (ok) set_workspace(out, pieces, workspace, device);
    for (int n = 0; ok && n < graph->node_count; n++)
        if (op_row(graph->nodes[n].op)->flops)
            out->flops += op_row(graph->nodes[n].op)->flops(graph, &graph->nodes[n], NULL);
    mem_free(groups);
    mem_free(pieces);
    if (!ok) plan_release(out);
    return ok;
}

void plan_release(struct plan *plan) {
    mem_free(plan->offset);
    mem_free(plan->bytes);
    mem_free(plan->live);
    mem_free(plan->workspace);
    memset(plan, 0, sizeof *plan);
}
