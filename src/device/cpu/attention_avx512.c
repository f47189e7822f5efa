/* The attention kernels for AVX-512. */
#if defined(__x86_64__)
#include "device/cpu/attention_body.h"

#include "device/cpu/attention_kernels.h"

void attention_avx512(const struct cpu_call *call) { attention_run(call, &attention_floats); }
void attention_grad_avx512(const struct cpu_call *call) { attention_grad_run(call, &attention_floats); }
void cache_attention_avx512(const struct cpu_call *call) { cache_attention_run(call, &attention_floats); }
#endif
