/* The attention kernels for AVX-512 with products of bf16, by AMX where the product has it. */
#if defined(__x86_64__)
#include "device/cpu/attention_body.h"
#include "device/cpu/attention_pair_body.h"

#include "device/cpu/attention_kernels.h"

static const struct attention_form *form_of(const struct cpu_call *call, const int *operands, int count) {
    return pairs_serve(call, operands, count) ? &attention_pairs : &attention_floats;
}

void attention_avx512bf16(const struct cpu_call *call) {
    attention_run(call, form_of(call, (const int[]){0, 1, 2}, 3));
}

void attention_grad_avx512bf16(const struct cpu_call *call) {
    bool serve = call->in[5].dtype == DTYPE_BF16 || call->in[5].dtype == DTYPE_F32;
    attention_grad_run(call, serve ? form_of(call, (const int[]){0, 1, 2}, 3) : &attention_floats);
}

void cache_attention_avx512bf16(const struct cpu_call *call) {
    cache_attention_run(call, form_of(call, (const int[]){0, 6, 7}, 3));
}
#endif
