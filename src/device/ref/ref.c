/* The reference device: every operation by its f64 reference, on plain host memory. Oracle,
 * documentation, fallback; never optimised. Values are stored in their planned types, so it rounds
 * where a real device rounds, but it sums in f64. */
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "device/host.h"
#include "device/timeline.h"
#include "tensor/rowcodec.h"

struct device {
    int unused;
};

struct program {
    struct host_memory memory;
};

static bool ref_open(struct device **out, const struct device_options *options, struct error *err) {
    (void)options;
    *out = mem_calloc(1, sizeof **out);
    return *out || error_no_memory(err, "ref", sizeof **out);
}

static void ref_close(struct device **device) {
    mem_free(*device);
    *device = NULL;
}

static bool ref_describe(const struct device *device, json_t **out, struct error *err) {
    (void)device;
    *out = json_pack("{s:s, s:s, s:i}", "name", "ref", "what",
                     "every operation in plain C and f64; slow, for checking", "threads", 1);
    return *out || error_no_memory(err, "ref", 0);
}

static bool ref_measure(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3],
                        int count, uint64_t memory, json_t **out, struct error *err) {
    (void)device, (void)compute, (void)shapes, (void)count, (void)memory;
    *out = json_object();
    return *out || error_no_memory(err, "ref", 0);
}

static bool ref_supports(const struct device *device, const struct graph *graph, const struct node *node,
                         struct error *err) {
    (void)device, (void)graph, (void)node, (void)err;
    return true;
}

/* f64 copies are made per node with the allocator: this device's promise is clearness, not memory. */
static size_t ref_workspace(const struct device *device, const struct graph *graph, const struct node *node) {
    (void)device, (void)graph, (void)node;
    return 0;
}

static bool load(double **out, const struct operand *operand, struct error *err) {
    int64_t n = operand_elements(operand);
    *out = mem_array((size_t)n + 1, sizeof **out);
    float *row = mem_array((size_t)n + 1, sizeof *row);
    bool ok = *out && row;
    if (!ok) error_no_memory(err, "ref", (unsigned long long)n * sizeof **out);
    const struct rowcodec *codec = rowcodec(operand->dtype);
    if (ok && operand->dtype == DTYPE_F64) {
        memcpy(*out, operand->data, (size_t)n * sizeof **out);
    } else if (ok && (codec || dtype_row(operand->dtype)->quantised)) {
        struct stored stored = operand_stored(operand);
        for (int64_t r = 0; n && r < n / stored.columns; r++)
            stored_decode(&stored, r, 0, stored.columns, row + r * stored.columns);
        for (int64_t i = 0; i < n; i++) (*out)[i] = (double)row[i];
    } else {
        for (int64_t i = 0; ok && i < n; i++)
            (*out)[i] = operand->dtype == DTYPE_I32  ? (double)((const int32_t *)operand->data)[i]
                        : operand->dtype == DTYPE_U8 ? (double)((const uint8_t *)operand->data)[i]
                                                     : (double)((const uint32_t *)operand->data)[i];
    }
    mem_free(row);
    return ok;
}

static bool save(const double *data, const struct operand *operand, struct error *err) {
    int64_t n = operand_elements(operand);
    if (operand->dtype == DTYPE_F64) {
        memcpy(operand->data, data, (size_t)n * sizeof *data);
        return true;
    }
    if (operand->dtype == DTYPE_I32) {
        for (int64_t i = 0; i < n; i++) ((int32_t *)operand->data)[i] = (int32_t)data[i];
        return true;
    }
    if (operand->dtype == DTYPE_U8) {
        for (int64_t i = 0; i < n; i++) ((uint8_t *)operand->data)[i] = (uint8_t)data[i];
        return true;
    }
    float *row = mem_array((size_t)n + 1, sizeof *row);
    if (!row) return error_no_memory(err, "ref", (unsigned long long)n * sizeof *row);
    for (int64_t i = 0; i < n; i++) row[i] = (float)data[i];
    rowcodec(operand->dtype)->encode(row, operand->data, n);
    mem_free(row);
    return true;
}

