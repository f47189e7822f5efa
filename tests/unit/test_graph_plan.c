/* Places of transient values: graphs drawn at random are run in a memory where each word says which value it
 * holds, so that what a node reads, and what is kept to the end, must be what was written. */
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "graph/graph.h"
#include "graph/plan.h"

enum { most_tokens = 37, nodes = 40, first_values = 2, words_of_line = 16 };

static uint32_t draw(uint64_t seed, uint32_t *at) {
    uint32_t words[4];
    philox(seed, (uint32_t[4]){(*at)++, 0, 0, 0}, words);
    return words[0];
}

/* Sums and gated units of what was made before, most often of what was made last; some results are kept. */
static void build(struct graph *graph, uint64_t seed) {
    uint32_t at = 0;
    const int64_t rows[2] = {1 + draw(seed, &at) % most_tokens, 1 + draw(seed, &at) % 19};
    int made[first_values + nodes];
    graph_init(graph);
    for (int i = 0; i < first_values; i++) {
        const int looked_up[2] = {graph_state(graph, i, DTYPE_F32, 2, (int64_t[2]){9, rows[1]}, "table"),
                                  graph_input(graph, INPUT_IDS, DTYPE_I32, COUNT_TOKENS, rows[0])};
        made[i] = graph_output(graph, graph_emit(graph, OP_EMBEDDING, looked_up, NULL, DTYPE_F32, "row"), 0);
    }
    for (uint32_t n = 0; n < nodes; n++) {
        uint32_t have = first_values + n, near = have < 4 ? have : 4;
        const int inputs[2] = {made[have - 1 - draw(seed, &at) % near], made[draw(seed, &at) % have]};
        const int same[2] = {inputs[0], inputs[0]};
        int node = graph_emit(graph, draw(seed, &at) % 2 ? OP_ADD : OP_GLU,
                              draw(seed, &at) % 8 ? inputs : same, NULL, DTYPE_F32, "made");
        made[have] = graph_output(graph, node, 0);
        graph->values[made[have]].keep = draw(seed, &at) % 6 == 0;
    }
    assert_false(graph->failed);
}

static bool has_place(const struct plan *plan, int value) {
    return value >= 0 && plan->offset[value] != UINT64_MAX;
}

static void check_holds(const struct plan *plan, const int *memory, int value, const char *when, int node) {
    if (!has_place(plan, value)) return;
    for (uint64_t w = plan->offset[value] / 4; w < (plan->offset[value] + plan->bytes[value]) / 4; w++)
        if (memory[w] != value)
            fail_msg("%s %d, value %d: its place holds value %d", when, node, value, memory[w]);
}

/* A result may take the place of the input that its operation overwrites, and of no other. */
static void check_apart(const struct plan *plan, const struct node *node, int out) {
    int overwritten = op_row(node->op)->overwrite[0];
    for (int i = 0; i < node->inputs; i++) {
        int in = node->input[i];
        if (!has_place(plan, in)) continue;
        bool apart = plan->offset[in] + plan->bytes[in] <= plan->offset[out] ||
                     plan->offset[out] + plan->bytes[out] <= plan->offset[in];
        assert_true(apart || (i == overwritten && plan->offset[in] == plan->offset[out]));
    }
}

static void run(const struct graph *graph, const struct plan *plan) {
    int *memory = malloc((size_t)plan->arena_bytes + 1);
    assert_non_null(memory);
    memset(memory, 0xff, (size_t)plan->arena_bytes);
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        int out = node->output[0];
        for (int i = 0; i < node->inputs; i++) check_holds(plan, memory, node->input[i], "read by node", n);
        assert_true(has_place(plan, out));
        assert_int_equal(plan->offset[out] % (4 * words_of_line),
                         0); /* kernels count on lines of the cache */
        assert_true(plan->offset[out] + plan->bytes[out] <= plan->arena_bytes);
        check_apart(plan, node, out);
        for (uint64_t w = plan->offset[out] / 4; w < (plan->offset[out] + plan->bytes[out]) / 4; w++)
            memory[w] = out;
        assert_true(plan->live[n] <= plan->arena_bytes && plan->live[n] >= plan->bytes[out]);
    }
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].keep) check_holds(plan, memory, v, "at the end of", graph->node_count);
    free(memory);
}

static void a_value_holds_what_was_written_until_it_was_read_last(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct graph graph;
        struct plan plan;
        struct error err;
        build(&graph, seed);
        assert_ok(plan_build(&plan, &graph, NULL, NULL, &err), &err);
        run(&graph, &plan);
        plan_release(&plan);
        graph_release(&graph);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_holds_what_was_written_until_it_was_read_last)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
