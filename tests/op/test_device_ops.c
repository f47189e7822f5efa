/* Every operation through a device's own table, against the f64 reference: plan, store, upload, run, read.
 * The operands and tolerances are those of the CPU's kernels (device_kernel_cases.h); HONE_TEST_DEVICE names
 * the device, cpu where it is not set, HONE_TEST_FILTER the tests, "linear*". A device that is not here ends
 * the test with status 77. */
#include "support/test.h"

#include <stdio.h>

#include "graph/graph.h"
#include "op/device_attention.h"
#include "op/device_decoding.h"
#include "op/device_fp8_cases.h"
#include "op/device_kernel_cases.h"
#include "op/device_layer.h"
#include "tensor/stored_parts.h"

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
    int part[tensor_parts];                              /* rows of what lies apart from input 0; -1 */
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

/* Rows for the pieces of a weight, which is input 0. */
static void add_parts(struct session *s, const struct stored_layout *layout) {
    for (int p = 0; p < tensor_parts; p++) {
        const struct stored_piece *piece = &layout->part[p];
        s->part[p] = -1;
        if (piece->rank)
            s->part[p] =
                state_add(&s->table, STATE_WEIGHT, piece->dtype, piece->rank, piece->dim, piece->suffix);
        s->table.rows[0].part[p] = s->part[p];
    }
}

