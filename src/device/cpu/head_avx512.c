#if defined(__x86_64__)
#include "device/cpu/head_kernels.h"

#include "device/cpu/head_body.h"

float head_row_avx512(float *logits, int64_t count, bool gradient, float factor) {
    return head_row_run(logits, count, gradient, factor);
}
#endif
