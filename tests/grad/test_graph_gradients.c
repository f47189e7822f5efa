/* Every operation's backward rule against central differences, in f64.
 *
 * L = Σ c · outputs with fixed weights c. The rule is run on a graph of one node, the nodes that it
 * emits are computed by their f64 references, and each input's gradient is compared with
 * (L(x + h) - L(x - h)) / 2h, h = 1e-5: the truncation error is h² times a third derivative of order
 * 1, 1e-10; the rounding error 1e-16 / h = 1e-11; so 1e-5 relative to the larger of 1 and the gradient is
 * generous.
 *
 * An operation with a backward rule that has no case here fails the test. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "graph/graph.h"

struct shape {
    enum value_kind kind; /* VALUE_STATE: trained through state_gradient */
    int rank;
    int64_t dim[2];
    bool differentiable;
    double integers; /* > 0: whole numbers below this, not differentiable */
    const double *fixed;
};

struct gradient_case {
    enum op_code op;
    struct attributes attributes;
    int inputs;
    struct shape in[op_max_inputs];
};

static const double segments[] = {0, 3, 4, 7};
static const double rows[] = {0, 2, 5};
static const double scaling[] = {1, 0, 0, 0};
static const double random_words[] = {11, 7, 3, 0};

#define DENSE(r, c) \
    { VALUE_TRANSIENT, 2, {r, c}, true, 0, NULL }
#define CONSTANT(r, c) \
    { VALUE_TRANSIENT, 2, {r, c}, false, 0, NULL }
#define WEIGHT(r, c) \
    { VALUE_STATE, 2, {r, c}, true, 0, NULL }
#define VECTOR(n) \
    { VALUE_STATE, 1, {n}, true, 0, NULL }
#define WHOLE(n, below) \
    { VALUE_TRANSIENT, 1, {n}, false, below, NULL }
#define FIXED(array) \
    { VALUE_TRANSIENT, 1, {sizeof(array) / sizeof *(array)}, false, 0, array }
#define ABSENT \
    { VALUE_INPUT, 0, {0}, false, 0, NULL }

/* Of rows; those that are not trained are whole and above 0. */
static const double lengths[] = {1, 2, 3, 1, 2};
#define LENGTHS(n, trained) \
    { trained ? VALUE_STATE : VALUE_TRANSIENT, 1, {n}, trained, 0, trained ? NULL : lengths }

