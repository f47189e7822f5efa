/* From f32 to every stored type. Those of bitsandbytes and MLX are encoded as their own code does it, so that
 * codes are equal; only the mean of the scales (nf4), a sum in another order, may differ in its last bit. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/thread.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

bool stored_encoder_open(struct stored_encoder *out, const struct stored_layout *layout, void *bytes,
                         struct error *err) {
    *out = (struct stored_encoder){
        .layout = *layout, .rows = layout->codes.dim[0], .columns = layout->codes.dim[1], .bytes = bytes};
    if (dtype_row(layout->codes.dtype)->form != FORM_LEVELS) return true;
    size_t blocks = (size_t)layout->part[PART_SCALES].dim[0];
    out->scales = mem_array(blocks, sizeof *out->scales);
    return out->scales || error_no_memory(err, "model", blocks * sizeof *out->scales);
}

/* In lanes, as vectors take them; a largest number is the same in any order. */
static float largest(const float *x, int64_t count) {
    enum { lanes = 16 };
    float most[lanes] = {0}, all = 0;
    int64_t whole = count / lanes * lanes;
    for (int64_t i = 0; i < whole; i += lanes)
        for (int l = 0; l < lanes; l++) most[l] = fabsf(x[i + l]) > most[l] ? fabsf(x[i + l]) : most[l];
    for (int l = 0; l < lanes; l++) all = most[l] > all ? most[l] : all;
    for (int64_t i = whole; i < count; i++) all = fabsf(x[i]) > all ? fabsf(x[i]) : all;
    return all;
}

/* ---- nf4 ---- */

/* A code is the number of middles between levels that lie below. `inverse` of whole blocks, and the quotient
 * in a last one that is shorter: as bitsandbytes rounds. Loops of a block's length, a middle at a time, are
 * what compilers turn into vectors. */
static void nf4_codes(const float *x, int count, float scale, const float middles[15], uint8_t *codes) {
    float low = scale > 1e-38f ? scale : 1e-38f, inverse = 1.0f / low, v[nf4_block] = {0};
    int32_t below[nf4_block] = {0};
    if (count == nf4_block)
        for (int i = 0; i < nf4_block; i++) v[i] = x[i] * inverse;
    else
        for (int i = 0; i < count; i++) v[i] = x[i] / low;
    for (int l = 0; l < 15; l++)
        for (int i = 0; i < nf4_block; i++) below[i] += v[i] > middles[l];
    for (int i = 0; i < nf4_block; i += 2) codes[i / 2] = (uint8_t)(below[i] << 4 | below[i + 1]);
}

static void encode_levels(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    int64_t first = row * e->columns, all = count * e->columns;
    uint8_t *out = e->bytes + e->layout.codes.offset + first / 2, codes[nf4_block / 2];
    float middles[15];
    for (int l = 0; l < 15; l++) middles[l] = (nf4_levels[l] + nf4_levels[l + 1]) * 0.5f;
    for (int64_t at = 0; at < all; at += nf4_block) {
        int width = (int)(all - at < nf4_block ? all - at : nf4_block);
        float scale = largest(source + at, width);
        e->scales[(first + at) / nf4_block] = scale;
        nf4_codes(source + at, width, scale, middles, codes);
        memcpy(out + at / 2, codes, (size_t)(width + 1) / 2);
    }
}

