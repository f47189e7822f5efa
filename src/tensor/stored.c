#include "tensor/stored.h"

#include "base/checked.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

/* Quantiles of a normal distribution, scaled to [-1, 1] (Dettmers et al. 2023, appendix E). */
const float nf4_levels[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};

const float e2m1_levels[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

struct stored stored_of(const struct tensor *tensor) {
    struct stored out = {.dtype = tensor->dtype,
                         .columns = tensor->rank ? tensor->dim[tensor->rank - 1] : 1,
                         .codes = tensor->data};
    for (int p = 0; p < tensor_parts; p++)
        if (tensor->part[p])
            out.part[p] = (struct stored_part){tensor->part[p]->data, tensor->part[p]->dtype};
    return out;
}

/* ---- decoding ---- */

static void decode_levels(const struct stored *s, int64_t row, int64_t column, int64_t count, float *out) {
    const int64_t first = row * s->columns + column;
    const uint8_t *codes = s->codes;
    float scale = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = first + i;
        if (i == 0 || at % nf4_block == 0) scale = stored_nf4_scale(s, at / nf4_block);
        int code = at % 2 ? codes[at / 2] & 15 : codes[at / 2] >> 4;
        out[i] = nf4_levels[code] * scale;
    }
}

static void decode_rows(const struct stored *s, int64_t row, int64_t column, int64_t count, float *out) {
    const int8_t *codes = (const int8_t *)stored_codes(s, row, column);
    const float scale = stored_number(&s->part[PART_SCALES], row);
    for (int64_t i = 0; i < count; i++) out[i] = (float)codes[i] * scale * stored_int8_unit;
}

static void decode_affine(const struct stored *s, int64_t row, int64_t column, int64_t count, float *out) {
    const int64_t group = dtype_row(s->dtype)->block, groups = s->columns / group;
    const int bits = stored_code_bits(s->dtype), mask = (1 << bits) - 1;
    const uint8_t *codes = stored_codes(s, row, column);
    for (int64_t g = 0; g < count / group; g++, codes += group * bits / 8) {
        const int64_t part = row * groups + column / group + g;
        const float scale = stored_number(&s->part[PART_SCALES], part),
                    offset = stored_number(&s->part[PART_OFFSETS], part);
        for (int i = 0; i < group; i++) {
            int at = i * bits, two = codes[at / 8];
            if (at % 8 + bits > 8) two |= codes[at / 8 + 1] << 8;
            float product = scale * (float)(two >> at % 8 & mask);
            out[g * group + i] = product + offset;
        }
    }
}

static void decode_micro(const struct stored *s, int64_t row, int64_t column, int64_t count, float *out) {
    const uint8_t *codes = stored_codes(s, row, column);
    float scale = 0;
    for (int64_t i = 0; i < count; i++) {
        if (i % stored_micro_block == 0) scale = stored_micro_scale(s, row, column + i);
        out[i] = e2m1_levels[codes[i / 2] >> i % 2 * 4 & 15] * scale;
    }
}

void stored_decode(const struct stored *s, int64_t row, int64_t column, int64_t count, float *out) {
    switch (dtype_row(s->dtype)->form) {
    case FORM_LEVELS: decode_levels(s, row, column, count, out); break;
    case FORM_ROWS: decode_rows(s, row, column, count, out); break;
    case FORM_AFFINE: decode_affine(s, row, column, count, out); break;
    case FORM_MICRO: decode_micro(s, row, column, count, out); break;
    case FORM_BLOCK: rowcodec(s->dtype)->decode(stored_codes(s, row, column), out, count); break;
    }
}

/* ---- where the pieces lie ---- */

static bool place(struct stored_layout *layout, struct stored_piece *piece, const char *suffix,
                  enum dtype dtype, int rank, int64_t rows, int64_t columns) {
    struct tensor sized = {.dtype = dtype, .rank = rank, .dim = {rows, columns}};
    uint64_t padded;
    if (!tensor_set_bytes(&sized) || !checked_add(sized.bytes, 63, &padded)) return false;
    *piece = (struct stored_piece){.suffix = suffix,
                                   .dtype = dtype,
                                   .rank = rank,
                                   .dim = {rows, columns},
                                   .offset = layout->bytes,
                                   .bytes = sized.bytes};
    return checked_add(layout->bytes, padded & ~(uint64_t)63, &layout->bytes);
}

static bool place_levels(struct stored_layout *out, int64_t rows, int64_t columns) {
    int64_t blocks = (rows * columns + nf4_block - 1) / nf4_block;
    return place(out, &out->part[PART_SCALES], ".weight.absmax", DTYPE_U8, 1, blocks, 0) &&
           place(out, &out->part[PART_LEVELS], ".weight.nested_quant_map", DTYPE_F32, 1, nf4_scale_levels,
                 0) &&
           place(out, &out->part[PART_FACTORS], ".weight.nested_absmax", DTYPE_F32, 1,
                 (blocks + nf4_outer_block - 1) / nf4_outer_block, 0) &&
           place(out, &out->part[PART_OFFSETS], ".weight.nested_offset", DTYPE_F32, 1, 1, 0);
}

bool stored_layout(struct stored_layout *out, enum dtype dtype, int64_t rows, int64_t columns,
                   enum dtype scales) {
    const struct dtype_row *type = dtype_row(dtype);
    *out = (struct stored_layout){0};
    if (!place(out, &out->codes, ".weight", dtype, 2, rows, columns)) return false;
    switch (type->form) {
    case FORM_LEVELS: return place_levels(out, rows, columns);
    case FORM_ROWS: return place(out, &out->part[PART_SCALES], ".SCB", DTYPE_F32, 1, rows, 0);
    case FORM_AFFINE:
        return place(out, &out->part[PART_SCALES], ".scales", scales, 2, rows, columns / type->block) &&
               place(out, &out->part[PART_OFFSETS], ".biases", scales, 2, rows, columns / type->block);
    case FORM_MICRO:
        return place(out, &out->part[PART_SCALES], ".scales", DTYPE_U8, 2, rows, columns / type->block);
    case FORM_BLOCK: break;
    }
    return true;
}

struct stored stored_in(const struct stored_layout *layout, const void *bytes) {
    const unsigned char *at = bytes;
    struct stored out = {
        .dtype = layout->codes.dtype, .columns = layout->codes.dim[1], .codes = at + layout->codes.offset};
    for (int p = 0; p < tensor_parts; p++)
        if (layout->part[p].rank)
            out.part[p] = (struct stored_part){at + layout->part[p].offset, layout->part[p].dtype};
    return out;
}