/* The weight, input 1, is kept in fp8, with room for an adapter where there are trained rows of its rank. */
static void add_fp8(struct session *s, const struct sizes *z) {
    const int64_t elements = 64 * 3, dim[2] = {64, 3};
    s->table.rows[1].fp8 = true;
    if (z->segment) return;
    int block = state_add(&s->table, STATE_TRAINED, DTYPE_F32, 1, &elements, "trained");
    state_add_part(&s->table, block, 0, 2, dim, "part");
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

/* A copy of a row of state that covers the arena of `plan`, workspace and all. */
struct poison {
    struct graph graph;
    struct plan plan;
    int row;
};

/* Before the store is opened. */
static void poison_plan(struct poison *p, struct state_table *table, const struct plan *plan) {
    enum { width = 1024 };
    int64_t elements = (int64_t)(plan->arena_bytes + plan->workspace_bytes) / 4,
            dim[2] = {elements / width + 1, width};
    static const struct attributes none;
    struct error err;
    memset(p, 0, sizeof *p);
    graph_init(&p->graph);
    p->row = state_add(table, STATE_OPTIMIZER, DTYPE_F32, 2, dim, "poison");
    int inputs[2] = {graph_state(&p->graph, p->row, DTYPE_F32, 2, dim, "poison"), -1};
    int copy = graph_emit(&p->graph, OP_COPY, inputs, &none, DTYPE_F32, "copy");
    p->graph.values[graph_output(&p->graph, copy, 0)].keep = true;
    graph_set_producers(&p->graph);
    assert_false(p->graph.failed);
    assert_ok(plan_build(&p->plan, &p->graph, ask_workspace, device, &err), &err);
}

/* Fills the arena with what is no number, so that an operation that reads what nothing has written tells. */
static void poison_arena(struct poison *p, const struct state_table *table, struct store *store) {
    const struct binding binding = {.tokens = 1};
    struct program *program;
    struct error err;
    struct block nothing = block_open((size_t)table->rows[p->row].bytes);
    memset(nothing.data, 0xff, nothing.bytes);
    assert_ok(ops->reserve(store, p->plan.arena_bytes + p->plan.workspace_bytes, &err), &err);
    assert_ok(ops->compile(device, &p->plan, store, &program, &err), &err);
    assert_ok(ops->upload(store, p->row, nothing.data, nothing.bytes, &err), &err);
    assert_ok(ops->run(program, &binding, &err), &err);
    if (ops->finish) assert_ok(ops->finish(program, &err), &err);
    ops->program_close(&program);
    free(nothing.memory);
    plan_release(&p->plan);
    graph_release(&p->graph);
}

/* `layout`: of input 0, a weight whose scales lie apart; or NULL. */
static bool session_open(struct session *s, struct trial *trial, const struct sizes *z,
                         const struct stored_layout *layout) {
    struct error err;
    struct poison poison;
    struct node *node = &trial->graph.nodes[trial->node];
    memset(s, 0, sizeof *s);
    add_rows_of_state(s, trial);
    if (layout) add_parts(s, layout);
    if (trial->graph.nodes[trial->node].attributes.fp8) add_fp8(s, z);
    bind(s, trial, z);
    if (ops->arrange) ops->arrange(device, &trial->graph);
    for (int o = 0; o < node->outputs; o++) trial->graph.values[node->output[o]].keep = true;
    graph_set_producers(&trial->graph);
    if (!ops->supports(device, &trial->graph, node, &err)) return false;
    assert_ok(plan_build(&s->plan, &trial->graph, ask_workspace, device, &err), &err);
    poison_plan(&poison, &s->table, &s->plan);
    assert_ok(ops->store_open(device, &s->table, &s->store, &err), &err);
    assert_ok(!ops->store_fill || ops->store_fill(s->store, &err), &err);
    poison_arena(&poison, &s->table, s->store);
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

/* What the reference has, and the same bits once more. */
static void check_two_runs(struct session *s, const struct trial *trial, const char *name) {
    session_run(s, trial);
    check_results(s, trial, name);
    uint64_t first = digest(s);
    session_run(s, trial);
    if (digest(s) != first) fail_msg("%s: other bits in the second run", name);
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
    if ((op == OP_LINEAR || op == OP_LINEAR_GRAD_X) && b != DTYPE_F32 && trial.relative <= 0)
        trial.relative = unit_of(b) / 8;
    bool served = session_open(&s, &trial, z, NULL);
    if (served) check_two_runs(&s, &trial, name);
    session_close(&s);
    trial_release(&trial);
    return served;
}

/* The one operation that a test is of: cmocka's initial state. */
static void equals_the_reference(void **state) {
    static const struct {
        enum dtype a, b;
        bool rounds;
    } types[] = {{DTYPE_F32, DTYPE_F32, false},  {DTYPE_BF16, DTYPE_F32, false},
                 {DTYPE_F32, DTYPE_BF16, false}, {DTYPE_BF16, DTYPE_BF16, false},
                 {DTYPE_F16, DTYPE_F32, false},  {DTYPE_F32, DTYPE_F16, false},
                 {DTYPE_F16, DTYPE_F16, false},  {DTYPE_F32, DTYPE_F32, true},
                 {DTYPE_BF16, DTYPE_F32, true},  {DTYPE_F32, DTYPE_BF16, true}};
    enum op_code op = *(const enum op_code *)*state;
    int refused = 0, run = 0;
    bool product = op == OP_LINEAR || op == OP_LINEAR_GRAD_X || op == OP_LINEAR_GRAD_W;
    for (size_t s = 0; s < sizeof edge_sizes / sizeof *edge_sizes; s++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            if (types[t].rounds && !product) continue;
            check_operation(op, &edge_sizes[s], types[t].a, types[t].b, types[t].rounds) ? run++ : refused++;
        }
    print_message("%s: %d cases, %d refused\n", op_row(op)->name, run, refused);
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
        if (session_open(&s, &trial, &z, NULL)) {
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

/* Products of few rows read every such type as it is stored. */
static void products_of_few_rows_take_stored_types(void **state) {
    enum { few = 3, rows = 40, width = 768 };
    static const int64_t dim[2] = {rows, width};
    (void)state;
    int served = 0;
    for (int type = 0; type < DTYPE_COUNT; type++)
        for (int compute = 0; rowcodec((enum dtype)type) && type != DTYPE_F64 && compute < 3; compute++) {
            static const enum dtype computes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
            struct trial trial = {.random = 5, .terms = width};
            struct session s;
            char name[64];
            static const struct sizes z = {.tokens = few};
            snprintf(name, sizeof name, "few rows of %s in %s", dtype_row((enum dtype)type)->name,
                     dtype_row(computes[compute])->name);
            graph_init(&trial.graph);
            rounds_to(&trial, computes[compute]);
            trial.attributes = (struct attributes){.alpha = 1, .compute = computes[compute]};
            add_activation(&trial, computes[compute], COUNT_TOKENS, few, width, 1);
            add_shaped_state(&trial, (enum dtype)type, 2, dim, 1);
            for (int i = 2; i < 6; i++) add_absent(&trial);
            trial.node =
                graph_emit(&trial.graph, OP_LINEAR, trial.ids, &trial.attributes, DTYPE_F32, "product");
            bool open = session_open(&s, &trial, &z, NULL);
            if (open) check_two_runs(&s, &trial, name);
            served += open;
            session_close(&s);
            trial_release(&trial);
        }
    assert_true(served >= 10);
}

enum { apart_rows = 5, apart_width = 384 };

/* Rows of such a weight come out as stored_decode has them, bit for bit; false where the type is refused. */
static bool check_apart(const struct stored_layout *layout, unsigned char *bytes) {
    static const struct sizes z = {.tokens = 7};
    struct trial trial = {.random = 7};
    struct session s;
    struct error err;
    float want[apart_width];
    int id = graph_state(&trial.graph, 0, layout->codes.dtype, 2, layout->codes.dim, "state");
    memcpy(add_value_of(&trial, id), bytes, (size_t)layout->codes.bytes);
    add_indices(&trial, INPUT_IDS, COUNT_TOKENS, z.tokens, apart_rows);
    trial.node = graph_emit(&trial.graph, OP_EMBEDDING, trial.ids, NULL, DTYPE_F32, "rows");
    bool served = session_open(&s, &trial, &z, layout);
    for (int p = 0; served && p < tensor_parts; p++)
        if (s.part[p] >= 0)
            assert_ok(ops->upload(s.store, s.part[p], bytes + layout->part[p].offset,
                                  (size_t)layout->part[p].bytes, &err),
                      &err);
    if (served) session_run(&s, &trial);
    struct stored stored = stored_in(layout, bytes);
    const int32_t *ids = (const int32_t *)(const void *)trial.in[1].data;
    for (int64_t t = 0; served && t < z.tokens; t++) {
        stored_decode(&stored, ids[t], 0, apart_width, want);
        if (memcmp(want, s.out[0].data + t * (int64_t)sizeof want, sizeof want))
            fail_msg("%s, scales of %s: row %d differs", dtype_row(layout->codes.dtype)->name,
                     dtype_row(layout->part[PART_SCALES].dtype)->name, ids[t]);
    }
    session_close(&s);
    trial_release(&trial);
    return served;
}

/* Products of few rows read such a weight as it is stored. The graph's first state is the weight, as in
 * check_apart; tolerance: operands in bf16, half of 2^-8 of each, with random signs. */
static void check_apart_product(const struct stored_layout *layout, unsigned char *bytes) {
    enum { few = 3 };
    static const struct sizes z = {.tokens = few};
    struct trial trial = {.random = 9};
    struct session s;
    struct error err;
    float w[apart_width];
    double worst = 0, size = 0;
    int64_t dim[2] = {few, apart_width};
    trial.attributes = (struct attributes){.alpha = 1, .compute = DTYPE_BF16};
    int id = graph_state(&trial.graph, 0, layout->codes.dtype, 2, layout->codes.dim, "weight");
    memcpy(add_value_of(&trial, id), bytes, (size_t)layout->codes.bytes);
    add_shaped_state(&trial, DTYPE_BF16, 2, dim, 1);
    int inputs[6] = {trial.ids[1], trial.ids[0], -1, -1, -1, -1};
    trial.node = graph_emit(&trial.graph, OP_LINEAR, inputs, &trial.attributes, DTYPE_F32, "product");
    assert_true(session_open(&s, &trial, &z, layout));
    for (int p = 0; p < tensor_parts; p++)
        if (s.part[p] >= 0)
            assert_ok(ops->upload(s.store, s.part[p], bytes + layout->part[p].offset,
                                  (size_t)layout->part[p].bytes, &err),
                      &err);
    session_run(&s, &trial);
    struct stored stored = stored_in(layout, bytes);
    double *x = decoded(&trial.in[1], DTYPE_BF16, few * apart_width);
    for (int64_t n = 0; n < apart_rows; n++) {
        stored_decode(&stored, n, 0, apart_width, w);
        for (int64_t m = 0; m < few; m++) {
            double y = 0;
            for (int64_t k = 0; k < apart_width; k++) y += x[m * apart_width + k] * (double)w[k];
            worst = fmax(worst, fabs(y - (double)((float *)(void *)s.out[0].data)[m * apart_rows + n]));
            size = fmax(size, fabs(y));
        }
    }
    if (!(worst <= size * 0x1p-8))
        fail_msg("product with %s, scales of %s: off by %g of %g", dtype_row(layout->codes.dtype)->name,
                 dtype_row(layout->part[PART_SCALES].dtype)->name, worst, size);
    mem_free(x);
    session_close(&s);
    trial_release(&trial);
}

/* nf4 without double quantisation: the same scales, as f32. */
static struct stored_layout plain_scales(const struct stored_layout *from, const unsigned char *bytes,
                                         unsigned char *out) {
    struct stored_layout to = {.codes = from->codes};
    struct stored stored = stored_in(from, bytes);
    int64_t blocks = from->part[PART_SCALES].dim[0];
    uint64_t at = (from->codes.bytes + 63) & ~(uint64_t)63;
    memcpy(out, bytes, (size_t)from->codes.bytes);
    for (int64_t b = 0; b < blocks; b++) ((float *)(void *)(out + at))[b] = stored_nf4_scale(&stored, b);
    to.part[PART_SCALES] = (struct stored_piece){.suffix = "absmax",
                                                 .dtype = DTYPE_F32,
                                                 .rank = 1,
                                                 .dim = {blocks},
                                                 .offset = at,
                                                 .bytes = (uint64_t)blocks * 4};
    return to;
}

static void types_with_scales_apart_decode_to_the_same_bits(void **state) {
    static const enum dtype scales[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    int served = 0;
    (void)state;
    for (int type = 0; type < DTYPE_COUNT; type++) {
        bool affine = dtype_row((enum dtype)type)->form == FORM_AFFINE;
        for (int k = 0; dtype_row((enum dtype)type)->form != FORM_BLOCK && k < (affine ? 3 : 1); k++) {
            struct trial numbers = {.random = 11};
            struct stored_layout layout;
            struct stored_encoder encoder;
            struct error err;
            float source[apart_rows * apart_width];
            assert_true(stored_layout(&layout, (enum dtype)type, apart_rows, apart_width, scales[k]));
            struct block bytes = block_open((size_t)layout.bytes),
                         plain = block_open(apart_rows * apart_width);
            fill(&numbers, source, DTYPE_F32, apart_rows * apart_width, 3);
            assert_ok(stored_encoder_open(&encoder, &layout, bytes.data, &err), &err);
            stored_encode(&encoder, 0, apart_rows, source);
            stored_encoder_finish(&encoder, NULL);
            served += check_apart(&layout, bytes.data);
            check_apart_product(&layout, bytes.data);
            if (type == DTYPE_NF4) {
                struct stored_layout single = plain_scales(&layout, bytes.data, plain.data);
                served += check_apart(&single, plain.data);
                check_apart_product(&single, plain.data);
            }
            free(bytes.memory);
            free(plain.memory);
        }
    }
    assert_int_equal(served, 2 + 1 + 18 * 3 + 1);
}

/* A product with a weight in fp8, against the numbers that were not rounded. Both operands of a term are off
 * by up to 2⁻⁴ of themselves, with random signs; with a weight of zeros only the adapter's product is left,
 * which is as exact as in bf16. */
static void check_fp8(enum op_code op, const struct sizes *z, enum dtype a, enum dtype b, bool zeros) {
    struct trial trial;
    struct session s;
    char name[128];
    snprintf(name, sizeof name, "%s in fp8 (%lld tokens, %s to %s%s)", op_row(op)->name, (long long)z->tokens,
             dtype_row(a)->name, dtype_row(b)->name, zeros ? ", zeros" : "");
    trial_open(&trial, op, z, a, b);
    if (zeros) memset(trial.in[1].data, 0, trial.in[1].bytes);
    trial.relative = zeros ? 0x1p-8 : 0x1p-6;
    trial.compute = DTYPE_BF16;
    struct attributes *attributes = &trial.graph.nodes[trial.node].attributes;
    attributes->compute = DTYPE_BF16;
    attributes->fp8 = true;
    memset(&s, 0, sizeof s);
    if (session_open(&s, &trial, z, NULL)) check_two_runs(&s, &trial, name);
    session_close(&s);
    trial_release(&trial);
}

static void products_in_fp8(void **state) {
    static const struct sizes sizes[] = {{.tokens = 5, .width = 64, .hidden = 64},
                                         {.tokens = 5, .width = 64, .hidden = 64, .segment = 1},
                                         {.tokens = 133, .width = 160, .hidden = 96},
                                         {.tokens = 260, .width = 1024, .hidden = 512}};
    static const enum op_code codes[] = {OP_LINEAR, OP_LINEAR_GRAD_X};
    struct error err;
    (void)state;
    if (!ops->fp8 || !ops->fp8(device, &err)) skip();
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t op = 0; op < 2; op++)
            for (int types = 0; types < 8; types++)
                check_fp8(codes[op], &sizes[s], types & 1 ? DTYPE_BF16 : DTYPE_F32,
                          types & 2 ? DTYPE_BF16 : DTYPE_F32, types & 4);
}

static bool goes_on(void *user, int node, int64_t first, int64_t rows, struct error *err) {
    (void)user;
    (void)node;
    (void)first;
    (void)rows;
    (void)err;
    return true;
}

/* What is looked at, after a run from the same beginning. */
static void layer_run(struct layer *l, struct store *store, struct program *program, bool one_by_one,
                      struct block *out) {
    struct error err;
    struct binding binding = l->binding;
    binding.after = one_by_one ? goes_on : NULL;
    for (int row = 0; row < l->table.count; row++)
        if (l->begin[row].memory)
            assert_ok(ops->upload(store, row, l->begin[row].data, l->begin[row].bytes, &err), &err);
    assert_ok(ops->run(program, &binding, &err), &err);
    for (int i = 0; i < l->count; i++) {
        const struct value *value = &l->graph.values[l->looked_at[i]];
        out[i] = block_open(value_bytes(value));
        bool ok = value->kind == VALUE_STATE
                      ? ops->download(store, value->which, out[i].data, out[i].bytes, &err)
                      : ops->read(program, l->looked_at[i], out[i].data, out[i].bytes, &err);
        assert_ok(ok, &err);
    }
}

/* Roots of mean squares: numbers that are rounded to bf16 in between may end one unit apart, a few of them.
 */
static void compare_values(const struct layer *l, int i, const struct block *a, const struct layer *m,
                           const struct block *b, const char *name) {
    const struct value *value = &l->graph.values[l->looked_at[i]], *other = &m->graph.values[m->looked_at[i]];
    double *x = decoded(a, value->dtype, value_elements(value)), squares = 0, apart = 0;
    double *y = decoded(b, other->dtype, value_elements(other));
    for (int64_t e = 0; e < value_elements(value); e++) {
        squares += y[e] * y[e];
        apart += (x[e] - y[e]) * (x[e] - y[e]);
    }
    if (!(sqrt(apart) <= l->tolerance * sqrt(squares)))
        fail_msg("%s: value %d differs by %g of its size", name, i, sqrt(apart / squares));
    mem_free(x);
    mem_free(y);
}

static void layer_compare(const struct layer *l, const struct block *a, const struct block *b,
                          const char *name) {
    for (int i = 0; i < l->count; i++) compare_values(l, i, &a[i], l, &b[i], name);
}

enum { layer_runs = 3 }; /* two that are alike, one node by node */

/* At most `piece` rows at a time; 0: all. */
static void run_layer(struct layer *l, int64_t piece, const char *name,
                      struct block out[layer_runs][layer_values]) {
    struct plan plan;
    struct poison poison;
    struct store *store;
    struct program *program;
    struct error err;
    if (piece) assert_ok(graph_cut(&l->graph, piece, &err), &err);
    if (ops->arrange) ops->arrange(device, &l->graph);
    assert_ok(plan_build(&plan, &l->graph, ask_workspace, device, &err), &err);
    poison_plan(&poison, &l->table, &plan);
    assert_ok(ops->store_open(device, &l->table, &store, &err), &err);
    assert_ok(!ops->store_fill || ops->store_fill(store, &err), &err);
    poison_arena(&poison, &l->table, store);
    assert_ok(ops->compile(device, &plan, store, &program, &err), &err);
    for (int run = 0; run < layer_runs; run++) layer_run(l, store, program, run == 2, out[run]);
    layer_compare(l, out[0], out[2], name);
    for (int i = 0; i < l->count; i++)
        if (memcmp(out[0][i].data, out[1][i].data, out[0][i].bytes))
            fail_msg("%s: other bits in the second run", name);
    ops->program_close(&program);
    ops->store_close(&store);
    plan_release(&plan);
}

static void check_layer(int64_t tokens, int64_t width, int64_t rank) {
    struct layer whole, cut;
    struct block out[2][layer_runs][layer_values] = {0};
    char name[128];
    snprintf(name, sizeof name, "%lld tokens, %lld wide, rank %lld", (long long)tokens, (long long)width,
             (long long)rank);
    layer_build(&whole, tokens, width, rank);
    layer_build(&cut, tokens, width, rank);
    run_layer(&whole, 0, name, out[0]);
    run_layer(&cut, 32, name, out[1]);
    layer_compare(&whole, out[0][0], out[1][0], name);
    for (int run = 0; run < 2 * layer_runs; run++)
        for (int i = 0; i < whole.count; i++) free(out[run / layer_runs][run % layer_runs][i].memory);
    layer_release(&whole);
    layer_release(&cut);
}

static void nodes_yield_together_what_they_do_one_by_one_and_in_pieces(void **state) {
    (void)state;
    for (int64_t rank = 3; rank <= 35; rank += 16) {
        check_layer(9, 80, rank);
        check_layer(77, 136, rank);
        check_layer(1000, 264, rank);
    }
    check_layer(40, 128, 16);
}

/* Caches of one piece, of a cluster's, and of more; q, k and v of one type or not, and with adapters; a sum
 * that x has no room for at once. */
static void decoding_yields_together_what_its_nodes_do(void **state) {
    static const struct decoding cases[] = {
        {1, 512, 768, 4, 2, 64, 40, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, 0},
        {1, 2048, 8192, 8, 2, 64, 577, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, 0},
        {3, 512, 768, 4, 4, 128, 700, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_Q4_K, DTYPE_Q6_K, 0},
        {8, 512, 3328, 6, 3, 64, 4300, DTYPE_Q8_0, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q5_K, 0},
        {2, 576, 1536, 9, 3, 64, 300, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_F16, 8},
        {8, 2304, 1280, 4, 1, 256, 200, DTYPE_BF16, DTYPE_F32, DTYPE_IQ4_XS, DTYPE_MXFP4, 0},
        {1, 48, 128, 6, 2, 8, 40, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, 4}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct layer l;
        char name[128];
        snprintf(name, sizeof name, "decoding, case %zu", i);
        struct block out[layer_runs][layer_values] = {0};
        decoding_build(&l, &cases[i]);
        run_layer(&l, 0, name, out);
        for (int run = 0; run < layer_runs; run++)
            for (int v = 0; v < l.count; v++) free(out[run][v].memory);
        layer_release(&l);
    }
}

static void check_long_rows(const struct long_rows *rows) {
    struct layer rounded, exact;
    struct block out[2][layer_runs][layer_values] = {0};
    char name[128];
    snprintf(name, sizeof name, "rows of %d and %d tokens, %d heads of keys", (int)rows->first,
             (int)rows->second, rows->kv_heads);
    long_rows_build(&rounded, rows, DTYPE_BF16);
    long_rows_build(&exact, rows, DTYPE_F32);
    long_rows_take(&exact, &rounded);
    run_layer(&rounded, 0, name, out[0]);
    run_layer(&exact, 0, name, out[1]);
    for (int i = 0; i < exact.count; i++)
        compare_values(&rounded, i, &out[0][0][i], &exact, &out[1][0][i], name);
    for (int run = 0; run < 2 * layer_runs; run++)
        for (int i = 0; i < exact.count; i++) free(out[run / layer_runs][run % layer_runs][i].memory);
    layer_release(&rounded);
    layer_release(&exact);
}

/* An even and an odd count of heads; a row so long that a processor would take minutes. */
static void attention_of_long_rows_in_bf16_is_that_in_f32(void **state) {
    static const struct long_rows rows[] = {
        {500, 8300, 4, 4, 64}, {8300, 500, 3, 3, 32}, {132000, 9000, 2, 2, 64}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].first < 100000 || !strcmp(ops->name, "cuda")) check_long_rows(&rows[i]);
}

static void check_large_head(enum op_code op, const struct sizes *sizes, bool steep) {
    struct trial trial;
    struct session s;
    char name[128];
    snprintf(name, sizeof name, "%s of large%s, %lld wide", op_row(op)->name, steep ? ", steep" : "",
             (long long)sizes->width);
    trial_open(&trial, op, sizes, DTYPE_BF16, DTYPE_BF16);
    uint16_t *x = (uint16_t *)(void *)trial.in[0].data;
    for (size_t i = 0; steep && i < trial.in[0].bytes / 2; i++)
        if (x[i] & 0x7fff) x[i] = (uint16_t)(x[i] + (5 << 7)); /* bf16, times 32 */
    trial.graph.nodes[trial.node].attributes.compute = trial.compute;
    if (session_open(&s, &trial, sizes, NULL)) check_two_runs(&s, &trial, name);
    session_close(&s);
    trial_release(&trial);
}

/* Enough rows and columns for the way that keeps no logits, in tiles that end early; then with logits 32
 * times as large, whose rows are mostly hundreds above their target; and rows of more vectors than a small
 * block has threads. */
static void large_heads(void **state) {
    static const struct sizes sizes = {.targets = 300, .segment = 1, .width = 136, .vocabulary = 2500},
                              wide = {.targets = 130, .segment = 1, .width = 2056, .vocabulary = 2048};
    static const enum op_code codes[] = {OP_HEAD, OP_HEAD_GRAD};
    (void)state;
    for (size_t op = 0; op < 2; op++) {
        check_large_head(codes[op], &sizes, false);
        check_large_head(codes[op], &sizes, true);
        check_large_head(codes[op], &wide, false);
    }
}

static void gradients_of_one_input_in_fp8_are_their_sum(void **state) {
    struct error err;
    (void)state;
    if (!ops->fp8 || !ops->fp8(device, &err)) skip();
    check_fp8_join(ops, device, 1);
    check_fp8_join(ops, device, 133);
}

static void outputs_are_rounded_to_fp8_where_they_are_written(void **state) {
    static const enum op_code codes[] = {OP_NORM, OP_NORM_GRAD, OP_GLU, OP_GLU_GRAD};
    struct error err;
    (void)state;
    if (!ops->fp8 || !ops->fp8(device, &err)) skip();
    for (size_t op = 0; op < sizeof codes / sizeof *codes; op++) {
        check_fp8_output(ops, device, codes[op], 5, 96);
        check_fp8_output(ops, device, codes[op], 3, 4112); /* more than a vector for each thread of a block */
    }
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
    static struct CMUnitTest tests[OP_COUNT + 10];
    size_t count = 0;
    if (!open_device()) return 77;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!builders[op]) continue;
        codes[op] = (enum op_code)op;
        tests[count++] = (struct CMUnitTest){
            .name = op_row(codes[op])->name, .test_func = equals_the_reference, .initial_state = &codes[op]};
    }
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(stored_types_decode_to_the_same_bits);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(products_of_few_rows_take_stored_types);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(types_with_scales_apart_decode_to_the_same_bits);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(products_in_fp8);
    tests[count++] =
        (struct CMUnitTest)cmocka_unit_test(nodes_yield_together_what_they_do_one_by_one_and_in_pieces);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(decoding_yields_together_what_its_nodes_do);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(attention_of_long_rows_in_bf16_is_that_in_f32);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(large_heads);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(gradients_of_one_input_in_fp8_are_their_sum);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(outputs_are_rounded_to_fp8_where_they_are_written);
    if (getenv("HONE_TEST_FILTER")) cmocka_set_test_filter(getenv("HONE_TEST_FILTER"));
    int failed = _cmocka_run_group_tests(ops->name, tests, count, NULL, NULL);
    ops->close(&device);
    return failed;
}