static const struct gradient_case cases[] = {
    {OP_LINEAR, {.alpha = 0.7f}, 6, {DENSE(3, 5), WEIGHT(4, 5), ABSENT, DENSE(3, 4), ABSENT, ABSENT}},
    {OP_LINEAR, {.alpha = 0.7f}, 6, {DENSE(3, 5), WEIGHT(4, 5), VECTOR(4), ABSENT, ABSENT, ABSENT}},
    {OP_LINEAR, {.alpha = 1}, 6, {DENSE(2, 3), CONSTANT(6, 3), ABSENT, ABSENT, ABSENT, ABSENT}},
    {OP_LINEAR,
     {.alpha = 1, .beta = 0.3f},
     6,
     {DENSE(2, 3), CONSTANT(6, 3), ABSENT, ABSENT, DENSE(2, 4), WEIGHT(6, 4)}},
    {OP_RESCALE, {.alpha = 0}, 5, {DENSE(4, 5), LENGTHS(5, true), LENGTHS(5, false), ABSENT, DENSE(4, 5)}},
    {OP_RESCALE,
     {.alpha = 0},
     5,
     {DENSE(4, 5), LENGTHS(5, false), LENGTHS(5, false), LENGTHS(5, true), ABSENT}},
    {OP_NORM, {.epsilon = 1e-5f}, 2, {DENSE(3, 6), {VALUE_TRANSIENT, 1, {6}, false, 0, NULL}}},
    {OP_NORM, {.epsilon = 1e-5f}, 2, {DENSE(3, 6), VECTOR(6)}},
    {OP_NORM, {.epsilon = 1e-5f}, 2, {CONSTANT(3, 6), VECTOR(6)}},
    {OP_ROPE, {.heads = 2, .head_dim = 4}, 2, {DENSE(3, 8), CONSTANT(3, 4)}},
    {OP_ATTENTION,
     {.heads = 4, .kv_heads = 2, .head_dim = 3, .scale = 0.5f},
     4,
     {DENSE(7, 12), DENSE(7, 6), DENSE(7, 6), FIXED(segments)}},
    {OP_GLU, {.alpha = 0}, 2, {DENSE(3, 5), DENSE(3, 5)}},
    {OP_ADD, {.alpha = 0}, 2, {DENSE(3, 5), DENSE(3, 5)}},
    {OP_DROPOUT,
     {.probability = 0.4f, .module = 5},
     4,
     {DENSE(4, 9), WHOLE(4, 100), WHOLE(4, 100), FIXED(random_words)}},
    {OP_DROPOUT,
     {.probability = 0.4f, .module = 5, .inverse = true},
     4,
     {DENSE(4, 9), WHOLE(4, 100), WHOLE(4, 100), FIXED(random_words)}},
    {OP_NOISE,
     {.scale = 5, .module = 9},
     5,
     {DENSE(7, 9), WHOLE(7, 100), WHOLE(7, 100), FIXED(random_words), FIXED(segments)}},
    {OP_GATHER, {.alpha = 0}, 2, {DENSE(6, 4), FIXED(rows)}},
    {OP_EMBEDDING, {.alpha = 0}, 2, {WEIGHT(3, 4), WHOLE(7, 3)}},
    {OP_HEAD, {.alpha = 0}, 5, {DENSE(3, 4), CONSTANT(7, 4), WHOLE(3, 7), ABSENT, ABSENT}},
    {OP_HEAD, {.alpha = 0}, 5, {DENSE(3, 4), WEIGHT(7, 4), WHOLE(3, 7), ABSENT, ABSENT}},
    {OP_HEAD, {.alpha = 0}, 5, {CONSTANT(3, 4), WEIGHT(7, 4), WHOLE(3, 7), ABSENT, ABSENT}},
    {OP_HEAD, {.beta = 0.7f}, 5, {DENSE(3, 4), CONSTANT(7, 4), WHOLE(3, 7), DENSE(3, 2), WEIGHT(7, 2)}},
    {OP_LOSS,
     {.alpha = 0},
     4,
     {{VALUE_TRANSIENT, 1, {5}, true, 0, NULL},
      {VALUE_TRANSIENT, 1, {5}, false, 0, NULL},
      {VALUE_STATE, 1, {1}, false, 0, NULL},
      ABSENT}},
    {OP_LOSS,
     {.alpha = 0},
     4,
     {{VALUE_TRANSIENT, 1, {5}, true, 0, NULL},
      {VALUE_TRANSIENT, 1, {5}, false, 0, NULL},
      {VALUE_STATE, 1, {1}, false, 0, NULL},
      FIXED(scaling)}}, /* the gradient alone is scaled: by 1 it is that of the loss */
};

enum { case_count = sizeof cases / sizeof *cases, value_limit = 64 };

static double numbers[value_limit][256]; /* every value of the graph under test */

static double fill(int i) { /* in (-1, 1), without a pattern that an operation might share */
    double s = sin(12.9898 * (i + 1)) * 43758.5453;
    return 2 * (s - floor(s)) - 1;
}

static int64_t elements(const struct value *value) {
    int64_t n = 1;
    for (int i = 0; i < value->rank; i++) n *= value->dim[i];
    return n;
}

static struct reference_operand operand(const struct graph *graph, int value) {
    struct reference_operand out = {0};
    if (value < 0) return out;
    out.data = numbers[value];
    out.rank = graph->values[value].rank;
    memcpy(out.dim, graph->values[value].dim, sizeof out.dim);
    return out;
}

static void compute(const struct graph *graph, int n) {
    const struct node *node = &graph->nodes[n];
    struct reference_call call = {.attributes = &node->attributes};
    for (int i = 0; i < node->inputs; i++) call.in[i] = operand(graph, node->input[i]);
    for (int o = 0; o < node->outputs; o++) call.out[o] = operand(graph, node->output[o]);
    op_row(node->op)->reference(&call);
}

/* L of the node under test: Σ c · output 0, or the loss state. */
static double objective(const struct graph *graph, const int *dy) {
    const struct node *node = &graph->nodes[0];
    double sum = 0;
    if (!node->outputs) numbers[node->input[2]][0] = 0;
    compute(graph, 0);
    if (!node->outputs) return numbers[node->input[2]][0];
    for (int64_t i = 0; i < elements(&graph->values[node->output[0]]); i++)
        sum += numbers[dy[0]][i] * numbers[node->output[0]][i];
    return sum;
}

