#include "score/engine_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "graph/graph.h"
#include "model/base_type.h"
#include "tensor/rowcodec.h"

/* Whether the device multiplies in fp8, and has anything to multiply. */
static bool check_fp8(const struct engine *engine, struct error *err) {
    const struct state_table *table = &engine->state.table;
    if (!engine->ops->fp8) {
        error_set(err, ERROR_USAGE, engine->ops->name, "this device has no products in fp8");
        return error_fix(err, "Take --compute bf16; fp8 is for GPUs of compute capability 9.0 (Hopper).");
    }
    if (!engine->ops->fp8(engine->device, err)) return false;
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].fp8) return true;
    error_set(err, ERROR_USAGE, "fp8", "no weight of this run can be kept in fp8");
    error_why(
        err,
        "it serves frozen linears of floats or GGUF's types whose sides are multiples of 16, without DoRA");
    return error_fix(err, "Take --compute bf16.");
}

bool engine_open(struct engine *out, const struct device_ops *ops, struct device *device,
                 const struct model *model, const struct method *method, const struct state_options *options,
                 struct error *err) {
    *out = (struct engine){.ops = ops, .device = device, .model = model};
    return model_state_build(&out->state, model, method, options, err) &&
           (!options->fp8 || check_fp8(out, err));
}

bool engine_auto_compute(const struct device_ops *ops, struct device *device, enum dtype *out,
                         struct error *err) {
    json_t *described = NULL;
    if (!ops->describe(device, &described, err)) return false;
    *out = json_is_true(json_object_get(described, "prefers_bf16")) ? DTYPE_BF16 : DTYPE_F32;
    json_decref(described);
    return true;
}

void engine_close(struct engine *engine) {
    if (engine->store) engine->ops->store_close(&engine->store);
    model_state_release(&engine->state);
}

static size_t ask_workspace(const void *user, const struct graph *graph, const struct node *node) {
    const struct engine *engine = user;
    return engine->ops->workspace(engine->device, graph, node);
}

static bool check_offload(const struct engine *engine, const struct graph_sizes *sizes, struct error *err) {
    bool values = sizes->keep == GRAPH_KEEP_OFFLOADED, rows = engine->state.offload_optimizer;
    if (engine->ops->offload != OFFLOAD_NOWHERE || (!values && !rows)) return true;
    error_set(err, ERROR_USAGE, engine->ops->name, "this device offloads nothing");
    return error_fix(err, values ? "Choose another --recompute." : "Leave --offload-optimizer out.");
}

bool program_plan(struct engine_program *out, const struct engine *engine, enum graph_kind kind,
                  const struct graph_sizes *sizes, struct error *err) {
    struct graph_sizes wanted = *sizes;
    memset(out, 0, sizeof *out);
    wanted.narrow = engine->ops->narrow_gradients;
    if (wanted.keep == GRAPH_KEEP_OFFLOADED && engine->ops->offload == OFFLOAD_TO_HOST)
        wanted.keep = GRAPH_KEEP_EDGES_OFFLOADED;
    bool ok = check_offload(engine, sizes, err) &&
              model_graph_build(&out->built, &engine->state, kind, &wanted, err);
    if (ok && engine->ops->arrange) engine->ops->arrange(engine->device, &out->built.graph);
    for (int n = 0; ok && n < out->built.graph.node_count; n++)
        ok = engine->ops->supports(engine->device, &out->built.graph, &out->built.graph.nodes[n], err);
    ok = ok && plan_build(&out->plan, &out->built.graph, ask_workspace, engine, err);
    if (!ok) program_release(out, engine);
    return ok;
}

uint64_t program_bytes(const struct engine_program *program) {
    return program->plan.arena_bytes + program->plan.workspace_bytes;
}

/* With attention's flops multiplied by `attention`. */
static double sum_flops(const struct engine_program *program, double attention,
                        const int64_t counts[COUNT_KINDS]) {
    const struct graph *graph = &program->built.graph;
    double flops = 0;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        bool attends = node->op == OP_ATTENTION || node->op == OP_ATTENTION_GRAD;
        if (op_row(node->op)->flops)
            flops += (attends ? attention : 1) * op_row(node->op)->flops(graph, node, counts);
    }
    return flops;
}

double program_flops(const struct engine_program *program, const int64_t counts[COUNT_KINDS]) {
    return sum_flops(program, 1, counts);
}

