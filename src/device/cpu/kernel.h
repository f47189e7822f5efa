/* What a CPU kernel is given. A kernel row says which operation it serves and what it needs of the CPU;
 * the first row whose needs are met is taken (kernel tables are ordered best first, plain C last).
 *
 * Operand types: activations are f32, bf16 or f16, sums f32; weights any stored type. A kernel converts row
 * by row in registers or a small buffer; `cpu_row_*` below serve all types. Work is split into tasks by shape
 * alone, and each sum is made by one task in a fixed order: the same bits on any thread count. */
#ifndef HONE_DEVICE_CPU_KERNEL_H
#define HONE_DEVICE_CPU_KERNEL_H

#include <stddef.h>

#include "base/thread.h"
#include "device/host.h"
#include "tensor/stored.h"

/* CPU features that kernels ask for; a bit each. */
enum cpu_feature {
    CPU_AVX2 = 1,       /* AVX2, FMA and F16C */
    CPU_AVX512 = 2,     /* AVX-512 F, BW, DQ, VL */
    CPU_AVX512BF16 = 4, /* AVX512_BF16 */
    CPU_NEON = 8,
    CPU_AMX = 16, /* tiles, and their products of bf16; Linux has granted them to this process */
};
unsigned cpu_features(void); /* of this machine */
/* Whether products of bf16 are faster than those of f32: with AMX (three times), and with AVX512_BF16 on AMD
 * (1.8 times); Intel's cores take twice as long for that instruction as for f32's. */
bool cpu_prefers_bf16(unsigned features);
const char *cpu_feature_name(enum cpu_feature feature); /* "avx2" … */

struct cpu_call {
    const struct attributes *attributes;
    struct operand in[op_max_inputs];
    struct operand out[op_max_outputs];
    struct pool *pool;
    const struct cpu_gemm *gemm; /* the selected product implementation (gemm.h) */
    unsigned features;           /* that may be used, after masking */
    void *workspace;             /* 64-byte aligned, as many bytes as the row asked for */
    int64_t longest_segment;
    bool exact; /* products of few rows do not round x to integers (gemm.h) */
};

struct cpu_kernel {
    enum op_code op;
    const char *name; /* "attention_avx512" */
    unsigned needs;   /* features, all of them */
    void (*run)(const struct cpu_call *call);
    /* Scratch bytes at the planned size; NULL: none. `threads`: of the pool. */
    size_t (*workspace)(const struct graph *graph, const struct node *node, int threads);
};

/* The tables, best first, ended by a row with run == NULL. One per file of kernels; listed in cpu.c. */
extern const struct cpu_kernel
    cpu_kernels_elementwise[]; /* embedding, norm, rope, glu, add, copy, dropout, gather, scatter */
extern const struct cpu_kernel cpu_kernels_attention[]; /* attention, its gradient, cache attention */
extern const struct cpu_kernel cpu_kernels_linear[];    /* linear and its gradients */
extern const struct cpu_kernel cpu_kernels_head[];      /* head, head gradient, loss */
extern const struct cpu_kernel cpu_kernels_dora[];      /* rescale, its gradient, row norms */
extern const struct cpu_kernel cpu_kernels_optimizer[]; /* gradient norm, AdamW, zero */

/* Up to gemm_most_together (gemm.h) linear calls that read the same x and nothing of each other's, in the
 * workspace of one of them. */
void cpu_linear_together(const struct cpu_call *calls, int count);

/* The part that a task belongs to: the last of `count` with starts[part] <= task. */
static inline int64_t cpu_task_owner(const int32_t *starts, int64_t count, int task) {
    int64_t low = 0, high = count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (starts[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Rows to and from f32, for the stored types (vectorised where the CPU can; bit-equal to
 * tensor/rowcodec.h). */
void cpu_row_load(float *out, const void *source, enum dtype dtype, int64_t elements, unsigned features);
/* Of a weight of any type (tensor/stored.h: stored_decode). */
void cpu_stored_load(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count,
                     unsigned features);
/* The same to bf16, for products of it: what cpu_stored_load gives, stored, but that subnormals may be zeros
 * where the products take them for such. And of a row of f32. */
void cpu_stored_halves(uint16_t *out, const struct stored *stored, int64_t row, int64_t column, int64_t count,
                       unsigned features);
void cpu_row_halves(uint16_t *out, const float *source, int64_t elements, unsigned features);
void cpu_row_store(void *out, const float *source, enum dtype dtype, int64_t elements,
                   unsigned features); /* f32, bf16, f16 */

#endif
