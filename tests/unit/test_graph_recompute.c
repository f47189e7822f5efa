/* Recomputation of whole blocks: the same numbers by the f64 references, and which products are made again.
 */
#include "support/test.h"

#include <math.h>
#include <string.h>

#include "support/reference_graph.h"

enum { blocks = 3, rows = 2, width = 256, most_values = 96, most_elements = width * width };

static double numbers[most_values][most_elements];

static const struct reference_graph reference = {&numbers[0][0], most_elements};

static int matrix(struct graph *graph, int64_t height, int64_t columns) {
    return reference_matrix(&reference, graph, height, columns);
}

static int linear(struct graph *graph, int x, int w) {
    struct attributes attributes = {.alpha = 1};
    int inputs[6] = {x, w, -1, -1, -1, -1};
    return graph_output(graph, graph_emit(graph, OP_LINEAR, inputs, &attributes, DTYPE_F32, "product"), 0);
}

static int sum(struct graph *graph, int a, int b) {
    return graph_output(graph, graph_emit(graph, OP_ADD, (int[]){a, b}, NULL, DTYPE_F32, "sum"), 0);
}

/* Each block makes a wide and a narrow product of its input, which its backward pass reads. Returns the last
 * sum. */
static int build(struct graph *graph, int narrow) {
    int wide = matrix(graph, width, width), down = matrix(graph, narrow, width),
        up = matrix(graph, width, narrow);
    int x = matrix(graph, rows, width), h[blocks], low[blocks];
    for (graph->block = 0; graph->block < blocks; graph->block++) {
        h[graph->block] = linear(graph, x, wide);
        low[graph->block] = linear(graph, x, down);
        x = sum(graph, h[graph->block], linear(graph, low[graph->block], up));
    }
    graph->block = -1;
    x = sum(graph, x, x); /* the head */
    graph->backward = true;
    for (graph->block = blocks - 1; graph->block >= 0; graph->block--)
        x = sum(graph, sum(graph, x, h[graph->block]), linear(graph, low[graph->block], up));
    return x;
}

/* Leaves the graph to be released; returns how many nodes were added. */
static int recompute(struct graph *graph, int narrow, enum graph_keep keep, int first) {
    double before[rows * width];
    struct error err;
    graph_init(graph);
    int result = build(graph, narrow), nodes = graph->node_count;
    reference_compute(&reference, graph);
    memcpy(before, numbers[result], sizeof before);
    memset(numbers[result], 0, sizeof before);
    assert_ok(graph_recompute(graph, keep, first, 1, &err), &err);
    reference_compute(&reference, graph);
    assert_memory_equal(before, numbers[result], sizeof before);
    return graph->node_count - nodes;
}

static void check(int narrow, enum graph_keep keep, int first, int added) {
    struct graph graph;
    assert_int_equal(recompute(&graph, narrow, keep, first), added);
    graph_release(&graph);
}

static void blocks_behind_those_asked_for_are_kept(void **state) {
    (void)state;
    for (int first = 1; first <= blocks + 1; first++) {
        int again = first < blocks ? first : blocks;
        check(8, GRAPH_KEEP_EDGES, first, 2 * again);
        check(8, GRAPH_KEEP_COSTLY, first, 0);
    }
}

static void what_is_narrow_is_not_made_again(void **state) {
    (void)state;
    check(2, GRAPH_KEEP_EDGES, blocks, blocks);
    check(3, GRAPH_KEEP_EDGES, blocks, 2 * blocks);
}

/* The small copy of a block goes with its large one, and what is copied has the time till the next block's.
 */
static void a_copy_has_the_time_till_the_next_blocks(void **state) {
    struct graph graph;
    int small = -1, large = -1, copies = 0;
    (void)state;
    recompute(&graph, 2, GRAPH_KEEP_EDGES_OFFLOADED, blocks);
    for (int n = 0; n < graph.node_count - 1; n++) {
        const struct node *node = &graph.nodes[n], *next = &graph.nodes[n + 1];
        if (node->op != OP_COPY || node->backward) continue;
        int *before = graph.values[node->input[0]].dim[1] == 2 ? &small : &large;
        if (before == &small) assert_true(next->op == OP_COPY || next->backward);
        assert_int_equal(node->input[1], *before);
        *before = node->input[0];
        copies++;
    }
    assert_int_equal(copies,
                     2 * blocks); /* the first block's input is nobody's, the head's sum the last one's */
    graph_release(&graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_behind_those_asked_for_are_kept),
                                       cmocka_unit_test(what_is_narrow_is_not_made_again),
                                       cmocka_unit_test(a_copy_has_the_time_till_the_next_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
