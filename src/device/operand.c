#include "device/operand.h"

#include <string.h>

#include "graph/graph.h"

static int64_t bound_count(const struct binding *binding, const struct value *value) {
    switch (value->count) {
    case COUNT_TOKENS: return binding->tokens;
    case COUNT_TARGETS: return binding->targets;
    case COUNT_SEGMENTS: return binding->segments;
    case COUNT_SEGMENTS_AND_ONE: return binding->segments + 1;
    default: return value->dim[0];
    }
}

void binding_counts(const struct binding *binding, int64_t counts[COUNT_KINDS]) {
    counts[COUNT_FIXED] = 0;
    counts[COUNT_TOKENS] = binding->tokens;
    counts[COUNT_TARGETS] = binding->targets;
    counts[COUNT_SEGMENTS] = binding->segments;
    counts[COUNT_SEGMENTS_AND_ONE] = binding->segments + 1;
}

struct operand operand_bound(const struct value *value, const struct binding *binding) {
    struct operand operand = {.dtype = value->dtype, .rank = value->rank};
    memcpy(operand.dim, value->dim, sizeof operand.dim);
    operand.dim[0] = bound_count(binding, value);
    operand.stride = 1;
    for (int i = 1; i < value->rank; i++) operand.stride *= value->dim[i] + (i == 1 ? value->padding : 0);
    return operand;
}

/* At walk->node: the first rows of the loop that begins there, or all. */
static void enter(struct walk *walk) {
    bool loop = walk->node < walk->graph->node_count && walk->graph->nodes[walk->node].loop;
    walk->begin = walk->node;
    walk->first = 0;
    walk->rows = loop ? graph_piece(walk->graph, walk->tokens) : walk->tokens;
}

struct walk walk_begin(const struct graph *graph, const struct binding *binding, int first) {
    struct walk walk = {.graph = graph, .node = first, .tokens = binding->tokens};
    enter(&walk);
    return walk;
}

void walk_on(struct walk *walk, int nodes) {
    const struct graph *graph = walk->graph;
    int loop = graph->nodes[walk->node].loop;
    walk->node += nodes;
    if (loop && walk->node < graph->node_count && graph->nodes[walk->node].loop == loop) return;
    walk->first += walk->rows;
    if (!loop || walk->first >= walk->tokens) {
        enter(walk);
        return;
    }
    walk->node = walk->begin;
    if (walk->rows > walk->tokens - walk->first) walk->rows = walk->tokens - walk->first;
}

void walk_cut(const struct walk *walk, const struct value *value, struct operand *operand) {
    const struct dtype_row *type = dtype_row(operand->dtype);
    if (value->count != COUNT_TOKENS || walk->rows == walk->tokens) return;
    operand->dim[0] = walk->rows;
    if (!value->loop && operand->data)
        operand->data =
            (char *)operand->data + (uint64_t)(walk->first * operand->stride) / type->block * type->bytes;
}

struct binding walk_binding(const struct walk *walk, const struct binding *binding) {
    struct binding piece = *binding;
    piece.tokens = walk->rows;
    return piece;
}

bool walk_look(const struct walk *walk, const struct binding *binding, int node, struct error *err) {
    return !binding->after || binding->after(binding->user, node, walk->first, walk->rows, err);
}

bool operands_check(const struct graph *graph, const struct binding *binding, struct error *err) {
    for (int v = 0; v < graph->value_count; v++) {
        const struct value *value = &graph->values[v];
        int64_t count = bound_count(binding, value);
        if (value->rank > 0 && (count < 0 || count > value->dim[0]))
            return error_set(err, ERROR_INTERNAL, "program", "%lld rows bound, %lld planned for %s",
                             (long long)count, (long long)value->dim[0], value->name);
        if (value->kind == VALUE_INPUT && !binding->inputs[value->which])
            return error_set(err, ERROR_INTERNAL, "program", "input %d is not bound", value->which);
    }
    return true;
}

struct stored operand_stored(const struct operand *operand) {
    struct stored out = {
        .dtype = operand->dtype, .columns = operand->dim[operand->rank - 1], .codes = operand->data};
    memcpy(out.part, operand->part, sizeof out.part);
    return out;
}

int64_t operand_elements(const struct operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->dim[i];
    return n;
}

enum dtype operand_compute(const struct graph *graph, const struct node *node) {
    for (int i = 0; i < node->inputs; i++) {
        const struct value *value = node->input[i] < 0 ? NULL : &graph->values[node->input[i]];
        if (value && value->kind == VALUE_TRANSIENT &&
            (value->dtype == DTYPE_BF16 || value->dtype == DTYPE_F16))
            return value->dtype;
    }
    return node->attributes.compute;
}

bool operands_go_on(const struct binding *binding, struct error *err) {
    if (!binding->stop || !atomic_load(binding->stop)) return true;
    if (binding->leave && !binding->leave(binding->user)) return true;
    return error_set(err, ERROR_INTERRUPTED, "run", "stopped");
}
