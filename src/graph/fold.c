/* Folding products of low rank into the products beside them. */
#include "base/mem.h"
#include "graph/graph.h"

enum { most_rank = 128 }; /* wider adapters are products in their own right */

/* Where the operations that can be folded have their operands. */
struct fold_row {
    enum op_code op;
    int addend, low; /* inputs; the other factor of the low product stands behind `low` */
    int bias;        /* -1: the operation has none */
    int reduced;     /* dimension of the weight that is summed over */
};
static const struct fold_row fold_rows[] = {
    {.op = OP_LINEAR, .addend = 3, .low = 4, .bias = 2, .reduced = 1},
    {.op = OP_LINEAR_GRAD_X, .addend = 2, .low = 3, .bias = -1, .reduced = 0},
};

static const struct fold_row *fold_row(const struct node *node) {
    for (size_t i = 0; i < sizeof fold_rows / sizeof *fold_rows; i++)
        if (fold_rows[i].op == node->op && node->input[fold_rows[i].low] < 0) return &fold_rows[i];
    return NULL;
}

static int64_t rank_of(const struct graph *graph, const struct fold_row *row, const struct node *node) {
    return graph->values[node->input[1]].dim[row->reduced];
}

/* A weight that is stored as ordinary numbers: devices read the factors of a low product one by one. */
static bool is_plain(const struct graph *graph, const struct node *node) {
    return !dtype_row(graph->values[node->input[1]].dtype)->quantised && !node->attributes.fp8;
}

/* `later` adds what `earlier` yields, and nobody else reads that. The one of lower rank becomes the low
 * product of the other, in the place of `later`. */
static bool fold_pair(const struct graph *graph, const struct fold_row *row, struct node *later,
                      const struct node *earlier) {
    int64_t ranks[2] = {rank_of(graph, row, earlier), rank_of(graph, row, later)};
    bool later_is_low = ranks[1] < ranks[0] || (ranks[1] == ranks[0] && is_plain(graph, later));
    const struct node low = later_is_low ? *later : *earlier;
    struct node base = later_is_low ? *earlier : *later;
    if (rank_of(graph, row, &low) > most_rank || (row->bias >= 0 && low.input[row->bias] >= 0) ||
        low.attributes.compute != base.attributes.compute || !is_plain(graph, &low))
        return false;
    base.input[row->addend] = earlier->input[row->addend];
    base.input[row->low] = low.input[0];
    base.input[row->low + 1] = low.input[1];
    base.attributes.beta = low.attributes.alpha;
    base.output[0] = later->output[0];
    base.block = later->block;
    base.backward = later->backward;
    *later = base;
    return true;
}

struct fold {
    struct graph *graph;
    int *readers; /* [values] */
    bool *folded; /* [nodes] they are part of another one */
};

/* The node that makes what node n adds, where nobody else reads that; -1: there is none of the same
 * operation. */
static int chain_before(const struct fold *fold, const struct fold_row *row, int n) {
    const struct graph *graph = fold->graph;
    int addend = graph->nodes[n].input[row->addend];
    if (addend < 0 || fold->readers[addend] != 1 || graph->values[addend].keep) return -1;
    int producer = graph->values[addend].producer;
    return producer >= 0 && graph->nodes[producer].op == graph->nodes[n].op ? producer : -1;
}

/* Gradients of adapters on one input come before those of their linears, one added to the other: a linear
 * takes the nearest product of low rank that nobody has taken, from anywhere in the chain. */
static void take_from_chain(const struct fold *fold, const struct fold_row *row, int n) {
    struct graph *graph = fold->graph;
    struct node *later = &graph->nodes[n];
    int reader = chain_before(fold, row, n);
    for (int low; reader >= 0; reader = low) {
        low = chain_before(fold, row, reader);
        struct node *node = low < 0 ? NULL : &graph->nodes[low];
        if (!node || !fold_row(node) || rank_of(graph, row, node) >= rank_of(graph, row, later)) continue;
        struct node base = *later;
        if (!fold_pair(graph, row, &base, node)) continue;
        graph->nodes[reader].input[row->addend] = base.input[row->addend];
        base.input[row->addend] = later->input[row->addend];
        *later = base;
        fold->folded[low] = true;
        return;
    }
}

bool graph_fold(struct graph *graph, struct error *err) {
    int *readers = mem_calloc((size_t)graph->value_count + 1, sizeof *readers);
    bool *folded = mem_calloc((size_t)graph->node_count + 1, sizeof *folded);
    bool ok = readers && folded;
    if (!ok) error_no_memory(err, "graph", (size_t)graph->value_count * sizeof *readers);
    graph_set_producers(graph);
    for (int n = 0; ok && n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].inputs; i++)
            if (graph->nodes[n].input[i] >= 0) readers[graph->nodes[n].input[i]]++;
    struct fold fold = {graph, readers, folded};
    for (int equal = 0; equal < 2; equal++) /* at first a linear with what is its own, then what is left */
        for (int n = 0; ok && n < graph->node_count; n++) {
            const struct fold_row *row = fold_row(&graph->nodes[n]);
            int before = row && !folded[n] ? chain_before(&fold, row, n) : -1;
            if (before < 0) continue;
            bool both = rank_of(graph, row, &graph->nodes[n]) == rank_of(graph, row, &graph->nodes[before]);
            if (fold_row(&graph->nodes[before]) && both <= equal)
                folded[before] = fold_pair(graph, row, &graph->nodes[n], &graph->nodes[before]);
            else if (!equal)
                take_from_chain(&fold, row, n);
        }
    int kept = 0;
    for (int n = 0; ok && n < graph->node_count; n++)
        if (!folded[n]) graph->nodes[kept++] = graph->nodes[n];
    if (ok) graph->node_count = kept;
    graph_set_producers(graph);
    mem_free(readers);
    mem_free(folded);
    return ok;
}
