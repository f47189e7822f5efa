/* The optimizer's kernels for AVX2. */
#if defined(__x86_64__)
#include "device/cpu/optimizer_8bit_body.h"
#include "device/cpu/optimizer_body.h"
#include "device/cpu/optimizer_muon_body.h"

void gradient_norm_avx2(const struct cpu_call *call) { gradient_norm_run(call); }
void adamw_avx2(const struct cpu_call *call) { adamw_run(call); }
void sgd_avx2(const struct cpu_call *call) { sgd_run(call); }
void lion_avx2(const struct cpu_call *call) { lion_run(call); }
void adafactor_avx2(const struct cpu_call *call) { adafactor_run(call); }
void adamw8bit_avx2(const struct cpu_call *call) { adamw8bit_run(call); }
void muon_avx2(const struct cpu_call *call) { muon_run(call); }
void average_avx2(const struct cpu_call *call) { average_run(call); }
#endif
