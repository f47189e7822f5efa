/* Small graphs of several nodes in fp8 on a device: what one node leaves for the next, and nodes that become
 * one product. All operands are state; the results are kept. */
#ifndef TESTS_OP_DEVICE_FP8_CASES_H
#define TESTS_OP_DEVICE_FP8_CASES_H

#include "graph/plan.h"
#include "op/device_kernel_cases.h"

struct fp8_graph {
    const struct device_ops *ops;
    struct device *device;
    struct trial trial; /* its graph, random numbers and operands */
    struct state_table table;
    float *numbers[op_max_inputs + 8]; /* of each operand, as it is stored */
    struct block blocks[op_max_inputs + 8];
    int count;
};

static void fp8_graph_open(struct fp8_graph *g, const struct device_ops *ops, struct device *device) {
    const int64_t elements = 64 * 3, dim[2] = {64, 3};
    memset(g, 0, sizeof *g);
    g->ops = ops;
    g->device = device;
    g->trial.random = 7;
    graph_init(&g->trial.graph);
    state_table_init(&g->table);
    int block = state_add(&g->table, STATE_TRAINED, DTYPE_F32, 1, &elements, "trained");
    state_add_part(&g->table, block, 0, 2, dim,
                   "part"); /* an adapter's rank: there is room for its numbers */
}

static void fp8_graph_release(struct fp8_graph *g) {
    for (int i = 0; i < g->count; i++) {
        free(g->blocks[i].memory);
        mem_free(g->numbers[i]);
    }
    state_table_release(&g->table);
    graph_release(&g->trial.graph);
}

/* An operand [rows, width], [rows] for width 0, random, or for scale 0 the identity. Returns its value. */
static int fp8_operand(struct fp8_graph *g, enum dtype dtype, int64_t rows, int64_t width, double scale) {
    int64_t dim[2] = {rows, width}, n = rows * (width ? width : 1);
    int row = state_add(&g->table, STATE_OPTIMIZER, dtype, width ? 2 : 1, dim, "operand");
    int value = graph_state(&g->trial.graph, row, dtype, width ? 2 : 1, dim, "operand");
    float *numbers = mem_calloc((size_t)n, sizeof *numbers);
    for (int64_t i = 0; i < n; i++)
        numbers[i] = scale > 0 ? (float)(uniform(&g->trial) * scale) : i / width == i % width ? 1 : 0;
    g->blocks[g->count] = block_open((size_t)g->table.rows[row].bytes);
    rowcodec(dtype)->encode(numbers, g->blocks[g->count].data, n);
    rowcodec(dtype)->decode(g->blocks[g->count].data, numbers, n);
    g->numbers[g->count++] = numbers;
    return value;
}

/* … that the device keeps in fp8. */
static int fp8_weight(struct fp8_graph *g, int64_t rows, int64_t width, double scale) {
    int value = fp8_operand(g, DTYPE_BF16, rows, width, scale);
    g->table.rows[g->table.count - 1].fp8 = true;
    return value;
}

static int fp8_node(struct fp8_graph *g, enum op_code op, const int *inputs, float beta, enum dtype dtype) {
    struct attributes attributes = {
        .alpha = 1, .beta = beta, .epsilon = 1e-5f, .compute = DTYPE_BF16, .fp8 = op <= OP_LINEAR_GRAD_X};
    int node = graph_emit(&g->trial.graph, op, inputs, &attributes, dtype, "result");
    assert_true(node >= 0);
    return node;
}

static size_t fp8_workspace_of(const void *user, const struct graph *graph, const struct node *node) {
    const struct fp8_graph *g = user;
    return g->ops->workspace(g->device, graph, node);
}

/* Runs the graph; the values, `count` of them, are read as floats into `results` [elements of each]. */
static void fp8_graph_run(struct fp8_graph *g, const int *values, float *const *results, int count) {
    const struct device_ops *ops = g->ops;
    struct error err;
    struct plan plan;
    struct store *store = NULL;
    struct program *program = NULL;
    struct binding binding = {0};
    struct graph *graph = &g->trial.graph;
    for (int i = 0; i < count; i++) graph->values[values[i]].keep = true;
    graph_set_producers(graph);
    assert_ok(plan_build(&plan, graph, fp8_workspace_of, g, &err), &err);
    assert_ok(ops->store_open(g->device, &g->table, &store, &err), &err);
    assert_ok(!ops->store_fill || ops->store_fill(store, &err), &err);
    assert_ok(ops->reserve(store, plan.arena_bytes + plan.workspace_bytes, &err), &err);
    assert_ok(ops->compile(g->device, &plan, store, &program, &err), &err);
    for (int i = 0; i < g->count; i++) /* rows 0 and 1 are the adapter's */
        assert_ok(ops->upload(store, i + 2, g->blocks[i].data, g->blocks[i].bytes, &err), &err);
    assert_ok(ops->run(program, &binding, &err), &err);
    for (int i = 0; i < count; i++) {
        const struct value *value = &graph->values[values[i]];
        struct block got = block_open(value_bytes(value));
        assert_ok(ops->read(program, values[i], got.data, got.bytes, &err), &err);
        rowcodec(value->dtype)->decode(got.data, results[i], value_elements(value));
        free(got.memory);
    }
    ops->program_close(&program);
    ops->store_close(&store);
    plan_release(&plan);
}