struct state_gradients {
    struct graph *graph;
    int of[value_limit];
};

static int state_gradient(void *user, int value) {
    struct state_gradients *s = user;
    const struct value like = s->graph->values[value];
    if (s->of[value] < 0)
        s->of[value] = graph_transient(s->graph, DTYPE_F64, COUNT_FIXED, like.rank, like.dim, "gradient");
    return s->of[value];
}

static int ignore_replacement(void *user, int old_value, int new_value) {
    (void)user, (void)old_value, (void)new_value;
    return 0;
}

static void check_case(const struct gradient_case *c, int number) {
    struct graph graph;
    struct state_gradients states = {.graph = &graph};
    int inputs[op_max_inputs], gathered[op_max_inputs], dy[op_max_outputs] = {-1, -1, -1, -1};
    graph_init(&graph);
    memset(numbers, 0, sizeof numbers);
    memset(states.of, 0xff, sizeof states.of);
    for (int i = 0; i < c->inputs; i++) {
        const struct shape *s = &c->in[i];
        inputs[i] = gathered[i] = -1;
        if (!s->rank) continue;
        inputs[i] = graph_transient(&graph, DTYPE_F64, COUNT_FIXED, s->rank, s->dim, "in");
        graph.values[inputs[i]].needs_gradient = s->differentiable;
        for (int64_t e = 0; e < elements(&graph.values[inputs[i]]); e++)
            numbers[inputs[i]][e] = s->fixed          ? s->fixed[e]
                                    : s->integers > 0 ? floor((fill((int)e + 97 * i) + 1) / 2 * s->integers)
                                                      : fill((int)e + 31 * i + 7 * number);
    }
    graph_emit(&graph, c->op, inputs, &c->attributes, DTYPE_F64, "tested");
    if (graph.nodes[0].outputs) {
        const struct value like = graph.values[graph.nodes[0].output[0]];
        dy[0] = graph_transient(&graph, DTYPE_F64, COUNT_FIXED, like.rank, like.dim, "dy");
        for (int64_t e = 0; e < elements(&like); e++) numbers[dy[0]][e] = fill((int)e + 1000);
    }
    compute(&graph, 0);
    struct backward b = {.graph = &graph,
                         .node = 0,
                         .state_gradient = state_gradient,
                         .replace = ignore_replacement,
                         .user = &states};
    memcpy(b.output_gradient, dy, sizeof dy);
    for (int i = 0; i < c->inputs; i++) {
        b.input_gradient[i] = &gathered[i];
        b.needed[i] = c->in[i].differentiable;
    }
    op_row(c->op)->backward(&b);
    assert_false(graph.failed);
    for (int n = 1; n < graph.node_count; n++) compute(&graph, n);
    for (int i = 0; i < c->inputs; i++) {
        if (!c->in[i].differentiable) continue;
        int gradient = c->in[i].kind == VALUE_STATE ? states.of[inputs[i]] : gathered[i];
        assert_true(gradient >= 0);
        for (int64_t e = 0; e < elements(&graph.values[inputs[i]]); e++) {
            double *x = &numbers[inputs[i]][e], kept = *x, h = 1e-5;
            *x = kept + h;
            double above = objective(&graph, dy);
            *x = kept - h;
            double below = objective(&graph, dy);
            *x = kept;
            double difference = (above - below) / (2 * h), rule = numbers[gradient][e];
            if (fabs(difference - rule) > 1e-5 * fmax(1, fabs(difference)))
                fail_msg("%s, input %d, element %lld: rule %.10g, difference %.10g", op_row(c->op)->name, i,
                         (long long)e, rule, difference);
        }
    }
    graph_release(&graph);
}

static void backward_rules_equal_finite_differences(void **state) {
    (void)state;
    for (int i = 0; i < case_count; i++) check_case(&cases[i], i);
}

static void every_backward_rule_has_a_case(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool covered = !op_row((enum op_code)op)->backward;
        for (int i = 0; i < case_count; i++) covered = covered || cases[i].op == (enum op_code)op;
        if (!covered)
            fail_msg("the operation %s has a backward rule and no case", op_row((enum op_code)op)->name);
    }
}

static void every_operation_has_a_reference(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        assert_non_null(op_row((enum op_code)op));
        assert_non_null(op_row((enum op_code)op)->reference);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backward_rules_equal_finite_differences),
        cmocka_unit_test(every_backward_rule_has_a_case),
        cmocka_unit_test(every_operation_has_a_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
