/* The table of product implementations; each is the driver (gemm_drive.c) with an instruction set's inner
 * loops. */
#include "device/cpu/gemm_kernel.h"

#define DRIVEN(name, kernel, round)                                                                         \
    static void run_##name(const struct gemm *gemms, int count, struct pool *pool, void *workspace,         \
                           unsigned features) {                                                             \
        gemm_drive(&kernel, round, gemms, count, pool, workspace, features);                                \
    }                                                                                                       \
    static size_t workspace_##name(enum gemm_form form, int64_t m, int64_t n, int64_t k, enum dtype w_type, \
                                   int threads) {                                                           \
        (void)form;                                                                                         \
        (void)w_type;                                                                                       \
        return gemm_drive_workspace(&kernel, m, n, k, threads);                                             \
    }
DRIVEN(c, gemm_kernel_c, DTYPE_F32)
DRIVEN(c_bf16, gemm_kernel_c, DTYPE_BF16)
DRIVEN(c_f16, gemm_kernel_c, DTYPE_F16)
#if defined(__x86_64__)
DRIVEN(avx2, gemm_kernel_avx2, DTYPE_F32)
DRIVEN(avx2_bf16, gemm_kernel_avx2, DTYPE_BF16)
DRIVEN(avx2_f16, gemm_kernel_avx2, DTYPE_F16)
DRIVEN(avx512, gemm_kernel_avx512, DTYPE_F32)
DRIVEN(avx512_bf16, gemm_kernel_avx512, DTYPE_BF16)
DRIVEN(avx512_f16, gemm_kernel_avx512, DTYPE_F16)
DRIVEN(avx512bf16, gemm_kernel_avx512bf16, DTYPE_F32)
DRIVEN(amx, gemm_kernel_amx, DTYPE_F32)
#endif

const struct cpu_gemm cpu_gemms[] = {
#if defined(__x86_64__)
    {"amx", DTYPE_BF16, CPU_AVX512 | CPU_AVX512BF16 | CPU_AMX, run_amx, workspace_amx, &gemm_kernel_amx, 150,
     8e6},
    {"avx512bf16", DTYPE_BF16, CPU_AVX512 | CPU_AVX512BF16, run_avx512bf16, workspace_avx512bf16,
     &gemm_kernel_avx512bf16, 50, 3e6},
    {"avx512", DTYPE_F32, CPU_AVX512, run_avx512, workspace_avx512, &gemm_kernel_avx512, 50, 2e6},
    {"avx512", DTYPE_BF16, CPU_AVX512, run_avx512_bf16, workspace_avx512_bf16, &gemm_kernel_avx512, 50, 2e6},
    {"avx512", DTYPE_F16, CPU_AVX512, run_avx512_f16, workspace_avx512_f16, &gemm_kernel_avx512, 50, 2e6},
    {"avx2", DTYPE_F32, CPU_AVX2, run_avx2, workspace_avx2, &gemm_kernel_avx2, 25, 6e5},
    {"avx2", DTYPE_BF16, CPU_AVX2, run_avx2_bf16, workspace_avx2_bf16, &gemm_kernel_avx2, 25, 6e5},
    {"avx2", DTYPE_F16, CPU_AVX2, run_avx2_f16, workspace_avx2_f16, &gemm_kernel_avx2, 25, 6e5},
#endif
    {"c", DTYPE_F32, 0, run_c, workspace_c, &gemm_kernel_c, 4, 3e4},
    {"c", DTYPE_BF16, 0, run_c_bf16, workspace_c_bf16, &gemm_kernel_c, 4, 3e4},
    {"c", DTYPE_F16, 0, run_c_f16, workspace_c_f16, &gemm_kernel_c, 4, 3e4},
};
const int cpu_gemm_count = sizeof cpu_gemms / sizeof *cpu_gemms;

const struct cpu_gemm *cpu_gemm_select(enum dtype compute, unsigned features) {
    for (int i = 0; i < cpu_gemm_count; i++)
        if (cpu_gemms[i].compute == compute && (cpu_gemms[i].needs & features) == cpu_gemms[i].needs)
            return &cpu_gemms[i];
    return NULL;
}
