/* Runs kernel rows of the CPU device that this machine can run against the f64 reference of their operation:
 * random and edge shapes, f32 and bf16 operands, guard bytes around everything that is written, outputs
 * on top of the inputs that they may overwrite, and the same bits on one to four threads. With HONE_TIME=1
 * the rows are timed at the shapes of a small model. */
#ifndef TESTS_OP_DEVICE_KERNEL_HARNESS_H
#define TESTS_OP_DEVICE_KERNEL_HARNESS_H

#include <stdio.h>

#include "device/cpu/cpu.h"
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"
#include "op/device_kernel_cases.h"

enum { most_threads = 4 };

static struct pool *pools[most_threads];

/* The operands of one run: copies, so that runs do not see each other's writes. */
struct attempt {
    struct block in[op_max_inputs], out[op_max_outputs], workspace;
    struct cpu_call call;
};

static void block_check(const struct block *block, const char *name, const char *what) {
    size_t end = (block->bytes + 63) / 64 * 64 + guard_bytes;
    for (size_t i = 0; i < guard_bytes; i++)
        if (block->memory[i] != guard_value)
            fail_msg("%s wrote %zu bytes before %s", name, guard_bytes - i, what);
    for (size_t i = block->bytes + guard_bytes; i < end + guard_bytes; i++)
        if (block->memory[i] != guard_value) fail_msg("%s wrote past the end of %s", name, what);
}

static struct block block_copy(const struct block *block) {
    struct block copy = block_open(block->bytes);
    memcpy(copy.data, block->data, block->bytes);
    return copy;
}

static struct operand operand_of(const struct trial *trial, int id, const struct block *block) {
    struct operand operand = {0};
    if (id < 0) return operand;
    const struct value *value = &trial->graph.values[id];
    operand.data = block->data;
    operand.dtype = value->dtype;
    operand.rank = value->rank;
    memcpy(operand.dim, value->dim, sizeof operand.dim);
    return operand;
}

/* With `overlay`, an output lies on the input that its row lets it overwrite, when their sizes are equal. */
static void attempt_run(struct attempt *attempt, const struct trial *trial, const struct cpu_kernel *kernel,
                        int threads, bool overlay) {
    const struct node *node = node_of(trial);
    const struct op_row *row = op_row(node->op);
    memset(attempt, 0, sizeof *attempt);
    struct cpu_call *call = &attempt->call;
    *call = (struct cpu_call){.attributes = &node->attributes,
                              .pool = pools[threads - 1],
                              .features = kernel->needs,
                              .longest_segment = trial->longest_segment};
    call->gemm = cpu_gemm_select(trial->compute, cpu_features());
    for (int i = 0; i < trial->inputs; i++) {
        if (trial->ids[i] < 0) continue;
        attempt->in[i] = block_copy(&trial->in[i]);
        call->in[i] = operand_of(trial, trial->ids[i], &attempt->in[i]);
    }
    for (int o = 0; o < node->outputs; o++) {
        size_t bytes = value_bytes(&trial->graph.values[node->output[o]]);
        int under = overlay ? row->overwrite[o] : -1;
        attempt->out[o] = block_open(bytes);
        call->out[o] = operand_of(trial, node->output[o], &attempt->out[o]);
        if (under >= 0 && trial->ids[under] >= 0 && trial->in[under].bytes == bytes)
            call->out[o].data = attempt->in[under].data;
    }
    attempt->workspace = block_open(kernel->workspace ? kernel->workspace(&trial->graph, node, threads) : 0);
    call->workspace = attempt->workspace.data;
    kernel->run(call);
}

static void attempt_check(const struct attempt *attempt, const struct trial *trial, const char *name) {
    unsigned writes = op_row(node_of(trial)->op)->state_writes;
    block_check(&attempt->workspace, name, "the workspace");
    for (int i = 0; i < trial->inputs; i++) {
        if (trial->ids[i] < 0) continue;
        block_check(&attempt->in[i], name, "an input");
        bool written = (writes >> i & 1u) != 0;
        for (int o = 0; o < node_of(trial)->outputs; o++)
            written |= attempt->call.out[o].data == attempt->in[i].data;
        if (!written && memcmp(attempt->in[i].data, trial->in[i].data, trial->in[i].bytes))
            fail_msg("%s changed input %d", name, i);
    }
    for (int o = 0; o < node_of(trial)->outputs; o++) block_check(&attempt->out[o], name, "an output");
}

static void attempt_release(struct attempt *attempt) {
    for (int i = 0; i < op_max_inputs; i++) free(attempt->in[i].memory);
    for (int o = 0; o < op_max_outputs; o++) free(attempt->out[o].memory);
    free(attempt->workspace.memory);
}

static void same_bits(const struct attempt *a, const struct attempt *b, const struct trial *trial,
                      const char *name, const char *how) {
    for (int o = 0; o < node_of(trial)->outputs; o++)
        if (memcmp(a->call.out[o].data, b->call.out[o].data, a->out[o].bytes))
            fail_msg("%s: other bits %s", name, how);
    for (int i = 0; i < trial->inputs; i++)
        if (trial->ids[i] >= 0 && (op_row(node_of(trial)->op)->state_writes >> i & 1u) &&
            memcmp(a->in[i].data, b->in[i].data, a->in[i].bytes))
            fail_msg("%s: other bits in state %d %s", name, i, how);
}