/* dx = Σ dy w + β low down + addend of three products, whose weights are of very different sizes. */
static void check_fp8_join(const struct device_ops *ops, struct device *device, int64_t tokens) {
    enum { in = 96, rank = 3 };
    static const int64_t widths[3] = {96, 32, 64};
    static const double sizes[3] = {1, 16, 0x1p-4};
    struct fp8_graph g;
    int dx = -1, dy[3], w[3];
    fp8_graph_open(&g, ops, device);
    for (int i = 0; i < 3; i++) { /* operands 2 i and 2 i + 1 */
        dy[i] = fp8_operand(&g, DTYPE_BF16, tokens, widths[i], 1 / sizes[i]);
        w[i] = fp8_weight(&g, widths[i], in, sizes[i]);
    }
    int low = fp8_operand(&g, DTYPE_F32, tokens, rank, 1), down = fp8_operand(&g, DTYPE_F32, rank, in, 4);
    dx = fp8_operand(&g, DTYPE_BF16, tokens, in, 8);
    /* The first node may not lie on a state: a node of its own makes the addend. */
    int copy[1] = {dx};
    dx = graph_output(&g.trial.graph, fp8_node(&g, OP_COPY, copy, 0, DTYPE_BF16), 0);
    for (int i = 0; i < 3; i++) {
        int inputs[5] = {dy[i], w[i], dx, i ? -1 : low, i ? -1 : down};
        dx = graph_output(&g.trial.graph, fp8_node(&g, OP_LINEAR_GRAD_X, inputs, 0.5f, DTYPE_BF16), 0);
    }
    float *got = mem_array((size_t)(tokens * in), sizeof *got);
    fp8_graph_run(&g, &dx, &got, 1);
    double off = 0, size = 0;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = 0; c < in; c++) {
            double product = 0, rest = (double)g.numbers[8][t * in + c];
            for (int i = 0; i < 3; i++)
                for (int64_t k = 0; k < widths[i]; k++)
                    product += (double)g.numbers[2 * i][t * widths[i] + k] *
                               (double)g.numbers[2 * i + 1][k * in + c];
            for (int64_t r = 0; r < rank; r++)
                rest += 0.5 * (double)g.numbers[6][t * rank + r] * (double)g.numbers[7][r * in + c];
            double difference = (double)got[t * in + c] - product - rest;
            off += difference * difference;
            size += product * product;
        }
    mem_free(got);
    fp8_graph_release(&g);
    /* Each factor of a term is off by up to 2⁻⁴ of itself, 0.026 in the mean square. */
    if (!(off <= 0x1p-8 * size))
        fail_msg("three products of %lld rows are off by %.3g of their size", (long long)tokens,
                 sqrt(off / size));
}

/* What an operation yields, and the same through a product with the identity: its rows in e4m3, whose numbers
 * are off by up to 2⁻⁴ of themselves, or 2⁻¹⁰ of the row's factor, and a little for sums that are cut. */
static void check_fp8_output(const struct device_ops *ops, struct device *device, enum op_code op,
                             int64_t tokens, int64_t width) {
    static const struct {
        enum op_code op;
        int inputs, vector,
            outputs; /* input `vector` is one row, the one behind it of the gradient a column */
        enum dtype type;
    } rows[] = {{OP_NORM, 2, 1, 1, DTYPE_BF16},
                {OP_NORM_GRAD, 5, 2, 1, DTYPE_F32},
                {OP_GLU, 2, -1, 1, DTYPE_BF16},
                {OP_GLU_GRAD, 3, -1, 2, DTYPE_BF16}};
    int r = 0, inputs[5], values[4] = {0};
    float *got[4] = {NULL};
    struct fp8_graph g;
    while (rows[r].op != op) r++;
    fp8_graph_open(&g, ops, device);
    for (int i = 0; i < rows[r].inputs; i++)
        inputs[i] = i == rows[r].vector ? fp8_operand(&g, DTYPE_F32, width, 0, 1)
                    : rows[r].vector >= 0 && i == rows[r].vector + 1
                        ? fp8_operand(&g, DTYPE_F32, tokens, 0, 1)
                        : fp8_operand(&g, rows[r].type, tokens, width, 2);
    int identity = fp8_weight(&g, width, width, 0), node = fp8_node(&g, op, inputs, 0, rows[r].type);
    for (int o = 0; o < rows[r].outputs; o++) {
        values[2 * o] = graph_output(&g.trial.graph, node, o);
        int product[6] = {values[2 * o], identity, -1, -1, -1, -1};
        values[2 * o + 1] = graph_output(&g.trial.graph, fp8_node(&g, OP_LINEAR, product, 0, DTYPE_F32), 0);
    }
    int count = 2 * rows[r].outputs;
    for (int i = 0; i < count; i++) got[i] = mem_array((size_t)(tokens * width), sizeof *got[i]);
    fp8_graph_run(&g, values, got, count);
    for (int o = 0; o < count; o += 2)
        for (int64_t t = 0; t < tokens; t++) {
            double most = 0;
            for (int64_t c = 0; c < width; c++) most = fmax(most, fabs((double)got[o][t * width + c]));
            for (int64_t c = 0; c < width; c++) {
                double y = (double)got[o][t * width + c], z = (double)got[o + 1][t * width + c];
                double bound = 0x1.1p-4 * fabs(y) + most / 448 * 0x1p-9;
                if (!(fabs(z - y) <= bound))
                    fail_msg("%s, output %d, row %lld, column %lld of %lld: %g became %g", op_row(op)->name,
                             o / 2, (long long)t, (long long)c, (long long)width, y, z);
            }
        }
    for (int i = 0; i < count; i++) mem_free(got[i]);
    fp8_graph_release(&g);
}

#endif
