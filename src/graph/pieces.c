/* Pieces of rows: between two attentions every operation makes each row of what it yields of that row alone,
 * or adds a sum over rows to state. Neighbours of that kind become a loop, which a device runs for some rows
 * of tokens after the other:
 *
 *     for each piece of at most `piece_rows` rows
 *         gate, up = n2 Wᵀ …     glu = silu(gate) up     x += glu Wᵀ …
 *
 * What is made and read in one loop alone then takes the place of a piece, not of all rows: of a row's layer
 * of 350,000 tokens that is all but the residual stream, what attention reads and yields, and their
 * gradients. Sums over rows are made piece after piece, so they are rounded otherwise than in one go, and
 * always alike. */
#include "base/mem.h"
#include "graph/graph.h"

static bool has_rows_of_tokens(const struct graph *graph, int id) {
    const struct value *value = &graph->values[id];
    return value->count == COUNT_TOKENS && !value->offloaded;
}

/* Reads and writes no activation but rows of tokens. */
static bool may_loop(const struct graph *graph, const struct node *node) {
    int rows = 0;
    if (!op_row(node->op)->by_rows) return false;
    for (int i = 0; i < node->inputs + node->outputs; i++) {
        int id = i < node->inputs ? node->input[i] : node->output[i - node->inputs];
        if (id < 0) continue;
        if (has_rows_of_tokens(graph, id))
            rows++;
        else if (graph->values[id].kind == VALUE_TRANSIENT)
            return false;
    }
    return rows > 0;
}

/* The loop that a value is made and read in, into loops[]; 0: it is known outside. */
static void find_homes(const struct graph *graph, int *loops) {
    for (int v = 0; v < graph->value_count; v++) loops[v] = 0;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        for (int o = 0; o < node->outputs; o++)
            if (node->output[o] >= 0 && !graph->values[node->output[o]].keep)
                loops[node->output[o]] = node->loop;
    }
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        for (int i = 0; i < node->inputs; i++)
            if (node->input[i] >= 0 && loops[node->input[i]] != node->loop) loops[node->input[i]] = 0;
    }
}

bool graph_cut(struct graph *graph, int64_t rows, struct error *err) {
    int *loops = mem_array((size_t)graph->value_count + 1, sizeof *loops);
    int loop = 0;
    if (!loops) return error_no_memory(err, "graph", (size_t)graph->value_count * sizeof *loops);
    graph->piece_rows = (rows + piece_step - 1) / piece_step * piece_step;
    for (int n = 0; n < graph->node_count; n++) {
        bool begins = n == 0 || !graph->nodes[n - 1].loop;
        graph->nodes[n].loop = !may_loop(graph, &graph->nodes[n]) ? 0 : begins ? ++loop : loop;
    }
    find_homes(graph, loops);
    for (int v = 0; v < graph->value_count; v++)
        graph->values[v].loop = graph->values[v].kind == VALUE_TRANSIENT ? loops[v] : 0;
    mem_free(loops);
    return true;
}

int64_t graph_piece(const struct graph *graph, int64_t rows) {
    if (rows <= graph->piece_rows) return rows;
    int64_t pieces = (rows + graph->piece_rows - 1) / graph->piece_rows, even = (rows + pieces - 1) / pieces;
    return (even + piece_step - 1) / piece_step * piece_step;
}
