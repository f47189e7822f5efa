/* Loops over pieces of rows: which nodes they take, whose place is a piece's, what lives from end to end of a
 * loop, and that a walk comes to every row of every node once. */
#include "support/test.h"

#include "device/operand.h"
#include "graph/graph.h"
#include "graph/plan.h"

enum { tokens = 1000, width = 8, wide = 40, heads = 2 };

static int emit(struct graph *graph, enum op_code op, const int *inputs, const char *name) {
    static const struct attributes attributes = {
        .alpha = 1, .heads = heads, .kv_heads = heads, .head_dim = width / heads, .scale = 1};
    return graph_output(graph, graph_emit(graph, op, inputs, &attributes, DTYPE_F32, name), 0);
}

struct values {
    int sum, y, gate, glu, low;
};

/* sum = x + x, y = attention(sum, sum, sum), gate = y wᵀ, glu = silu(gate) gate, low = glu downᵀ */
static struct values build(struct graph *graph) {
    const int64_t rows[2] = {tokens, width}, weight[2] = {wide, width}, back[2] = {width, wide};
    struct values v;
    graph_init(graph);
    int x = graph_transient(graph, DTYPE_F32, COUNT_TOKENS, 2, rows, "x");
    int segments = graph_input(graph, INPUT_SEGMENTS, DTYPE_I32, COUNT_SEGMENTS_AND_ONE, 2);
    int w = graph_state(graph, 0, DTYPE_F32, 2, weight, "w"),
        down = graph_state(graph, 1, DTYPE_F32, 2, back, "down");
    v.sum = emit(graph, OP_ADD, (int[]){x, x}, "sum");
    v.y = emit(graph, OP_ATTENTION, (int[]){v.sum, v.sum, v.sum, segments}, "y");
    v.gate = emit(graph, OP_LINEAR, (int[]){v.y, w, -1, -1, -1, -1}, "gate");
    v.glu = emit(graph, OP_GLU, (int[]){v.gate, v.gate}, "glu");
    v.low = emit(graph, OP_LINEAR, (int[]){v.glu, down, -1, -1, -1, -1}, "low");
    graph->values[v.low].keep = true;
    assert_false(graph->failed);
    return v;
}

static void loops_lie_between_attentions(void **state) {
    struct graph graph;
    struct error err;
    (void)state;
    struct values v = build(&graph);
    assert_ok(graph_cut(&graph, 100, &err), &err);
    assert_int_equal(graph.piece_rows, 128);
    const int expected[] = {1, 0, 2, 2, 2};
    assert_int_equal(graph.node_count, 5);
    for (int n = 0; n < 5; n++) assert_int_equal(graph.nodes[n].loop, expected[n]);
    for (int i = 0; i < graph.value_count; i++) {
        bool inside = i == v.gate || i == v.glu;
        assert_int_equal(graph.values[i].loop, inside ? 2 : 0);
    }
    assert_int_equal(graph_room(&graph, &graph.values[v.low]), tokens);
    graph_release(&graph);
}

static bool apart(const struct plan *plan, int a, int b) {
    return plan->offset[a] + plan->bytes[a] <= plan->offset[b] ||
           plan->offset[b] + plan->bytes[b] <= plan->offset[a];
}

/* y is read by the loop's first node and low is written by its last one, for one piece after the other. */
static void what_a_loop_shares_lives_from_its_beginning_to_its_end(void **state) {
    struct graph graph;
    struct plan whole, cut;
    struct error err;
    (void)state;
    struct values v = build(&graph);
    assert_ok(plan_build(&whole, &graph, NULL, NULL, &err), &err);
    assert_ok(graph_cut(&graph, 128, &err), &err);
    assert_ok(plan_build(&cut, &graph, NULL, NULL, &err), &err);
    assert_int_equal(cut.bytes[v.low], tokens * width * 4);
    assert_int_equal(cut.bytes[v.glu], 128 * wide * 4);
    assert_true(apart(&cut, v.y, v.glu) && apart(&cut, v.y, v.gate) && apart(&cut, v.y, v.low));
    assert_true(apart(&cut, v.low, v.glu) && apart(&cut, v.low, v.gate));
    for (int n = 2; n < 5; n++)
        assert_true(cut.live[n] >= cut.bytes[v.y] + cut.bytes[v.low] + cut.bytes[v.glu]);
    assert_true(cut.arena_bytes < whole.arena_bytes);
    plan_release(&whole);
    plan_release(&cut);
    graph_release(&graph);
}

static void a_walk_comes_to_every_row_of_every_node_once(void **state) {
    const int64_t counts[] = {1, 31, 128, 129, 257, tokens};
    struct graph graph;
    struct error err;
    (void)state;
    build(&graph);
    assert_ok(graph_cut(&graph, 128, &err), &err);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct binding binding = {.tokens = counts[c]};
        int64_t seen[5] = {0};
        int last = -1;
        for (struct walk walk = walk_begin(&graph, &binding, 0); walk.node < graph.node_count;
             walk_on(&walk, 1)) {
            assert_int_equal(walk.first, seen[walk.node]);
            assert_true(walk.rows > 0 && (walk.rows <= 128 || !graph.nodes[walk.node].loop));
            assert_true(walk.first % piece_step == 0);
            seen[walk.node] += walk.rows;
            if (walk.node < last) assert_int_equal(graph.nodes[walk.node].loop, graph.nodes[last].loop);
            last = walk.node;
        }
        for (int n = 0; n < 5; n++) assert_int_equal(seen[n], counts[c]);
    }
    graph_release(&graph);
}

/* Places beyond 2^31 numbers: the rows of a piece are found by 64-bit arithmetic. */
static void rows_of_a_piece_are_found_beyond_two_to_the_31_numbers(void **state) {
    (void)state;
    const struct value value = {.kind = VALUE_TRANSIENT, .dtype = DTYPE_BF16, .count = COUNT_TOKENS};
    const struct walk walk = {.first = 335872, .rows = 14128, .tokens = 350000};
    struct operand operand = {.dtype = DTYPE_BF16, .rank = 2, .dim = {350000, 14336}, .stride = 14400};
    operand.data = (void *)(uintptr_t)64;
    walk_cut(&walk, &value, &operand);
    assert_int_equal((uint64_t)(uintptr_t)operand.data - 64, UINT64_C(335872) * 14400 * 2);
    assert_int_equal(operand.dim[0], 14128);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_lie_between_attentions),
        cmocka_unit_test(what_a_loop_shares_lives_from_its_beginning_to_its_end),
        cmocka_unit_test(a_walk_comes_to_every_row_of_every_node_once),
        cmocka_unit_test(rows_of_a_piece_are_found_beyond_two_to_the_31_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
