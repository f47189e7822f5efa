/* A plan on the device: its nodes in order, each a few launches on the stream. A run returns without waiting.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/cuda/cuda.h"
#include "device/cuda/few_join.h"
#include "device/cuda/fp8.h"
#include "device/cuda/inputs.h"
#include "device/cuda/offload.h"
#include "device/cuda/passes.h"
#include "device/cuda/replay.h"
#include "device/cuda/trace.h"

struct node_table {
    void *data; /* on the device */
    int count;
};

struct program {
    const struct plan *plan; /* must outlive the program */
    struct store *store;
    const struct cuda_kernel **kernels; /* [nodes] */
    struct node_table *tables;          /* [nodes] */
    struct inputs inputs;
    struct passes *passes;
    struct few_group *few_groups; /* [nodes] */
    int served;                   /* nodes below it are done, in this run */
    struct converted copies[cuda_copies];
    unsigned char *results; /* page-locked, through which kept values are read; NULL: there are none */
    size_t result_bytes;
    int few; /* the value that the launch before, a product of few rows, multiplied; -1: it was another */
    struct replays replays;
    struct offload *offload; /* NULL: the plan offloads nothing */
    struct trace *trace;     /* NULL: nobody has asked for a timeline */
    int *joins;  /* [nodes] 1, or how many from here on are one product, or 0: done with an earlier one */
    int64_t pad; /* the largest of all nodes' ranks */
};

const struct cuda_kernel *cuda_kernel_of(enum op_code op) {
    static const struct cuda_kernel *const tables[] = {cuda_kernels_rows, cuda_kernels_products,
                                                       cuda_kernels_attention, cuda_kernels_optimizer,
                                                       cuda_kernels_dora};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct cuda_kernel *row = tables[t]; row->run; row++)
            if (row->op == op) return row;
    return NULL;
}

static bool is_activation(const struct value *value) {
    return value->dtype == DTYPE_F32 || value->dtype == DTYPE_BF16 || value->dtype == DTYPE_F16;
}

/* What decode.cuh reads: the plain types and all quantised ones. */
static bool is_decoded(enum dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16 || dtype_row(type)->quantised;
}

bool cuda_supports(const struct device *device, const struct graph *graph, const struct node *node,
                   struct error *err) {
    const char *op = op_row(node->op)->name, *why = NULL;
    if (node->attributes.fp8 && !fp8_serves(device, err)) return false;
    if (!cuda_kernel_of(node->op)) why = "it has no kernel for this operation";
    if (node->attributes.head_dim > 256) why = "heads are wider than 256";
    for (int i = 0; i < node->inputs && !why; i++) {
        const struct value *value = node->input[i] < 0 ? NULL : &graph->values[node->input[i]];
        if (!value) continue;
        if (value->kind == VALUE_TRANSIENT && !is_activation(value))
            why = "an activation is neither f32, bf16 nor f16";
        bool number = value->kind == VALUE_STATE && value->dtype != DTYPE_I32 && value->dtype != DTYPE_F64 &&
                      value->dtype != DTYPE_U8;
        if (number && !is_decoded(value->dtype)) {
            error_set(err, ERROR_USAGE, "cuda", "weights of type %s are not served on a GPU yet (%s)",
                      dtype_row(value->dtype)->name, op);
            return error_fix(err, "Take --device cpu, or --frozen-weights decoded.");
        }
    }
    if (!why) return true;
    error_set(err, ERROR_USAGE, "cuda", "the operation %s does not run on a GPU: %s", op, why);
    return error_fix(err, "Take --device cpu.");
}

size_t cuda_workspace(const struct device *device, const struct graph *graph, const struct node *node) {
    (void)device;
    const struct cuda_kernel *kernel = cuda_kernel_of(node->op);
    return kernel && kernel->workspace ? kernel->workspace(graph, node) : 0;
}

static void *given_out(struct call *call, unsigned char *at, size_t bytes) {
    for (struct converted *copy = call->copies; copy < call->copies + cuda_copies; copy++)
        if (at < copy->end && copy->data < at + bytes) copy->value = -1;
    return at;
}

