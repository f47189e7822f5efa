/* Every operation through a device's own table, against the f64 reference: plan, store, upload, run, read.
 * The operands and tolerances are those of the CPU's kernels (device_kernel_cases.h); HONE_TEST_DEVICE names
 * the device, cpu where it is not set. A device that is not here ends the test with status 77. */
#include "support/test.h"

#include <stdio.h>

#include "graph/graph.h"
#include "op/device_kernel_cases.h"

static const struct device_ops *ops;
static struct device *device;

/* A trial on the device: what the operation reads is state, what it yields is kept. */
struct session {
    struct state_table table;
    struct plan plan;
    struct store *store;
    struct program *program;
    struct binding binding;
    struct block in[op_max_inputs], out[op_max_outputs]; /* after the run */
};

static size_t ask_workspace(const void *user, const struct graph *graph, const struct node *node) {
    return ops->workspace(user, graph, node);
}

static bool is_bound(const struct trial *trial, int i) {
    return trial->ids[i] >= 0 && trial->graph.values[trial->ids[i]].kind == VALUE_INPUT;
}

static void add_rows_of_state(struct session *s, struct trial *trial) {
    state_table_init(&s->table);
    for (int i = 0; i < trial->inputs; i++) {
        struct value none = {.dtype = DTYPE_F32, .rank = 1, .dim = {1}};
        struct value *value =
            trial->ids[i] < 0 || is_bound(trial, i) ? &none : &trial->graph.values[trial->ids[i]];
        int row = state_add(&s->table, STATE_OPTIMIZER, value->dtype, value->rank, value->dim, "operand");
        assert_int_equal(row, i);
        value->kind = VALUE_STATE;
        value->which = i;
    }
}

static void bind(struct session *s, const struct trial *trial, const struct sizes *z) {
    s->binding = (struct binding){.tokens = z->tokens,
                                  .targets = z->targets,
                                  .segments = count_segments(z, NULL),
                                  .longest_segment = trial->longest_segment};
    for (int i = 0; i < trial->inputs; i++)
        if (is_bound(trial, i))
            s->binding.inputs[trial->graph.values[trial->ids[i]].which] = trial->in[i].data;
}

static bool session_open(struct session *s, struct trial *trial, const struct sizes *z) {
    struct error err;
    struct node *node = &trial->graph.nodes[trial->node];
    memset(s, 0, sizeof *s);
    add_rows_of_state(s, trial);
    bind(s, trial, z);
    if (ops->arrange) ops->arrange(device, &trial->graph);
    for (int o = 0; o < node->outputs; o++) trial->graph.values[node->output[o]].keep = true;
    graph_set_producers(&trial->graph);
    if (!ops->supports(device, &trial->graph, node, &err)) return false;
    assert_ok(plan_build(&s->plan, &trial->graph, ask_workspace, device, &err), &err);
    assert_ok(ops->store_open(device, &s->table, &s->store, &err), &err);
    assert_ok(ops->reserve(s->store, s->plan.arena_bytes + s->plan.workspace_bytes, &err), &err);
    assert_ok(ops->compile(device, &s->plan, s->store, &s->program, &err), &err);
    return true;
}

static void session_close(struct session *s) {
    for (int i = 0; i < op_max_inputs; i++) free(s->in[i].memory);
    for (int o = 0; o < op_max_outputs; o++) free(s->out[o].memory);
    if (s->program) ops->program_close(&s->program);
    if (s->store) ops->store_close(&s->store);
    plan_release(&s->plan);
    state_table_release(&s->table);
}

/* Uploads, runs, reads; the results are in s->in (state that is written) and s->out. */
static void session_run(struct session *s, const struct trial *trial) {
    struct error err;
    const struct node *node = node_of(trial);
    for (int i = 0; i < trial->inputs; i++)
        if (trial->ids[i] >= 0 && !is_bound(trial, i))
            assert_ok(ops->upload(s->store, i, trial->in[i].data, trial->in[i].bytes, &err), &err);
    assert_ok(ops->run(s->program, &s->binding, &err), &err);
    for (int o = 0; o < node->outputs; o++) {
        size_t bytes = value_bytes(&trial->graph.values[node->output[o]]);
        free(s->out[o].memory);
        s->out[o] = block_open(bytes);
        if (bytes) assert_ok(ops->read(s->program, node->output[o], s->out[o].data, bytes, &err), &err);
    }
    for (int i = 0; i < trial->inputs; i++) {
        if (!(op_row(node->op)->state_writes >> i & 1u) || trial->ids[i] < 0) continue;
        free(s->in[i].memory);
        s->in[i] = block_open(trial->in[i].bytes);
        assert_ok(ops->download(s->store, i, s->in[i].data, s->in[i].bytes, &err), &err);
    }
}

static struct operand operand_at(const struct trial *trial, int id, const struct block *block) {
    const struct value *value = &trial->graph.values[id];
    struct operand operand = {.data = block->data, .dtype = value->dtype, .rank = value->rank};
    memcpy(operand.dim, value->dim, sizeof operand.dim);
    return operand;
}

static void check_results(const struct session *s, const struct trial *trial, const char *name) {
    struct reference_call call;
    const struct node *node = node_of(trial);
    reference_open(trial, &call);
    for (int o = 0; o < node->outputs; o++) {
        struct operand got = operand_at(trial, node->output[o], &s->out[o]);
        compare(trial, call.out[o].data, &got, name, "output");
    }
    for (int i = 0; i < trial->inputs; i++) {
        if (!s->in[i].memory) continue;
        struct operand got = operand_at(trial, trial->ids[i], &s->in[i]);
        compare(trial, call.in[i].data, &got, name, "state");
    }
    reference_close(&call);
}

