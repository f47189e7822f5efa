/* The CPU device: a plan becomes a list of kernel calls over one pool of threads. */
#include "device/cpu/cpu.h"

#include <string.h>

#include "base/mem.h"
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"
#include "device/cpu/measure.h"
#include "device/timeline.h"

enum { most_tokens_ahead = 8 }; /* beyond them products are bound by computing */

static const struct cpu_kernel *const tables[] = {
    cpu_kernels_linear,      cpu_kernels_head,      cpu_kernels_attention,
    cpu_kernels_elementwise, cpu_kernels_optimizer, cpu_kernels_dora,
};

struct program {
    struct host_memory memory;
    struct device *device;
    const struct cpu_kernel **kernels; /* [nodes] */
    const struct cpu_gemm **gemms;     /* [nodes] by the node's compute type */
    int *together;                     /* [nodes] how many neighbours from here on are one round */
    int *following; /* [nodes] the first product behind this one, of the next run behind the last; -1: none */
};

const struct cpu_kernel *cpu_kernel_select(enum op_code op, unsigned features) {
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct cpu_kernel *row = tables[t]; row->run; row++)
            if (row->op == op && (row->needs & features) == row->needs) return row;
    return NULL;
}

const struct cpu_kernel *const *cpu_kernel_tables(size_t *count) {
    *count = sizeof tables / sizeof *tables;
    return tables;
}

static bool mask_features(const char *mask, unsigned *features, struct error *err) {
    static const enum cpu_feature all[] = {CPU_AVX2, CPU_AVX512, CPU_AVX512BF16, CPU_AMX, CPU_NEON};
    while (mask && *mask) {
        size_t length = strcspn(mask, ",");
        unsigned bit = 0;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            const char *name = cpu_feature_name(all[i]);
            if (strlen(name) == length && !strncmp(mask, name, length)) bit = all[i];
        }
        if (!bit) {
            error_set(err, ERROR_USAGE, "cpu", "there is no instruction set \"%.*s\" to mask", (int)length,
                      mask);
            return error_fix(err, "Known: avx2, avx512, avx512bf16, amx, neon.");
        }
        /* Each builds on the one before. */
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i] == bit || (bit != CPU_NEON && all[i] != CPU_NEON && all[i] > bit))
                *features &= ~(unsigned)all[i];
        mask += length + (mask[length] == ',');
    }
    return true;
}

static bool cpu_open(struct device **out, const struct device_options *options, struct error *err) {
    *out = NULL;
    struct device *device = mem_calloc(1, sizeof *device);
    if (!device) return error_no_memory(err, "cpu", sizeof *device);
    device->detected = device->features = cpu_features();
    int threads = options && options->threads > 0 ? options->threads : thread_cores();
    if (mask_features(options ? options->mask : NULL, &device->features, err) &&
        pool_open(&device->pool, threads, err)) {
        *out = device;
        return true;
    }
    mem_free(device);
    return false;
}

static void cpu_close(struct device **device) {
    if (!*device) return;
    pool_close(&(*device)->pool);
    mem_free(*device);
    *device = NULL;
}

static bool cpu_supports(const struct device *device, const struct graph *graph, const struct node *node,
                         struct error *err) {
    enum dtype compute = operand_compute(graph, node);
    if (!cpu_gemm_select(compute, device->features))
        return error_set(err, ERROR_USAGE, "cpu", "there is no product of %s for this processor",
                         dtype_row(compute)->name);
    if (cpu_kernel_select(node->op, device->features)) return true;
    return error_set(err, ERROR_USAGE, "cpu", "the operation %s has no kernel for this processor",
                     op_row(node->op)->name);
}

static size_t cpu_workspace(const struct device *device, const struct graph *graph, const struct node *node) {
    const struct cpu_kernel *kernel = cpu_kernel_select(node->op, device->features);
    return kernel && kernel->workspace ? kernel->workspace(graph, node, pool_threads(device->pool)) : 0;
}

static void cpu_program_close(struct program **handle) {
    struct program *program = *handle;
    if (!program) return;
    mem_free(program->kernels);
    mem_free(program->gemms);
    mem_free(program->together);
    mem_free(program->following);
    mem_free(program);
    *handle = NULL;
}

/* Whether node `m` can run beside those from `n` on, which it follows. */
static bool joins(const struct program *program, const struct graph *graph, int n, int m) {
    const struct node *first = &graph->nodes[n], *node = &graph->nodes[m];
    if (node->op != OP_LINEAR || program->gemms[m] != program->gemms[n] ||
        node->input[0] != first->input[0] || node->loop != first->loop)
        return false;
    for (int i = 0; i < node->inputs; i++)
        if (node->input[i] >= 0 && graph->values[node->input[i]].producer >= n) return false;
    return true;
}

static void find_neighbours(struct program *program, const struct graph *graph) {
    for (int n = 0; n < graph->node_count; n++) {
        int count = 1;
        while (graph->nodes[n].op == OP_LINEAR && count < gemm_most_together &&
               n + count < graph->node_count && joins(program, graph, n, n + count))
            count++;
        program->together[n] = count;
    }
}

static void find_following(struct program *program, const struct graph *graph) {
    int product = -1;
    for (int n = graph->node_count - 1; n >= 0; n--)
        if (graph->nodes[n].op == OP_LINEAR) product = n;
    for (int n = graph->node_count - 1; n >= 0; n--) {
        program->following[n] = product;
        if (graph->nodes[n].op == OP_LINEAR) product = n;
    }
}

