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

bool graph_fold(struct graph *graph, struct error *err) {
    int *readers = mem_calloc((size_t)graph->value_count + 1, sizeof *readers);
    bool *folded = mem_calloc((size_t)graph->node_count + 1, sizeof *folded);
    bool ok = readers && folded;
    if (!ok) error_no_memory(err, "graph", (size_t)graph->value_count * sizeof *readers);
    graph_set_producers(graph);
    for (int n = 0; ok && n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].inputs; i++)
            if (graph->nodes[n].input[i] >= 0) readers[graph->nodes[n].input[i]]++;
    for (int n = 0; ok && n < graph->node_count; n++) {
        struct node *later = &graph->nodes[n];
        const struct fold_row *row = fold_row(later);
        int addend = row ? later->input[row->addend] : -1;
        if (addend < 0 || readers[addend] != 1 || graph->values[addend].keep) continue;
        int producer = graph->values[addend].producer;
        if (producer < 0 || graph->nodes[producer].op != later->op || !fold_row(&graph->nodes[producer]))
            continue;
        folded[producer] = fold_pair(graph, row, later, &graph->nodes[producer]);
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