static bool run_node(struct program *program, const struct walk *walk, const struct binding *binding,
                     struct error *err) {
    const struct node *node = &walk->graph->nodes[walk->node];
    const struct op_row *row = op_row(node->op);
    struct operand in[op_max_inputs], out[op_max_outputs];
    struct reference_call call = {.attributes = &node->attributes};
    bool ok = true;
    for (int i = 0; i < node->inputs; i++) {
        in[i] = host_operand(&program->memory, binding, walk, node->input[i]);
        call.in[i].rank = in[i].rank;
        memcpy(call.in[i].dim, in[i].dim, sizeof in[i].dim);
        if (ok && in[i].data) ok = load(&call.in[i].data, &in[i], err);
    }
    for (int o = 0; o < node->outputs; o++) {
        out[o] = host_operand(&program->memory, binding, walk, node->output[o]);
        call.out[o].rank = out[o].rank;
        memcpy(call.out[o].dim, out[o].dim, sizeof out[o].dim);
        if (ok && out[o].data) {
            call.out[o].data = mem_calloc((size_t)operand_elements(&out[o]) + 1, sizeof(double));
            ok = call.out[o].data || error_no_memory(err, "ref", 0);
        }
    }
    if (ok) row->reference(&call);
    for (int o = 0; ok && o < node->outputs; o++)
        if (call.out[o].data) ok = save(call.out[o].data, &out[o], err);
    for (int i = 0; ok && i < node->inputs; i++)
        if (in[i].data && row->state_writes >> i & 1u) ok = save(call.in[i].data, &in[i], err);
    for (int i = 0; i < node->inputs; i++) mem_free(call.in[i].data);
    for (int o = 0; o < node->outputs; o++) mem_free(call.out[o].data);
    return ok;
}

static bool ref_compile(struct device *device, const struct plan *plan, struct store *store,
                        struct program **out, struct error *err) {
    (void)device;
    *out = NULL;
    struct program *program = mem_calloc(1, sizeof *program);
    if (!program) return error_no_memory(err, "ref", sizeof *program);
    if (host_memory_open(&program->memory, plan, store, err)) {
        *out = program;
        return true;
    }
    mem_free(program);
    return false;
}

static bool ref_run(struct program *program, const struct binding *binding, struct error *err) {
    const struct graph *graph = program->memory.plan->graph;
    if (!operands_check(graph, binding, err)) return false;
    for (struct walk walk = walk_begin(graph, binding, 0); walk.node < graph->node_count; walk_on(&walk, 1)) {
        if (!operands_go_on(binding, err)) return false;
        double begin = binding->timeline ? clock_seconds() : 0;
        if (!run_node(program, &walk, binding, err)) return false;
        const struct binding piece = walk_binding(&walk, binding);
        if (binding->timeline &&
            !timeline_add(binding->timeline, graph, &piece, walk.node, 1, begin, clock_seconds(), err))
            return false;
        if (!walk_look(&walk, binding, walk.node, err)) return false;
    }
    return true;
}

static bool ref_read(struct program *program, int value, void *data, size_t bytes, struct error *err) {
    return host_read(&program->memory, value, data, bytes, err);
}

static void ref_program_close(struct program **program) {
    if (!*program) return;
    mem_free(*program);
    *program = NULL;
}

const struct device_ops device_ref = {
    .abi = device_abi,
    .name = "ref",
    .offload = OFFLOAD_TO_FILE,
    .open = ref_open,
    .close = ref_close,
    .describe = ref_describe,
    .measure = ref_measure,
    .supports = ref_supports,
    .workspace = ref_workspace,
    .store_open = host_store_open,
    .store_close = host_store_close,
    .reserve = host_reserve,
    .shrink = host_shrink,
    .upload = host_upload,
    .download = host_download,
    .row = host_row,
    .compile = ref_compile,
    .run = ref_run,
    .read = ref_read,
    .program_close = ref_program_close,
};
