/* The optimizer's kernels for AVX-512. */
#if defined(__x86_64__)
#include "device/cpu/optimizer_8bit_body.h"
#include "device/cpu/optimizer_body.h"
#include "device/cpu/optimizer_muon_body.h"

void gradient_norm_avx512(const struct cpu_call *call) { gradient_norm_run(call); }
void adamw_avx512(const struct cpu_call *call) { adamw_run(call); }
void sgd_avx512(const struct cpu_call *call) { sgd_run(call); }
void lion_avx512(const struct cpu_call *call) { lion_run(call); }
void adafactor_avx512(const struct cpu_call *call) { adafactor_run(call); }
void adamw8bit_avx512(const struct cpu_call *call) { adamw8bit_run(call); }
void muon_avx512(const struct cpu_call *call) { muon_run(call); }
void average_avx512(const struct cpu_call *call) { average_run(call); }
#endif