double program_work(const struct engine_program *program, const struct device_ops *ops,
                    const int64_t counts[COUNT_KINDS]) {
    return sum_flops(program, ops->attention_rate > 0 ? 1 / ops->attention_rate : 1, counts);
}

/* A GPU has no threads of its own to name: the host's cores. */
static bool engine_threads(const struct engine *engine, int *out, struct error *err) {
    json_t *described = NULL;
    if (!engine->ops->describe(engine->device, &described, err)) return false;
    int threads = (int)json_integer_value(json_object_get(described, "threads"));
    json_decref(described);
    *out = threads > 0 ? threads : thread_cores();
    return true;
}

bool engine_open_pool(const struct engine *engine, struct pool **out, struct error *err) {
    int threads;
    return engine_threads(engine, &threads, err) && pool_open(out, threads, err);
}

static bool fill_weights(struct engine *engine, struct error *err) {
    const struct state_table *table = &engine->state.table;
    struct pool *pool = NULL;
    bool ok = engine_open_pool(engine, &pool, err);
    for (int i = 0; ok && i < table->count; i++) {
        if (table->rows[i].class != STATE_WEIGHT || table->rows[i].parent >= 0) continue;
        struct engine_row row;
        if (!engine_row_open(&row, engine, i, false, err)) ok = false;
        ok = ok && model_state_make(&engine->state, i, row.data, pool, err) && engine_row_put(&row, err);
        engine_row_release(&row);
    }
    pool_close(&pool);
    return ok;
}

/* What making a weight takes for a while is taken before the arena is, which is larger. */
bool engine_start(struct engine *engine, uint64_t arena, struct error *err) {
    const struct state_table *table = &engine->state.table;
    struct engine_load *load = &engine->load;
    if (!engine->ops->store_open(engine->device, table, &engine->store, err)) return false;
    double begun = clock_seconds();
    if (engine->ops->store_fill && !engine->ops->store_fill(engine->store, err)) return false;
    double copied = clock_seconds();
    if (!fill_weights(engine, err)) return false;
    *load = (struct engine_load){.copied_bytes = state_class_bytes(table, STATE_MAPPED),
                                 .made_bytes = state_class_bytes(table, STATE_WEIGHT),
                                 .copied_seconds = copied - begun,
                                 .made_seconds = clock_seconds() - copied,
                                 .done = clock_seconds()};
    return engine->ops->reserve(engine->store, arena, err);
}

bool engine_clear(struct engine *engine, int row, struct error *err) {
    struct engine_row zeros;
    if (engine->ops->clear) return engine->ops->clear(engine->store, row, err);
    if (!engine_row_open(&zeros, engine, row, false, err)) return false;
    if (!zeros.copied) memset(zeros.data, 0, zeros.bytes); /* a copy's pages are zeros */
    bool ok = engine_row_put(&zeros, err);
    engine_row_release(&zeros);
    return ok;
}

bool engine_reset(struct engine *engine, struct error *err) {
    const struct state_table *table = &engine->state.table;
    bool ok = true;
    for (int i = 0; ok && i < table->count; i++) {
        enum state_class class = table->rows[i].class;
        if (table->rows[i].parent < 0 &&
            (class == STATE_TRAINED || class == STATE_GRADIENT || class == STATE_OPTIMIZER))
            ok = engine_clear(engine, i, err);
    }
    return ok;
}

bool engine_init_scaling(struct engine *engine, struct error *err) {
    const float first[SCALING_COLUMNS] = {[SCALING_FACTOR] = SCALING_FIRST};
    return engine->state.scaling < 0 ||
           engine->ops->upload(engine->store, engine->state.scaling, first, sizeof first, err);
}

bool engine_loss_scale(const struct engine *engine, float *out, struct error *err) {
    *out = 1;
    return engine->state.scaling < 0 ||
           engine->ops->download(engine->store, engine->state.scaling, out, sizeof *out, err);
}

bool program_compile(struct engine_program *program, struct engine *engine, struct error *err) {
    return engine->ops->compile(engine->device, &program->plan, engine->store, &program->program, err);
}

void program_release(struct engine_program *program, const struct engine *engine) {
    if (program->program) engine->ops->program_close(&program->program);
    plan_release(&program->plan);
    graph_release(&program->built.graph);
    memset(program, 0, sizeof *program);
}
