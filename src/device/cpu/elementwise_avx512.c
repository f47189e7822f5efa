/* The elementwise kernels for AVX-512. */
#if defined(__x86_64__)
#include "device/cpu/elementwise_kernels.h"

#include "device/cpu/elementwise_body.h"

void norm_avx512(const struct cpu_call *call) { norm_run(call); }
void norm_grad_avx512(const struct cpu_call *call) { norm_grad_run(call); }
void norm_grad_w_avx512(const struct cpu_call *call) { norm_grad_w_run(call); }
void bias_grad_avx512(const struct cpu_call *call) { bias_grad_run(call); }
void embedding_grad_avx512(const struct cpu_call *call) { embedding_grad_run(call); }
void rope_avx512(const struct cpu_call *call) { rope_run(call); }
void glu_avx512(const struct cpu_call *call) { glu_run(call); }
void glu_grad_avx512(const struct cpu_call *call) { glu_grad_run(call); }
void add_avx512(const struct cpu_call *call) { add_run(call); }
void dropout_avx512(const struct cpu_call *call) { dropout_run(call); }
void noise_avx512(const struct cpu_call *call) { noise_run(call); }
#endif