/* FNV-1a of all results. */
static uint64_t digest(const struct session *s) {
    uint64_t hash = 1469598103934665603u;
    for (int i = 0; i < op_max_inputs + op_max_outputs; i++) {
        const struct block *block = i < op_max_inputs ? &s->in[i] : &s->out[i - op_max_inputs];
        for (size_t b = 0; block->memory && b < block->bytes; b++)
            hash = (hash ^ block->data[b]) * 1099511628211u;
    }
    return hash;
}

/* `rounds`: a product of f32 activations made in bf16 all the same. */
static bool check_operation(enum op_code op, const struct sizes *z, enum dtype a, enum dtype b, bool rounds) {
    struct trial trial;
    struct session s;
    char name[128];
    snprintf(name, sizeof name, "%s on %s (%lld tokens, %s to %s)", op_row(op)->name, ops->name,
             (long long)z->tokens, dtype_row(a)->name, dtype_row(b)->name);
    trial_open(&trial, op, z, a, b);
    /* Tensor cores take weights and their gradients in bf16, too: half of 2^-8 of each, with random signs. */
    if ((op == OP_ATTENTION || op == OP_ATTENTION_GRAD) && a == DTYPE_BF16) rounds = true;
    if (rounds) rounds_to(&trial, DTYPE_BF16);
    trial.graph.nodes[trial.node].attributes.compute = trial.compute;
    /* Bias, addend and the product of low rank may be rounded to y's type before the product is added. */
    if ((op == OP_LINEAR || op == OP_LINEAR_GRAD_X) && b == DTYPE_BF16 && trial.relative <= 0)
        trial.relative = 0x1p-11;
    bool served = session_open(&s, &trial, z);
    if (served) {
        session_run(&s, &trial);
        check_results(&s, &trial, name);
        uint64_t first = digest(&s);
        session_run(&s, &trial);
        if (digest(&s) != first) fail_msg("%s: other bits in the second run", name);
    }
    session_close(&s);
    trial_release(&trial);
    return served;
}

/* The one operation that a test is of: cmocka's initial state. */
static void equals_the_reference(void **state) {
    enum op_code op = *(const enum op_code *)*state;
    int refused = 0, run = 0;
    bool product = op == OP_LINEAR || op == OP_LINEAR_GRAD_X || op == OP_LINEAR_GRAD_W;
    for (size_t s = 0; s < sizeof edge_sizes / sizeof *edge_sizes; s++)
        for (int types = 0; types < (product ? 6 : 4); types++)
            check_operation(op, &edge_sizes[s], types & 1 ? DTYPE_BF16 : DTYPE_F32,
                            types & 2 ? DTYPE_BF16 : DTYPE_F32, types >= 4)
                ? run++
                : refused++;
    print_message("%s: %d cases, %d refused\n", op_row(op)->name, run, refused);
    if (!run && !strcmp(ops->name, "cuda")) skip(); /* a module may lack an operation, and says so */
    assert_true(run > 0);
}

/* Rows of every stored type come out as the codec decodes them, bit for bit. */
static void stored_types_decode_to_the_same_bits(void **state) {
    enum { rows = 5, width = 512 };
    (void)state;
    int served = 0;
    for (int type = 0; type < DTYPE_COUNT; type++) {
        if (!rowcodec((enum dtype)type) || type == DTYPE_F64) continue;
        struct trial trial = {.random = 7};
        struct session s;
        static const struct sizes z = {.tokens = 7};
        int64_t dim[2] = {rows, width};
        graph_init(&trial.graph);
        add_shaped_state(&trial, (enum dtype)type, 2, dim, 3);
        add_indices(&trial, INPUT_IDS, COUNT_TOKENS, z.tokens, rows);
        trial.node = graph_emit(&trial.graph, OP_EMBEDDING, trial.ids, NULL, DTYPE_F32, "rows");
        if (session_open(&s, &trial, &z)) {
            session_run(&s, &trial);
            double *want = decoded(&trial.in[0], (enum dtype)type, rows * width);
            const int32_t *ids = (const int32_t *)(const void *)trial.in[1].data;
            for (int64_t i = 0; i < z.tokens * width; i++)
                if ((double)((const float *)(const void *)s.out[0].data)[i] !=
                    want[ids[i / width] * width + i % width])
                    fail_msg("%s: element %lld differs", dtype_row((enum dtype)type)->name, (long long)i);
            mem_free(want);
            served++;
        } else {
            print_message("refused: %s\n", dtype_row((enum dtype)type)->name);
        }
        session_close(&s);
        trial_release(&trial);
    }
    assert_true(served >= 10);
}

static bool open_device(void) {
    struct error err;
    char text[error_text_size];
    const char *name = getenv("HONE_TEST_DEVICE");
    struct device_options options = {.name = name, .threads = 2};
    ops = device_find(name ? name : "cpu", &err);
    if (ops && ops->open(&device, &options, &err)) return true;
    error_format(&err, text, sizeof text);
    fprintf(stderr, "skipped: %s\n", text);
    return false;
}

int main(void) {
    static enum op_code codes[OP_COUNT];
    static struct CMUnitTest tests[OP_COUNT + 1];
    size_t count = 0;
    if (!open_device()) return 77;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!builders[op]) continue;
        codes[op] = (enum op_code)op;
        tests[count++] = (struct CMUnitTest){
            .name = op_row(codes[op])->name, .test_func = equals_the_reference, .initial_state = &codes[op]};
    }
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(stored_types_decode_to_the_same_bits);
    int failed = _cmocka_run_group_tests(ops->name, tests, count, NULL, NULL);
    ops->close(&device);
    return failed;
}