static int by_size(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* bitsandbytes' dynamic map: for each decade the middles of equal steps from 0.1 to 1, both signs; 0 and 1.
 * Steps are summed as torch.linspace does, with one rounding (so in f64). */
static void dynamic_map(float out[nf4_scale_levels]) {
    static const float decades[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    int count = 0;
    out[count++] = 0;
    out[count++] = 1;
    for (int d = 0; d < 7; d++) {
        const int steps = 1 << d;
        const float step = (1.0f - 0.1f) / (float)steps;
        float edge[65];
        for (int i = 0; i <= steps; i++)
            edge[i] = (float)(i < (steps + 1) / 2 ? (double)0.1f + (double)step * i
                                                  : 1.0 - (double)step * (steps - i));
        for (int i = 0; i < steps; i++) {
            out[count++] = decades[d] * ((edge[i] + edge[i + 1]) / 2);
            out[count] = -out[count - 1];
            count++;
        }
    }
    qsort(out, nf4_scale_levels, sizeof *out, by_size);
}

/* The nearest level; of two as near, the lower. Steps without branches, which no processor could foretell. */
static uint8_t nearest_level(const float levels[nf4_scale_levels], float v) {
    int low = 0;
    for (int step = nf4_scale_levels / 2; step; step /= 2) low += v >= levels[low + step] ? step : 0;
    if (low > nf4_scale_levels - 2) low = nf4_scale_levels - 2;
    return (uint8_t)(fabsf(levels[low + 1] - v) < fabsf(v - levels[low]) ? low + 1 : low);
}

/* The scales of nf4's blocks, as they are rounded: outer blocks are tasks. */
struct finishing {
    struct stored_encoder *encoder;
    float levels[nf4_scale_levels], offset;
};

static void finish_outer_block(void *user, int task, int worker) {
    const struct finishing *finishing = user;
    const struct stored_encoder *e = finishing->encoder;
    const struct stored_piece *part = e->layout.part;
    int64_t first = (int64_t)task * nf4_outer_block, left = part[PART_SCALES].dim[0] - first,
            count = left < nf4_outer_block ? left : nf4_outer_block;
    float *scales = e->scales + first, *factors = (float *)(void *)(e->bytes + part[PART_FACTORS].offset);
    uint8_t *codes = e->bytes + part[PART_SCALES].offset + first;
    (void)worker;
    for (int64_t i = 0; i < count; i++) scales[i] -= finishing->offset;
    float factor = largest(scales, count);
    factors[task] = factor;
    for (int64_t i = 0; i < count; i++)
        codes[i] = nearest_level(finishing->levels, factor > 0 ? scales[i] / factor : 0);
}

static void finish_levels(struct stored_encoder *e, struct pool *pool) {
    const struct stored_piece *part = e->layout.part;
    const int64_t blocks = part[PART_SCALES].dim[0];
    struct finishing finishing = {.encoder = e};
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += (double)e->scales[b];
    finishing.offset = (float)(sum / (double)blocks);
    dynamic_map(finishing.levels);
    const int tasks = (int)((blocks + nf4_outer_block - 1) / nf4_outer_block);
    for (int t = 0; !pool && t < tasks; t++) finish_outer_block(&finishing, t, 0);
    if (pool) pool_run(pool, tasks, finish_outer_block, &finishing);
    memcpy(e->bytes + part[PART_LEVELS].offset, finishing.levels, sizeof finishing.levels);
    memcpy(e->bytes + part[PART_OFFSETS].offset, &finishing.offset, sizeof finishing.offset);
}

/* ---- int8 ---- */

/* From f16, which bitsandbytes converts weights to first. */
static void encode_rows(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    float *scales = (float *)(void *)(e->bytes + e->layout.part[PART_SCALES].offset);
    int8_t *out = (int8_t *)(e->bytes + e->layout.codes.offset) + row * e->columns;
    for (int64_t r = 0; r < count; r++, source += e->columns, out += e->columns) {
        float scale = 0;
        for (int64_t i = 0; i < e->columns; i++) {
            float v = fabsf(f16_to_f32(f32_to_f16(source[i])));
            scale = v > scale ? v : scale;
        }
        float up = scale > 0 ? 1.0f / scale * 127.0f : 0; /* rounded twice, as torch divides */
        scales[row + r] = scale;
        for (int64_t i = 0; i < e->columns; i++) {
            float v = rintf(f16_to_f32(f32_to_f16(source[i])) * up);
            out[i] = (int8_t)(v > 127 ? 127 : v > -128 ? v : -128);
        }
    }
}

/* ---- mlx ---- */

struct affine {
    float scale, offset;
};

/* The edge of larger magnitude is met exactly, and zero where the group holds it. */
static struct affine affine_fit(const float *x, int group, float most) {
    float low = x[0], high = x[0];
    for (int i = 1; i < group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    bool low_edge = fabsf(low) > fabsf(high);
    float scale = (high - low) / most, edge = low_edge ? low : high;
    scale = scale > 1e-7f ? scale : 1e-7f;
    if (!low_edge) scale = -scale;
    float steps = rintf(edge / scale);
    if (steps > 0 || steps < 0) return (struct affine){edge / steps, edge};
    return (struct affine){scale, 0};
}

static void store_number(unsigned char *at, enum dtype dtype, int64_t index, float value) {
    rowcodec(dtype)->encode(&value, at + index * dtype_row(dtype)->bytes, 1);
}

static void encode_affine(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    const enum dtype dtype = e->layout.codes.dtype, parts = e->layout.part[PART_SCALES].dtype;
    const int group = (int)dtype_row(dtype)->block, bits = stored_code_bits(dtype);
    const float most = (float)((1 << bits) - 1);
    unsigned char *out = e->bytes + e->layout.codes.offset + row * e->columns * bits / 8,
                  *scales = e->bytes + e->layout.part[PART_SCALES].offset,
                  *offsets = e->bytes + e->layout.part[PART_OFFSETS].offset;
    const int64_t first = row * e->columns / group, groups = count * e->columns / group;
    for (int64_t g = 0; g < groups; g++, source += group, out += group * bits / 8) {
        struct affine fit = affine_fit(source, group, most);
        store_number(scales, parts, first + g, fit.scale);
        store_number(offsets, parts, first + g, fit.offset);
        memset(out, 0, (size_t)(group * bits / 8));
        for (int i = 0; i < group; i++) {
            float v = rintf((source[i] - fit.offset) / fit.scale);
            unsigned code = (unsigned)(v > 0 ? v < most ? v : most : 0) << i * bits % 8;
            out[i * bits / 8] |= (unsigned char)code;
            if (code >> 8) out[i * bits / 8 + 1] |= (unsigned char)(code >> 8);
        }
    }
}

/* The smallest power of two with which 6, the highest level, reaches the largest number. MLX lets an exponent
 * below what a byte holds wrap around; here it is the least. */
static int micro_exponent(const float *x) {
    int exponent = 0;
    const float half = frexpf(largest(x, stored_micro_block) / 6.0f, &exponent); /* in [1/2, 1), or 0 */
    exponent += half > 0 && half <= 0.5f ? 126 : 127;
    return exponent > 0 ? exponent : 0;
}

/* The nearest level; of two as near, the one of smaller magnitude, and 0 has no sign. */
static unsigned micro_code(float v) {
    static const float middles[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    unsigned code = 0;
    for (int m = 0; m < 7; m++) code += fabsf(v) > middles[m];
    return code && v < 0 ? code | 8 : code;
}

static void encode_micro(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    const int64_t first = row * e->columns / stored_micro_block,
                  blocks = count * e->columns / stored_micro_block;
    uint8_t *scales = e->bytes + e->layout.part[PART_SCALES].offset + first,
            *out = e->bytes + e->layout.codes.offset + row * e->columns / 2;
    for (int64_t b = 0; b < blocks; b++, source += stored_micro_block) {
        const int exponent = micro_exponent(source);
        const float scale = ldexpf(1, exponent - 127);
        scales[b] = (uint8_t)exponent;
        for (int i = 0; i < stored_micro_block; i += 2)
            *out++ = (uint8_t)(micro_code(source[i] / scale) | micro_code(source[i + 1] / scale) << 4);
    }
}

void stored_encode(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    const enum dtype dtype = e->layout.codes.dtype;
    const struct dtype_row *type = dtype_row(dtype);
    unsigned char *out = e->bytes + e->layout.codes.offset;
    switch (type->form) {
    case FORM_LEVELS: encode_levels(e, row, count, source); break;
    case FORM_ROWS: encode_rows(e, row, count, source); break;
    case FORM_AFFINE: encode_affine(e, row, count, source); break;
    case FORM_MICRO: encode_micro(e, row, count, source); break;
    case FORM_BLOCK:
        rowcodec(dtype)->encode(source, out + row * e->columns / type->block * type->bytes,
                                count * e->columns);
        break;
    }
}

void stored_encoder_finish(struct stored_encoder *e, struct pool *pool) {
    if (e->scales) finish_levels(e, pool);
    mem_free(e->scales);
    e->scales = NULL;
}