void *call_scratch(struct call *call, size_t bytes) {
    unsigned char *at = call->workspace + call->used;
    call->used += cuda_round(bytes);
    return given_out(call, at, cuda_round(bytes));
}

void *call_scratch_above(struct call *call, size_t bytes) {
    call->top -= cuda_round(bytes);
    return given_out(call, call->workspace + call->top, cuda_round(bytes));
}

unsigned char *call_copy(const struct call *call, int value, enum dtype type) {
    for (int i = 0; i < cuda_copies; i++)
        if (call->copies[i].value == value && call->copies[i].type == type) return call->copies[i].data;
    return NULL;
}

void call_keep(struct call *call, int value, enum dtype type, void *data, size_t bytes) {
    int free = 0;
    while (free < cuda_copies - 1 && call->copies[free].value >= 0) free++;
    call->copies[free] = (struct converted){value, type, data, (unsigned char *)data + bytes};
}

/* Rows of what a product with an adapter reads get room for the adapter's numbers (products.c). What may
 * lie on another value is made as wide as that, so that it still may. */
void cuda_arrange(const struct device *device, struct graph *graph) {
    (void)device;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        int64_t pad = cuda_pad(cuda_node_rank(graph, node));
        struct value *x = pad ? &graph->values[node->input[0]] : NULL;
        if (x && x->kind == VALUE_TRANSIENT && x->dtype == DTYPE_BF16 && x->rank == 2 && !x->keep &&
            x->padding < pad)
            x->padding = (int)pad;
    }
    for (int n = graph->node_count - 1; n >= 0; n--) {
        const struct node *node = &graph->nodes[n];
        for (int o = 0; o < node->outputs; o++) {
            int under = op_row(node->op)->overwrite[o];
            if (under < 0 || node->input[under] < 0 || node->output[o] < 0) continue;
            struct value *in = &graph->values[node->input[under]];
            const struct value *out = &graph->values[node->output[o]];
            if (in->kind == VALUE_TRANSIENT && in->dtype == out->dtype && in->rank == 2 && !in->keep &&
                in->padding < out->padding)
                in->padding = out->padding;
        }
    }
}

/* ---- compile ---- */

static bool make_tables(struct program *program, struct error *err) {
    const struct graph *graph = program->plan->graph;
    bool ok = true;
    for (int n = 0; ok && n < graph->node_count; n++) {
        const struct cuda_kernel *kernel = program->kernels[n];
        struct node_table *table = &program->tables[n];
        void *data = NULL;
        size_t bytes = 0;
        if (!kernel->table) continue;
        ok = kernel->table(&graph->nodes[n], &data, &bytes, &table->count, err) &&
             cuda_allocate(&table->data, bytes, "the update's table", err) &&
             cuda_check(cudaMemcpyAsync(table->data, data, bytes, cudaMemcpyHostToDevice,
                                        program->store->device->stream),
                        "copy to the GPU", err) &&
             cuda_wait(program->store->device, err);
        mem_free(data);
    }
    return ok;
}

static void find_joins(struct program *program) {
    const struct plan *plan = program->plan;
    const struct graph *graph = plan->graph;
    for (int n = 0; n < graph->node_count;) {
        int count = fp8_joins(graph, &graph->nodes[n]);
        for (int i = 1; i < count; i++)
            if (plan->offset[graph->nodes[n + i].output[0]] != plan->offset[graph->nodes[n].output[0]])
                count = 0;
        program->joins[n++] = count ? count : 1;
        for (int i = 1; i < count; i++) program->joins[n++] = 0;
    }
}

/* Copies to memory that is not page-locked go at a fraction of the bus's rate. */
static bool open_results(struct program *program, struct error *err) {
    static const size_t most = 1 << 20;
    const struct plan *plan = program->plan;
    for (int v = 0; v < plan->graph->value_count; v++)
        if (plan->graph->values[v].keep && plan->offset[v] != UINT64_MAX &&
            plan->bytes[v] > program->result_bytes)
            program->result_bytes = plan->bytes[v] < most ? (size_t)plan->bytes[v] : most;
    return !program->result_bytes ||
           cuda_check(cudaMallocHost((void **)&program->results, program->result_bytes),
                      "allocate page-locked memory", err);
}

