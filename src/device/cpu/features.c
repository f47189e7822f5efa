/* What this processor can do. The compiler's run-time query also asks the operating system whether it
 * saves the wide registers. */
#include "device/cpu/kernel.h"

#if !defined(__x86_64__)
#elif defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux gives the tile registers, which make each thread's saved state larger, to a process that asks. */
static bool amx_granted(void) {
    enum { leaf = 7, bit_bf16 = 1 << 22, bit_tile = 1 << 24, request_permission = 0x1023, tile_data = 18 };
    unsigned a, b, c, d = 0;
    if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d) || !(d & bit_bf16) || !(d & bit_tile)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
static bool amx_granted(void) { return false; }
#endif

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
    if ((found & CPU_AVX512BF16) && amx_granted()) found |= CPU_AMX;
#elif defined(__aarch64__)
    found |= CPU_NEON;
#endif
    return found;
}

bool cpu_prefers_bf16(unsigned features) {
    bool fast = features & CPU_AMX;
#if defined(__x86_64__)
    __builtin_cpu_init();
    fast |= (features & CPU_AVX512BF16) && __builtin_cpu_is("amd");
#endif
    return fast;
}

const char *cpu_feature_name(enum cpu_feature feature) {
    switch (feature) {
    case CPU_AVX2: return "avx2";
    case CPU_AVX512: return "avx512";
    case CPU_AVX512BF16: return "avx512bf16";
    case CPU_NEON: return "neon";
    case CPU_AMX: return "amx";
    }
    return "unknown";
}