static bool cpu_compile(struct device *device, const struct plan *plan, struct store *store,
                        struct program **out, struct error *err) {
    *out = NULL;
    struct program *program = mem_calloc(1, sizeof *program);
    if (!program) return error_no_memory(err, "cpu", sizeof *program);
    size_t nodes = (size_t)plan->graph->node_count;
    program->device = device;
    program->kernels = mem_calloc(nodes + 1, sizeof *program->kernels);
    program->gemms = mem_calloc(nodes + 1, sizeof *program->gemms);
    program->together = mem_calloc(nodes + 1, sizeof *program->together);
    program->following = mem_calloc(nodes + 1, sizeof *program->following);
    bool ok = program->kernels && program->gemms && program->together && program->following;
    if (!ok) error_no_memory(err, "cpu", nodes * sizeof *program->kernels);
    for (size_t n = 0; ok && n < nodes; n++) {
        const struct node *node = &plan->graph->nodes[n];
        program->kernels[n] = cpu_kernel_select(node->op, device->features);
        program->gemms[n] = cpu_gemm_select(operand_compute(plan->graph, node), device->features);
        if (!program->kernels[n]) ok = cpu_supports(device, plan->graph, node, err);
    }
    if (ok) {
        find_neighbours(program, plan->graph);
        find_following(program, plan->graph);
    }
    ok = ok && host_memory_open(&program->memory, plan, store, err);
    if (!ok) cpu_program_close(&program);
    *out = program;
    return ok;
}

static void clear_rest(struct operand *operands, int count, int most) {
    for (int i = count; i < most; i++)
        if (operands[i].rank || operands[i].data) operands[i] = (struct operand){0};
}

/* Rounding x is for decoding, whose next tokens it does not move. What is measured or trained, and the first
 * tokens of a prompt, some of whose numbers are thousands of times their neighbours, are multiplied as they
 * are. */
static bool is_exact(const struct binding *binding) {
    const int32_t *past = binding->inputs[INPUT_PAST];
    for (int64_t s = 0; past && s < binding->segments; s++)
        if (past[s] == 0) return true;
    return !past;
}

/* `call` is all zeros, or was another node's: writing every operand anew takes as long as a small operation.
 */
static void make_call(struct program *program, const struct binding *binding, const struct walk *walk, int n,
                      struct cpu_call *call) {
    const struct node *node = &program->memory.plan->graph->nodes[n];
    call->attributes = &node->attributes;
    call->pool = program->device->pool;
    call->gemm = program->gemms[n];
    call->features = program->device->features;
    call->workspace = host_workspace(&program->memory);
    call->longest_segment = binding->longest_segment;
    for (int i = 0; i < node->inputs; i++)
        call->in[i] = host_operand(&program->memory, binding, walk, node->input[i]);
    for (int o = 0; o < node->outputs; o++)
        call->out[o] = host_operand(&program->memory, binding, walk, node->output[o]);
    clear_rest(call->in, node->inputs, op_max_inputs);
    clear_rest(call->out, node->outputs, op_max_outputs);
}

/* Decoding is bound by the reading of weights, which rests while one thread waits for another: those of the
 * next product are brought near then. */
static void read_ahead(struct program *program, const struct binding *binding, const struct walk *walk,
                       int n) {
    const struct node *nodes = program->memory.plan->graph->nodes;
    int next = program->following[n];
    uint64_t bytes;
    if (nodes[n].op != OP_LINEAR || binding->tokens > most_tokens_ahead) return; /* or it stands already */
    const struct operand w = host_operand(&program->memory, binding, walk, nodes[next].input[1]);
    if (dtype_bytes(w.dtype, (uint64_t)w.dim[0] * (uint64_t)w.dim[1], &bytes))
        pool_ahead(program->device->pool, w.data, (size_t)bytes);
}

static bool cpu_run(struct program *program, const struct binding *binding, struct error *err) {
    const struct graph *graph = program->memory.plan->graph;
    struct cpu_call calls[gemm_most_together] = {0};
    if (!operands_check(graph, binding, err)) return false;
    const bool exact = is_exact(binding);
    for (int i = 0; i < gemm_most_together; i++) calls[i].exact = exact;
    struct walk walk = walk_begin(graph, binding, 0);
    for (int n = 0; n < graph->node_count; n = walk.node) {
        if (!operands_go_on(binding, err)) return false;
        int count = program->together[n];
        read_ahead(program, binding, &walk, n + count - 1);
        double begin = binding->timeline ? clock_seconds() : 0;
        for (int i = 0; i < count; i++) make_call(program, binding, &walk, n + i, &calls[i]);
        if (count == 1)
            program->kernels[n]->run(calls);
        else
            cpu_linear_together(calls, count);
        const struct binding piece = walk_binding(&walk, binding);
        if (binding->timeline &&
            !timeline_add(binding->timeline, graph, &piece, n, count, begin, clock_seconds(), err))
            return false;
        for (int i = 0; i < count; i++)
            if (!walk_look(&walk, binding, n + i, err)) return false;
        walk_on(&walk, count);
    }
    return true;
}

static bool cpu_read(struct program *program, int value, void *data, size_t bytes, struct error *err) {
    return host_read(&program->memory, value, data, bytes, err);
}

const struct device_ops device_cpu = {
    .abi = device_abi,
    .name = "cpu",
    .offload = OFFLOAD_TO_FILE,
    .attention_rate = 0.7, /* 0.65 to 0.75, AVX-512 */
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .measure = cpu_measure,
    .fixed_flops = cpu_fixed_flops,
    .supports = cpu_supports,
    .workspace = cpu_workspace,
    .store_open = host_store_open,
    .store_close = host_store_close,
    .reserve = host_reserve,
    .shrink = host_shrink,
    .upload = host_upload,
    .download = host_download,
    .row = host_row,
    .compile = cpu_compile,
    .run = cpu_run,
    .read = cpu_read,
    .program_close = cpu_program_close,
};
