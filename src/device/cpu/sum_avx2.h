/* The sum of a vector's eight lanes. */
#ifndef HONE_DEVICE_CPU_SUM_AVX2_H
#define HONE_DEVICE_CPU_SUM_AVX2_H

#include <immintrin.h>

static inline float sum_256(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#endif
