/* AdamW with both moments in 8 bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"),
 * as bitsandbytes' AdamW8bit: of each block of 256 numbers the largest magnitude is kept in f32, and of each
 * number the nearest of 256 levels between it and 0, which lie closer the nearer they are to 0. Parts of
 * fewer than 4,096 numbers keep f32 moments. The update itself is AdamW's, from moments that are not rounded
 * yet:
 *
 *   m = level[code_m] · largest_m,  v = level[code_v] · largest_v;  AdamW's step;  largest = max |m| …
 *
 * Of a value right between two levels either may be taken. bitsandbytes' CUDA kernel differs in one thing: a
 * negative m that is nearest to 0 becomes the level below 0, -5.5e-7. Its own library for the CPU rounds by a
 * table with steps of 3e-5 instead, so that 0 is no level there; the golden vectors are made with the nearest
 * level, as every other of its backends takes it. */
#include <math.h>
#include <stdlib.h>

#include "op/op.h"

int64_t optimizer_code_elements(const struct op_part *part) {
    return optimizer_is_quantised(part) ? 2 * optimizer_code_stride(part) : 0;
}

int64_t optimizer_scale_elements(const struct op_part *part) { return 2 * optimizer_scale_stride(part); }

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Decade i, from 10^(i-7) to 10^(i-6), is cut into 2^i pieces (twice as many without signs), whose middles
 * are the levels; 0 and 1 are levels too. In f32, as torch.linspace (from both ends, multiplied and added
 * in one rounding) and bitsandbytes compute it. */
void optimizer_map(bool is_signed, float map[optimizer_codes]) {
    static const float power[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1};
    int count = 0;
    for (int i = 0; i < 7; i++) {
        int pieces = is_signed ? 1 << i : 2 << i;
        float step = (1 - 0.1f) / (float)pieces;
        for (int k = 0; k < pieces; k++) {
            float edge[2];
            for (int e = 0; e < 2; e++) {
                int low = k + e, high = pieces - low;
                edge[e] = low < (pieces + 1) / 2 ? (float)((double)0.1f + (double)step * low)
                                                 : (float)(1 - (double)step * high);
            }
            map[count] = power[i] * ((edge[0] + edge[1]) / 2);
            if (is_signed) map[count + 1] = -map[count];
            count += is_signed ? 2 : 1;
        }
    }
    map[count++] = 0;
    map[count++] = 1;
    qsort(map, (size_t)count, sizeof *map, ascending);
}

static int nearest(const float *map, double x) {
    int low = 0, high = optimizer_codes - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (((double)map[middle] + (double)map[middle + 1]) / 2 < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* One block, or its last few numbers. */
static void encode(const float *map, const double *x, int64_t n, double *codes, double *largest) {
    *largest = 0;
    for (int64_t i = 0; i < n; i++) *largest = fmax(*largest, fabs(x[i]));
    for (int64_t i = 0; i < n; i++) codes[i] = nearest(map, *largest > 0 ? x[i] / *largest : 0);
}

struct eight {
    const double *hyper;
    double step, clip;
    float maps[2][optimizer_codes];
};

static void step_block(const struct eight *e, double *p, const double *g, double *codes[2],
                       double *largest[2], int64_t n) {
    double moments[2][optimizer_block];
    for (int64_t i = 0; i < n; i++) {
        for (int s = 0; s < 2; s++) moments[s][i] = (double)e->maps[s][(int)codes[s][i]] * *largest[s];
        adamw_reference_number(&p[i], g[i] * e->clip, &moments[0][i], &moments[1][i], e->hyper, e->step);
    }
    for (int s = 0; s < 2; s++) encode(e->maps[s], moments[s], n, codes[s], largest[s]);
}

static void adamw8bit_reference(const struct reference_call *call) {
    const struct op_parts *parts = call->attributes->parts;
    struct eight e;
    if (!update_reference_begin(call, &e.step)) return;
    for (int s = 0; s < 2; s++) optimizer_map(!s, e.maps[s]);
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        double *p = call->in[3].data + part->offset, *g = call->in[4].data + part->offset;
        double *scales = call->in[6].data + part->slot[1], *other = scales + optimizer_scale_stride(part);
        int64_t n = op_part_elements(part);
        e.hyper = call->in[1].data + part->group * HYPER_COLUMNS;
        e.clip = update_reference_clip(call, e.hyper);
        if (!optimizer_is_quantised(part)) {
            for (int64_t k = 0; k < n; k++)
                adamw_reference_number(&p[k], g[k] * e.clip, &scales[k], &other[k], e.hyper, e.step);
            continue;
        }
        double *first = call->in[5].data + part->slot[0], *second = first + optimizer_code_stride(part);
        for (int64_t at = 0; at < n; at += optimizer_block)
            step_block(&e, p + at, g + at, (double *[2]){first + at, second + at},
                       (double *[2]){scales + at / optimizer_block, other + at / optimizer_block},
                       n - at < optimizer_block ? n - at : optimizer_block);
    }
}

const struct op_row op_adamw8bit_row = {
    .name = "adamw8bit",
    .inputs = 7,
    .outputs = 0,
    .optional_inputs = 1u << 5,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6,
    .overwrite = {-1, -1, -1, -1},
    .reference = adamw8bit_reference,
};
