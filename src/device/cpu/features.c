/* What this processor can do. The compiler's run-time query also asks the operating system whether it
 * saves the wide registers. */
#include "device/cpu/kernel.h"

unsigned cpu_features(void) {
    unsigned found = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found |= CPU_AVX2; /* F16C is older than AVX2 */
    if ((found & CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found |= CPU_AVX512;
    if ((found & CPU_AVX512) && __builtin_cpu_supports("avx512bf16")) found |= CPU_AVX512BF16;
#elif defined(__aarch64__)
    found |= CPU_NEON;
#endif
    return found;
}

const char *cpu_feature_name(enum cpu_feature feature) {
    switch (feature) {
    case CPU_AVX2: return "avx2";
    case CPU_AVX512: return "avx512";
    case CPU_AVX512BF16: return "avx512bf16";
    case CPU_NEON: return "neon";
    }
    return "unknown";
}