bool cuda_compile(struct device *device, const struct plan *plan, struct store *store, struct program **out,
                  struct error *err) {
    struct program *program = mem_calloc(1, sizeof *program);
    size_t nodes = (size_t)plan->graph->node_count;
    *out = NULL;
    if (!program) return error_no_memory(err, "cuda", sizeof *program);
    program->plan = plan;
    program->store = store;
    program->kernels = mem_calloc(nodes + 1, sizeof *program->kernels);
    program->tables = mem_calloc(nodes + 1, sizeof *program->tables);
    program->joins = mem_array(nodes + 1, sizeof *program->joins);
    program->few_groups = mem_calloc(nodes + 1, sizeof *program->few_groups);
    bool ok = (program->kernels && program->tables && program->joins && program->few_groups) ||
              error_no_memory(err, "cuda", nodes * sizeof(void *));
    if (ok) {
        find_joins(program);
        if (!plan->graph->piece_rows) few_groups_find(program->few_groups, plan);
    }
    for (size_t n = 0; ok && n < nodes; n++) {
        ok = cuda_supports(device, plan->graph, &plan->graph->nodes[n], err);
        program->kernels[n] = cuda_kernel_of(plan->graph->nodes[n].op);
        int64_t pad = cuda_pad(cuda_node_rank(plan->graph, &plan->graph->nodes[n]));
        if (pad > program->pad) program->pad = pad;
    }
    ok = ok && cuda_reserve(store, plan->arena_bytes + plan->workspace_bytes, err) &&
         inputs_open(&program->inputs, device, plan->graph, err) && open_results(program, err) &&
         make_tables(program, err) && passes_open(&program->passes, plan, err) &&
         offload_open(&program->offload, device, plan, program->passes, err) &&
         replays_open(&program->replays, store, plan->graph, program->passes,
                      program->inputs.rounds && !program->offload, err);
    if (!ok) cuda_program_close(&program);
    *out = program;
    return ok;
}

void cuda_program_close(struct program **handle) {
    struct program *program = *handle;
    if (!program) return;
    if (program->store) cudaStreamSynchronize(program->store->device->stream);
    for (int n = 0; program->tables && n < program->plan->graph->node_count; n++)
        cudaFree(program->tables[n].data);
    inputs_close(&program->inputs);
    cudaFreeHost(program->results);
    trace_close(&program->trace);
    offload_close(&program->offload);
    replays_close(&program->replays);
    passes_close(&program->passes);
    mem_free(program->kernels);
    mem_free(program->tables);
    mem_free(program->joins);
    mem_free(program->few_groups);
    mem_free(program);
    *handle = NULL;
}

/* ---- run ---- */

struct matrix matrix_of(const struct operand *operand) {
    const struct dtype_row *row = dtype_row(operand->dtype);
    struct matrix matrix = {
        .codes = array_of(operand), .form = row->form, .block = (int)row->block, .bytes = (int)row->bytes};
    memcpy(matrix.part, operand->part, sizeof matrix.part);
    return matrix;
}

static void place_state(const struct store *store, int row, struct operand *out) {
    const struct state_row *rows = store->table->rows;
    out->data = store->data[row];
    if (cuda_is_padded(store->table, row)) out->stride += store->pad;
    for (int p = 0; p < tensor_parts; p++) {
        int part = rows[row].part[p];
        if (part >= 0) out->part[p] = (struct stored_part){store->data[part], rows[part].dtype};
    }
}

struct run {
    struct program *program;
    const struct binding *binding;
    struct walk walk;
    int end; /* of the nodes that are launched together */
};