static void check_reference(const struct trial *trial, const struct attempt *attempt, const char *name) {
    struct reference_call call;
    reference_open(trial, &call);
    for (int o = 0; o < node_of(trial)->outputs; o++)
        compare(trial, call.out[o].data, &attempt->call.out[o], name, "output");
    for (int i = 0; i < trial->inputs; i++)
        if (trial->ids[i] >= 0 && op_row(node_of(trial)->op)->state_writes >> i & 1u)
            compare(trial, call.in[i].data, &attempt->call.in[i], name, "state");
    reference_close(&call);
}

static void check_kernel(const struct cpu_kernel *kernel, const struct sizes *z, enum dtype a, enum dtype b) {
    struct trial trial;
    struct attempt first, other;
    char name[128];
    snprintf(name, sizeof name, "%s (%lld tokens, %s to %s)", kernel->name, (long long)z->tokens,
             dtype_row(a)->name, dtype_row(b)->name);
    trial_open(&trial, kernel->op, z, a, b);
    attempt_run(&first, &trial, kernel, 1, false);
    attempt_check(&first, &trial, name);
    check_reference(&trial, &first, name);
    for (int threads = 2; threads <= most_threads; threads++) {
        attempt_run(&other, &trial, kernel, threads, false);
        attempt_check(&other, &trial, name);
        same_bits(&first, &other, &trial, name, "on more threads");
        attempt_release(&other);
    }
    attempt_run(&other, &trial, kernel, 2, true);
    attempt_check(&other, &trial, name);
    same_bits(&first, &other, &trial, name, "when the output lies on an input");
    attempt_release(&other);
    attempt_release(&first);
    trial_release(&trial);
}

static void check_kernels(const struct cpu_kernel *row) {
    static const enum dtype types[][2] = {
        {DTYPE_F32, DTYPE_F32}, {DTYPE_BF16, DTYPE_F32}, {DTYPE_F32, DTYPE_BF16}, {DTYPE_BF16, DTYPE_BF16},
        {DTYPE_F16, DTYPE_F32}, {DTYPE_F32, DTYPE_F16},  {DTYPE_F16, DTYPE_F16}};
    unsigned features = cpu_features();
    int run = 0, skipped = 0;
    for (; row->run; row++) {
        if ((row->needs & features) != row->needs) {
            print_message("skipped, this CPU cannot run it: %s\n", row->name);
            skipped++;
            continue;
        }
        for (size_t s = 0; s < sizeof edge_sizes / sizeof *edge_sizes; s++)
            for (size_t t = 0; t < sizeof types / sizeof *types; t++)
                check_kernel(row, &edge_sizes[s], types[t][0], types[t][1]);
        run++;
    }
    print_message("%d rows checked, %d skipped\n", run, skipped);
    assert_true(run > 0);
}

/* SmolLM2-135M at 1,024 tokens in segments of 100, and one segment of 2,048. */
static void time_kernels(const struct cpu_kernel *row) {
    static const struct sizes shapes[] = {
        {1024, 100, 800, 576, 1536, 49152, 9, 3, 64},
        {2048, 2048, 800, 576, 1536, 49152, 9, 3, 64},
    };
    for (; row->run; row++)
        for (int k = 0; k < 4 && (row->needs & cpu_features()) == row->needs; k++) {
            enum dtype dtype = k & 1 ? DTYPE_BF16 : DTYPE_F32;
            struct sizes z = shapes[k / 2];
            if (row->op == OP_GLU || row->op == OP_GLU_GRAD) z.width = z.hidden;
            struct trial trial;
            /* The gradient that attention is given comes from a product, as f32. */
            trial_open(&trial, row->op, &z, dtype, row->op == OP_ATTENTION_GRAD ? DTYPE_F32 : dtype);
            double best[2] = {INFINITY, INFINITY};
            for (int repeat = 0; repeat < 10; repeat++) {
                struct attempt attempt;
                int threads = 1 + repeat % 2;
                attempt_run(&attempt, &trial, row, threads, false);
                double start = clock_seconds();
                row->run(&attempt.call);
                double seconds = clock_seconds() - start;
                if (seconds < best[threads - 1]) best[threads - 1] = seconds;
                attempt_release(&attempt);
            }
            print_message("%-24s %4lld x %-4lld %-4s %8.3f ms  %8.3f ms on 2 threads\n", row->name,
                          (long long)z.tokens, (long long)z.segment, dtype_row(dtype)->name, best[0] * 1e3,
                          best[1] * 1e3);
            trial_release(&trial);
        }
}

static int pools_open(void **state) {
    (void)state;
    struct error err;
    for (int i = 0; i < most_threads; i++) assert_ok(pool_open(&pools[i], i + 1, &err), &err);
    return 0;
}

static int pools_close(void **state) {
    (void)state;
    for (int i = 0; i < most_threads; i++) pool_close(&pools[i]);
    return 0;
}

#endif
