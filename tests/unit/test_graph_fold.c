/* Folding products of low rank: fewer nodes, the same numbers by the f64 references, and what must not be
 * folded stays. */
#include "support/test.h"

#include <math.h>
#include <string.h>

#include "support/reference_graph.h"

enum { tokens = 3, in = 150, out = 140, rank = 4, most_values = 24, most_elements = out * in };

static double numbers[most_values][most_elements];

static const struct reference_graph reference = {&numbers[0][0], most_elements};

static int dense(struct graph *graph, int64_t height, int64_t columns) {
    return reference_matrix(&reference, graph, height, columns);
}

static int emit(struct graph *graph, enum op_code op, const int *inputs, float alpha) {
    struct attributes attributes = {.alpha = alpha};
    return graph_output(graph, graph_emit(graph, op, inputs, &attributes, DTYPE_F32, "out"), 0);
}

/* Folds, and compares what `result` was with what it is. */
static void check_fold(struct graph *graph, int result, int nodes_after) {
    static double before[most_elements];
    struct error err;
    reference_compute(&reference, graph);
    memcpy(before, numbers[result], sizeof before);
    memset(numbers[result], 0, sizeof numbers[result]);
    assert_ok(graph_fold(graph, &err), &err);
    assert_int_equal(graph->node_count, nodes_after);
    reference_compute(&reference, graph);
    const int64_t *dim = graph->values[result].dim;
    for (int64_t i = 0; i < dim[0] * dim[1]; i++) assert_true(fabs(before[i] - numbers[result][i]) < 1e-9);
    for (int n = 0; n < graph->node_count; n++)
        assert_int_equal(graph->values[graph->nodes[n].output[0]].producer, n);
    graph_release(graph);
}

/* y = x wᵀ + bias + residual, then y + 0.5 low upᵀ. */
static int adapted(struct graph *graph, bool up_bias, int64_t width) {
    graph_init(graph);
    int base[6] = {dense(graph, tokens, in),
                   dense(graph, out, in),
                   dense(graph, out, 1),
                   dense(graph, tokens, out),
                   -1,
                   -1};
    int y = emit(graph, OP_LINEAR, base, 2);
    int up[6] = {dense(graph, tokens, width), dense(graph, out, width), up_bias ? base[2] : -1, y, -1, -1};
    return emit(graph, OP_LINEAR, up, 0.5f);
}

static void an_adapter_is_folded_into_its_linear(void **state) {
    (void)state;
    struct graph graph;
    int y = adapted(&graph, false, rank);
    check_fold(&graph, y, 1);
}

static void the_gradient_of_an_adapter_comes_first_and_is_folded(void **state) {
    (void)state;
    struct graph graph;
    graph_init(&graph);
    int low[5] = {dense(&graph, tokens, rank), dense(&graph, rank, in), dense(&graph, tokens, in), -1, -1};
    int dx = emit(&graph, OP_LINEAR_GRAD_X, low, 0.25f);
    int base[5] = {dense(&graph, tokens, out), dense(&graph, out, in), dx, -1, -1};
    dx = emit(&graph, OP_LINEAR_GRAD_X, base, 1);
    check_fold(&graph, dx, 1);
}

static void what_is_read_elsewhere_or_wide_or_biased_stays(void **state) {
    (void)state;
    struct graph graph;
    int y = adapted(&graph, true, rank);
    check_fold(&graph, y, 2);
    y = adapted(&graph, false, 129);
    check_fold(&graph, y, 2);
    y = adapted(&graph, false, rank);
    graph.values[graph.nodes[0].output[0]].keep = true;
    check_fold(&graph, y, 2);
    y = adapted(&graph, false, rank);
    int sum[2] = {y, graph.nodes[0].output[0]};
    y = emit(&graph, OP_ADD, sum, 0);
    check_fold(&graph, y, 3);
}

/* A device reads both factors of a low product number by number, so a weight of blocks is none of them, be it
 * ever so narrow. */
static void a_quantised_weight_is_no_factor_of_the_low_product(void **state) {
    (void)state;
    for (int narrow = 0; narrow < 2; narrow++) {
        struct graph graph;
        graph_init(&graph);
        int64_t rows = narrow ? rank - 1 : rank;
        int low[5] = {dense(&graph, tokens, rank), dense(&graph, rank, in), -1, -1, -1};
        int dx = emit(&graph, OP_LINEAR_GRAD_X, low, 0.25f);
        int base[5] = {dense(&graph, tokens, rows), dense(&graph, rows, in), dx, -1, -1};
        graph.values[base[1]].dtype = DTYPE_Q4_0;
        dx = emit(&graph, OP_LINEAR_GRAD_X, base, 1);
        check_fold(&graph, dx, narrow ? 2 : 1);
    }
}

static void three_in_a_row_fold_by_twos(void **state) {
    (void)state;
    struct graph graph;
    int y = adapted(&graph, false, rank);
    int more[6] = {dense(&graph, tokens, rank), dense(&graph, out, rank), -1, y, -1, -1};
    y = emit(&graph, OP_LINEAR, more, 1.5f);
    check_fold(&graph, y, 2);
}

/* Gradients of three linears of one input and of their adapters, which come first. */
static void every_linear_takes_an_adapter_from_the_chain(void **state) {
    (void)state;
    struct graph graph;
    graph_init(&graph);
    int dx = -1;
    for (int i = 0; i < 6; i++) {
        int64_t rows = i < 3 ? rank : out - i;
        int inputs[5] = {dense(&graph, tokens, rows), dense(&graph, rows, in), dx, -1, -1};
        dx = emit(&graph, OP_LINEAR_GRAD_X, inputs, 0.5f + (float)i);
    }
    check_fold(&graph, dx, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_adapter_is_folded_into_its_linear),
        cmocka_unit_test(the_gradient_of_an_adapter_comes_first_and_is_folded),
        cmocka_unit_test(what_is_read_elsewhere_or_wide_or_biased_stays),
        cmocka_unit_test(a_quantised_weight_is_no_factor_of_the_low_product),
        cmocka_unit_test(three_in_a_row_fold_by_twos),
        cmocka_unit_test(every_linear_takes_an_adapter_from_the_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