static struct operand place(const struct run *run, int id) {
    if (id < 0) return (struct operand){0};
    const struct program *program = run->program;
    const struct value *value = &program->plan->graph->values[id];
    struct operand operand = operand_bound(value, run->binding);
    if (value->kind == VALUE_STATE) place_state(program->store, value->which, &operand);
    if (value->kind == VALUE_INPUT) operand.data = inputs_at(&program->inputs, value->which);
    if (value->kind == VALUE_TRANSIENT && program->plan->offset[id] != UINT64_MAX)
        operand.data = value->offloaded ? offload_place(program->offload, id)
                                        : program->store->arena + program->plan->offset[id];
    walk_cut(&run->walk, value, &operand);
    return operand;
}

/* A node with its operands in this run. */
static struct call call_of(void *user, int n) {
    const struct run *run = user;
    struct program *program = run->program;
    const struct graph *graph = program->plan->graph;
    const struct node *node = &graph->nodes[n];
    struct call call = {.device = program->store->device,
                        .graph = graph,
                        .node = node,
                        .stream = program->store->device->stream,
                        .compute = operand_compute(graph, node),
                        .pad = program->pad,
                        .fp8_pad = program->store->fp8_pad,
                        .workspace = program->store->arena + cuda_round((size_t)program->plan->arena_bytes),
                        .top = (size_t)program->plan->workspace_bytes & ~(size_t)255,
                        .copies = program->copies,
                        .few_before = program->few,
                        .few = &program->few,
                        .table = program->tables[n].data,
                        .table_count = program->tables[n].count,
                        .ranges = inputs_ranges(&program->inputs),
                        .hyper = run->binding->inputs[INPUT_HYPER]};
    for (int i = 0; i < node->inputs; i++) call.in[i] = place(run, node->input[i]);
    for (int o = 0; o < node->outputs; o++) call.out[o] = place(run, node->output[o]);
    return call;
}

static bool launched(const struct program *program, int n, struct error *err) {
    cudaError_t status = cudaGetLastError(); /* of this launch, or of what was still running */
    char doing[64];
    if (status == cudaSuccess) return true;
    snprintf(doing, sizeof doing, "go on with %s", op_row(program->plan->graph->nodes[n].op)->name);
    return cuda_check(status, doing, err);
}

/* Node n with those behind it that the same launch serves; false: there are none. */
static bool run_group(struct run *run, int n) {
    struct program *program = run->program;
    const struct few_group *group = &program->few_groups[n];
    if (group->kind == FEW_ALONE || program->offload || n + group->count > run->end ||
        passes_claim(program->passes, n, n + group->count, run->walk.rows) ||
        !few_group_run(group, n, call_of, run))
        return false;
    program->served = n + group->count;
    return true;
}

/* Where results are looked at one by one, each node makes its own. */
static bool run_node(struct run *run, int n, struct error *err) {
    struct program *program = run->program;
    bool served = false;
    if (n < program->served) return true;
    if (!run->binding->after && run_group(run, n)) return launched(program, n, err);
    if (!run->binding->after && !passes_run(program->passes, n, run->walk.rows, call_of, run, &served, err))
        return false;
    struct call calls[fp8_most_joined];
    int count = program->joins[n];
    for (int i = 0; i < count; i++) calls[i] = call_of(run, n + i);
    program->few = -1;
    if (served) return true;
    if (offload_owns(program->offload, n))
        return offload_copy(program->offload, n, &calls[0].out[0], &calls[0].in[0], err);
    if (count > 1 && !fp8_join(calls, count, err)) return false;
    if (count == 1 && !program->kernels[n]->run(&calls[0], err)) return false;
    return launched(program, n, err);
}

/* What nodes have left for later ones is of the rows that they were run for. */
static void forget_copies(struct program *program) {
    for (int i = 0; i < cuda_copies; i++) program->copies[i].value = -1;
    program->few = -1;
}

/* Nodes first … end - 1, which find nothing that earlier ones have left for them: it may be a graph that ran
 * before. */
