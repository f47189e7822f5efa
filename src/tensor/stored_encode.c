/* From f32 to every stored type. Those of bitsandbytes and MLX are encoded as their own code does it, so that
 * codes are equal; only the mean of the scales (nf4), a sum in another order, may differ in its last bit. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
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

static float largest(const float *x, int64_t count) {
    float most = 0;
    for (int64_t i = 0; i < count; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* ---- nf4 ---- */

/* A code is the number of middles between levels that lie below. `inverse` of whole blocks, and the quotient
 * in a last one that is shorter: as bitsandbytes rounds. */
static void nf4_codes(const float *x, int count, float scale, uint8_t *codes) {
    float low = scale > 1e-38f ? scale : 1e-38f, inverse = 1.0f / low;
    for (int i = 0; i < count; i++) {
        float v = count == nf4_block ? x[i] * inverse : x[i] / low;
        int code = 0;
        for (int l = 0; l < 15; l++) code += v > (nf4_levels[l] + nf4_levels[l + 1]) * 0.5f;
        codes[i] = (uint8_t)code;
    }
}

static void encode_levels(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    int64_t first = row * e->columns, all = count * e->columns;
    uint8_t *out = e->bytes + e->layout.codes.offset + first / 2, codes[nf4_block];
    for (int64_t at = 0; at < all; at += nf4_block) {
        int width = (int)(all - at < nf4_block ? all - at : nf4_block);
        float scale = largest(source + at, width);
        e->scales[(first + at) / nf4_block] = scale;
        nf4_codes(source + at, width, scale, codes);
        for (int i = 0; i < width; i += 2) out[(at + i) / 2] = (uint8_t)(codes[i] << 4 | codes[i + 1]);
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

/* The nearest level; of two as near, the lower. */
static uint8_t nearest_level(const float levels[nf4_scale_levels], float v) {
    int low = 0, high = nf4_scale_levels - 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (v >= levels[middle])
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(fabsf(levels[high] - v) < fabsf(v - levels[low]) ? high : low);
}

static void finish_levels(struct stored_encoder *e) {
    const struct stored_piece *part = e->layout.part;
    const int64_t blocks = part[PART_SCALES].dim[0];
    uint8_t *codes = e->bytes + part[PART_SCALES].offset;
    float levels[nf4_scale_levels], *factors = (float *)(void *)(e->bytes + part[PART_FACTORS].offset);
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += (double)e->scales[b];
    const float offset = (float)(sum / (double)blocks);
    dynamic_map(levels);
    for (int64_t b = 0; b < blocks; b++) e->scales[b] -= offset;
    for (int64_t b = 0; b < blocks; b += nf4_outer_block) {
        int64_t count = blocks - b < nf4_outer_block ? blocks - b : nf4_outer_block;
        float factor = largest(e->scales + b, count);
        factors[b / nf4_outer_block] = factor;
        for (int64_t i = b; i < b + count; i++)
            codes[i] = nearest_level(levels, factor > 0 ? e->scales[i] / factor : 0);
    }
    memcpy(e->bytes + part[PART_LEVELS].offset, levels, sizeof levels);
    memcpy(e->bytes + part[PART_OFFSETS].offset, &offset, sizeof offset);
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
    const int group = (int)dtype_row(dtype)->block, bits = stored_affine_bits(dtype);
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

void stored_encode(const struct stored_encoder *e, int64_t row, int64_t count, const float *source) {
    const enum dtype dtype = e->layout.codes.dtype;
    const struct dtype_row *type = dtype_row(dtype);
    unsigned char *out = e->bytes + e->layout.codes.offset;
    switch (type->form) {
    case FORM_LEVELS: encode_levels(e, row, count, source); break;
    case FORM_ROWS: encode_rows(e, row, count, source); break;
    case FORM_AFFINE: encode_affine(e, row, count, source); break;
    case FORM_BLOCK:
        rowcodec(dtype)->encode(source, out + row * e->columns / type->block * type->bytes,
                                count * e->columns);
        break;
    }
}

void stored_encoder_finish(struct stored_encoder *e) {
    if (e->scales) finish_levels(e);
    mem_free(e->scales);
    e->scales = NULL;
}
