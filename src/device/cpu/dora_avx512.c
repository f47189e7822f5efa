/* DoRA's kernels for AVX-512. */
#if defined(__x86_64__)
#include "device/cpu/dora_kernels.h"

#include "device/cpu/dora_body.h"

void rescale_avx512(const struct cpu_call *call) { rescale_run(call); }
void rescale_grad_avx512(const struct cpu_call *call) { rescale_grad_run(call); }
void row_norms_avx512(const struct cpu_call *call) { row_norms_run(call); }
#endif
