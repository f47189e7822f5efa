/* Offloading, with copies back in front of their readers and a block ahead: the same numbers by the f64
 * references, and where the copies stand. */
#include "support/test.h"

#include <string.h>

#include "graph/graph.h"

enum { blocks = 4, width = 8, most_values = 64 };

static double numbers[most_values][width];

static int emit(struct graph *graph, int a, int b, int block, bool backward) {
    graph->block = block;
    graph->backward = backward;
    return graph_output(graph, graph_emit(graph, OP_ADD, (int[]){a, b}, NULL, DTYPE_F32, "sum"), 0);
}

/* x[i + 1] = x[i] + x[i]; then d = d + x[i], from the last block to the first: what blocks 1 to 3 read was
 * made in the block before theirs, what block 0 reads in none, and so was what all of them read. Returns d.
 */
static int build(struct graph *graph) {
    int64_t dim[2] = {1, width};
    int in = graph_transient(graph, DTYPE_F32, COUNT_FIXED, 2, dim, "in"), x[blocks + 1];
    for (int i = 0; i < width; i++) numbers[in][i] = i + 1;
    int table = emit(graph, in, in, -1, false);
    x[0] = emit(graph, in, table, -1, false);
    for (int i = 0; i < blocks; i++) x[i + 1] = emit(graph, x[i], x[i], i, false);
    int d = emit(graph, x[blocks], x[blocks], -1, true);
    for (int i = blocks - 1; i >= 0; i--)
        for (int k = 0; k < 3; k++) d = emit(graph, d, k < 2 ? x[i] : table, i, true);
    return d;
}

static void compute(const struct graph *graph) {
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        struct reference_call call = {.attributes = &node->attributes};
        for (int i = 0; i < node->inputs && node->input[i] >= 0; i++)
            call.in[i] =
                (struct reference_operand){.data = numbers[node->input[i]], .rank = 2, .dim = {1, width}};
        call.out[0] =
            (struct reference_operand){.data = numbers[node->output[0]], .rank = 2, .dim = {1, width}};
        op_row(node->op)->reference(&call);
    }
}

static bool is_copy_back(const struct graph *graph, int n) {
    return graph->nodes[n].op == OP_COPY && graph->nodes[n].backward;
}

/* The first node of a block's backward pass that is no copy. */
static int first_of(const struct graph *graph, int block) {
    for (int n = 0; n < graph->node_count; n++)
        if (graph->nodes[n].backward && graph->nodes[n].block == block && !is_copy_back(graph, n)) return n;
    return -1;
}

/* Of the blocks, the first `away` are offloaded. */
static void check(bool ahead, int away) {
    double before[width];
    struct graph graph;
    struct error err;
    int copies = 0;
    graph_init(&graph);
    int d = build(&graph);
    compute(&graph);
    memcpy(before, numbers[d], sizeof before);
    memset(numbers[d], 0, sizeof numbers[d]);
    assert_ok(graph_offload(&graph, ahead, away, 1, &err), &err);
    compute(&graph);
    assert_memory_equal(before, numbers[d], sizeof before);
    for (int n = 0; n < graph.node_count; n++) {
        if (!is_copy_back(&graph, n)) continue;
        int block = graph.nodes[n].block, where = !ahead ? block : block == blocks - 1 ? -1 : block + 1;
        copies++;
        assert_true(graph.values[graph.nodes[n].input[0]].offloaded);
        assert_true(n < first_of(&graph, where));
        if (where != -1) assert_true(n > first_of(&graph, where == blocks - 1 ? -1 : where + 1));
    }
    assert_int_equal(copies, away); /* a block's each; what the head reads stays */
    graph_release(&graph);
}

static void copies_back_stand_before_their_readers(void **state) {
    (void)state;
    check(false, blocks);
}

static void copies_back_stand_a_block_ahead(void **state) {
    (void)state;
    check(true, blocks);
}

static void blocks_behind_those_asked_for_stay(void **state) {
    (void)state;
    for (int away = 1; away < blocks; away++) {
        check(false, away);
        check(true, away);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies_back_stand_before_their_readers),
                                       cmocka_unit_test(copies_back_stand_a_block_ahead),
                                       cmocka_unit_test(blocks_behind_those_asked_for_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
