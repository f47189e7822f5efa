/* The rows of logits of head.c, compiled for each instruction set. */
#ifndef HONE_DEVICE_CPU_HEAD_BODY_H
#define HONE_DEVICE_CPU_HEAD_BODY_H

#include "device/cpu/head_kernels.h"
#include "device/cpu/simd_vector.h"

/* log Σ exp l. With `gradient`, the row becomes dlogp (1[v = target] - p[v]); stored as `stored`, from the
 * row's beginning on. Sums go over v in order, one for each lane; logits may be any f32, and a NaN among
 * them makes the result NaN. */
static inline float head_row_run(const struct head_row *row) {
    float *l = row->logits;
    vf most = v_splat(-INFINITY), sum = {0};
    int64_t count = row->count, whole = count / lanes * lanes, rest = count - whole;
    for (int64_t v = 0; v < whole; v += lanes) most = v_max(v_load(l + v), most);
    float top = v_most(most);
    for (int64_t v = whole; v < count; v++) top = l[v] > top ? l[v] : top;
    vf shift = v_splat(top);
    for (int64_t v = 0; v < whole; v += lanes) {
        vf e = v_exp(v_load(l + v) - shift);
        if (row->gradient) v_store(l + v, e);
        sum += e;
    }
    if (rest) {
        vf e = v_exp(v_read(l, DTYPE_F32, whole, rest) - shift);
        for (int64_t i = rest; i < lanes; i++) e[i] = 0;
        if (row->gradient) v_write(l, DTYPE_F32, whole, rest, e);
        sum += e;
    }
    float total = v_sum(sum);
    if (row->gradient) {
        vf scale = v_splat(-row->dlogp / total);
        vf right = v_splat(l[row->target] * scale[0] + row->dlogp);
        for (int64_t v = 0; v < count; v += lanes)
            v_write(l, row->stored, v, count - v, v_read(l, DTYPE_F32, v, count - v) * scale);
        v_write(l, row->stored, row->target, 1, right);
    }
    return top + logf(total);
}

#endif
