/* The rows of logits of head.c, compiled for each instruction set. */
#ifndef HONE_DEVICE_CPU_HEAD_BODY_H
#define HONE_DEVICE_CPU_HEAD_BODY_H

#include "device/cpu/simd_vector.h"

/* log Σ exp l; with `gradient`, l[v] becomes factor · p[v]. Sums go over v in order, one for each lane;
 * logits may be any f32, and a NaN among them makes the result NaN. */
static inline float head_row_run(float *l, int64_t count, bool gradient, float factor) {
    vf most = v_splat(-INFINITY), sum = {0};
    int64_t whole = count / lanes * lanes, rest = count - whole;
    for (int64_t v = 0; v < whole; v += lanes) most = v_max(v_load(l + v), most);
    float top = v_most(most);
    for (int64_t v = whole; v < count; v++) top = l[v] > top ? l[v] : top;
    vf shift = v_splat(top);
    for (int64_t v = 0; v < whole; v += lanes) {
        vf e = v_exp(v_load(l + v) - shift);
        if (gradient) v_store(l + v, e);
        sum += e;
    }
    if (rest) {
        vf e = v_exp(v_read(l, false, whole, rest) - shift);
        for (int64_t i = rest; i < lanes; i++) e[i] = 0;
        if (gradient) v_write(l, false, whole, rest, e);
        sum += e;
    }
    float total = v_sum(sum);
    if (gradient) {
        vf scale = v_splat(factor / total);
        for (int64_t v = 0; v < whole; v += lanes) v_store(l + v, v_load(l + v) * scale);
        for (int64_t v = whole; v < count; v++) l[v] *= factor / total;
    }
    return top + logf(total);
}

#endif