static bool run_nodes(void *user, int first, int end, struct error *err) {
    struct run *run = user;
    struct program *program = run->program;
    const struct binding *binding = run->binding;
    forget_copies(program);
    program->served = 0;
    run->end = end;
    bool ok = true;
    run->walk = walk_begin(program->plan->graph, binding, first);
    for (int n = first; ok && n < end; n = run->walk.node) {
        int64_t rows = run->walk.rows;
        ok = operands_go_on(binding, err) && offload_wait(program->offload, n, err) && run_node(run, n, err);
        /* Whoever looks at each node has it alone. */
        if (ok && (binding->timeline || binding->after)) ok = offload_join(program->offload, n, err);
        if (ok && binding->timeline) ok = trace_node(program->trace, n, rows, err);
        if (ok) ok = walk_look(&run->walk, binding, n, err);
        walk_on(&run->walk, 1);
        if (run->walk.node <= n || run->walk.rows != rows) forget_copies(program);
    }
    /* A run that ends early too: the next one uses the same places. */
    struct error ignored;
    bool joined = offload_join(program->offload, end - 1, ok ? err : &ignored);
    return ok && joined;
}

/* Nothing is recorded while somebody looks. */
static bool run_watched(struct run *run, struct error *err) {
    struct program *program = run->program;
    const struct binding *binding = run->binding;
    const struct graph *graph = program->plan->graph;
    bool ok = !binding->timeline || trace_begin(&program->trace, program->store->device, err);
    for (int i = 0; ok && i < program->replays.stretch_count; i++) {
        const struct stretch *stretch = &program->replays.stretches[i];
        ok = run_nodes(run, stretch->first, stretch->end, err);
    }
    return ok && (!binding->timeline || trace_end(program->trace, graph, binding, err));
}

bool cuda_run(struct program *program, const struct binding *binding, struct error *err) {
    const struct binding rounded = inputs_rounded(&program->inputs, binding);
    struct run run = {.program = program, .binding = &rounded};
    if (!operands_go_on(binding, err) || !operands_check(program->plan->graph, binding, err) ||
        !inputs_copy(&program->inputs, binding, rounded.tokens, err))
        return false;
    if (binding->after || binding->timeline) return run_watched(&run, err);
    bool ok = true;
    replays_begin(&program->replays, program->store->arena);
    for (int i = 0; ok && i < program->replays.stretch_count; i++)
        ok = replay_run(&program->replays, i, &rounded, program->store->device->stream, run_nodes, &run, err);
    return ok;
}

bool cuda_finish(struct program *program, struct error *err) {
    return cuda_wait(program->store->device, err);
}

static bool read_kept(struct program *program, const unsigned char *from, unsigned char *to, size_t bytes,
                      struct error *err) {
    struct device *device = program->store->device;
    bool ok = true;
    for (size_t at = 0, size; ok && at < bytes; at += size) {
        size = bytes - at < program->result_bytes ? bytes - at : program->result_bytes;
        ok = cuda_check(cudaMemcpyAsync(program->results, from + at, size, cudaMemcpyDefault, device->stream),
                        "copy from the GPU", err) &&
             cuda_wait(device, err);
        if (ok) memcpy(to + at, program->results, size);
    }
    return ok;
}

bool cuda_read(struct program *program, int value, void *data, size_t bytes, struct error *err) {
    const struct plan *plan = program->plan;
    if (value < 0 || value >= plan->graph->value_count || plan->offset[value] == UINT64_MAX ||
        bytes > plan->bytes[value])
        return error_set(err, ERROR_INTERNAL, "program", "value %d cannot be read", value);
    const struct value *v = &plan->graph->values[value];
    const unsigned char *from =
        v->offloaded ? offload_place(program->offload, value) : program->store->arena + plan->offset[value];
    cudaStream_t stream = program->store->device->stream;
    if (program->results && !v->padding) return read_kept(program, from, data, bytes, err);
    size_t element = dtype_row(v->dtype)->bytes, width = (size_t)(v->rank > 1 ? v->dim[1] : 1) * element;
    cudaError_t status = v->padding
                             ? cudaMemcpy2DAsync(data, width, from, width + (size_t)v->padding * element,
                                                 width, bytes / width, cudaMemcpyDefault, stream)
                             : cudaMemcpyAsync(data, from, bytes, cudaMemcpyDefault, stream);
    return cuda_check(status, "copy from the GPU", err) && cuda_wait(program->store->device, err);
}
