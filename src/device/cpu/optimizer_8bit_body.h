/* AdamW with moments in 8 bits (op/optimizer_8bit.c). A block of 256 is decoded into a buffer, moved as any
 * AdamW, and encoded again; what is added up or compared stays inside it. */
#ifndef HONE_DEVICE_CPU_OPTIMIZER_8BIT_BODY_H
#define HONE_DEVICE_CPU_OPTIMIZER_8BIT_BODY_H

#include "device/cpu/optimizer_body.h"

/* The nearest level without a search. A number's exponent and first 7 bits of fraction name an interval so
 * narrow that at most one bound between two levels lies in it (the levels' least distance is 0.0070, of 0.5
 * to 1, where intervals are 0.0039 wide; below 0.1 there are half as many levels a decade, and again and
 * again), so one comparison is left. Intervals go from 2^-23, below the least bound, to 1. */
enum { eight_first = (127 - 23) << 7, eight_intervals = (23 << 7) + 1 };

struct eight_bits {
    float level[2][optimizer_codes];   /* of a code; with signs, without */
    float bound[2][optimizer_codes];   /* between magnitude k and k + 1; the last is infinite */
    uint8_t below[2][eight_intervals]; /* how many bounds lie below the interval */
};

static void eight_make(struct eight_bits *tables) {
    for (int s = 0; s < 2; s++) {
        int zero = s ? 0 : 127, count = optimizer_codes - zero, k = 0;
        optimizer_map(!s, tables->level[s]);
        const float *level = tables->level[s] + zero;
        for (int i = 0; i < count; i++)
            tables->bound[s][i] = i + 1 < count ? (level[i] + level[i + 1]) / 2 : INFINITY;
        for (uint32_t i = 0; i < eight_intervals; i++) {
            uint32_t bits = (i + eight_first) << 16;
            float low;
            memcpy(&low, &bits, sizeof low);
            while (i && tables->bound[s][k] < low) k++;
            tables->below[s][i] = (uint8_t)k;
        }
    }
}

static inline int eight_nearest(const struct eight_bits *tables, int s, float magnitude) {
    uint32_t bits;
    memcpy(&bits, &magnitude, sizeof bits);
    bits >>= 16;
    bits = bits < eight_first ? eight_first : bits;
    bits = bits < eight_first + eight_intervals ? bits : eight_first + eight_intervals - 1; /* NaN too */
    int k = tables->below[s][bits - eight_first];
    return k + (magnitude > tables->bound[s][k]);
}

static void eight_decode(const float *level, const uint8_t *codes, float largest, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = level[codes[i]] * largest;
}

static float eight_encode(const struct eight_bits *tables, int s, const float *x, uint8_t *codes, int64_t n) {
    vf most = {0};
    for (int64_t i = 0; i < n; i += lanes) {
        vf at = v_read(x, DTYPE_F32, i, n - i);
        most = v_max(most, v_max(at, -at));
    }
    float largest = v_most(most), inverse = 1 / (largest > 1e-38f ? largest : 1e-38f);
    if (s) {
        for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)eight_nearest(tables, 1, x[i] * inverse);
        return largest;
    }
    for (int64_t i = 0; i < n; i++) { /* there are 127 levels below 0, and 128 above it */
        int k = eight_nearest(tables, 0, fabsf(x[i]) * inverse), below = k < 127 ? k : 127;
        codes[i] = (uint8_t)(x[i] < 0 ? 127 - below : 127 + k);
    }
    return largest;
}

/* Pieces are whole blocks, but for a part's last. */
static void adamw8bit_piece(const struct update *u, const struct op_part *part, const float *hyper,
                            int64_t at, int64_t n) {
    const struct eight_bits *tables = u->own;
    struct adamw a = adamw_numbers(u, hyper);
    int64_t from = at - part->offset;
    float *scales[2] = {u->v + part->slot[1], u->v + part->slot[1] + optimizer_scale_stride(part)};
    if (!optimizer_is_quantised(part)) {
        adamw_span(&a, u->parameters + at, u->gradients + at, scales[0] + from, scales[1] + from, n);
        return;
    }
    uint8_t *codes = (uint8_t *)u->m + part->slot[0] + from;
    for (int64_t i = 0; i < n; i += optimizer_block) {
        int64_t block = (from + i) / optimizer_block,
                left = n - i < optimizer_block ? n - i : optimizer_block;
        float moments[2][optimizer_block];
        for (int s = 0; s < 2; s++)
            eight_decode(tables->level[s], codes + i + s * optimizer_code_stride(part), scales[s][block],
                         moments[s], left);
        adamw_span(&a, u->parameters + at + i, u->gradients + at + i, moments[0], moments[1], left);
        for (int s = 0; s < 2; s++)
            scales[s][block] =
                eight_encode(tables, s, moments[s], codes + i + s * optimizer_code_stride(part), left);
    }
}

static void adamw8bit_run(const struct cpu_call *call) {
    struct update u;
    if (!update_begin(&u, call)) return;
    size_t starts = ((size_t)u.parts->count + 1) * sizeof(int32_t);
    struct eight_bits *tables = (void *)((char *)call->workspace + ((starts + 63) & ~(size_t)63));
    eight_make(tables);
    u.own = tables;
    u.piece = adamw8bit_piece;
    update_pieces(&u, call->pool, call->workspace, false);
}

#endif
