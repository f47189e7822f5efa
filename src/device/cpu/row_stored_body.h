/* Rows whose scales lie apart (tensor/stored.h) to f32, 16 numbers at a time; included by each instruction
 * set's file, which brings
 *
 *   stored_table                 a type: 16 levels that are scaled already
 *   table_scaled(levels, scale)  makes one
 *   sixteen_levels(out, codes, low_first, &table)    low_first: the low nibble is the first of two
 *   sixteen_bytes(out, codes, scale)
 *   sixteen_affine(out, codes, bits, scale, offset)
 *
 * The same bits as stored_decode: products and sums are rounded separately. */
#ifndef HONE_DEVICE_CPU_ROW_STORED_BODY_H
#define HONE_DEVICE_CPU_ROW_STORED_BODY_H

#include "tensor/stored_parts.h"

static void load_levels(float *out, const struct stored *s, int64_t row, int64_t column, int64_t count) {
    const int64_t first = row * s->columns + column;
    const uint8_t *codes = (const uint8_t *)s->codes + first / 2;
    stored_table table = table_scaled(nf4_levels, 0);
    for (int64_t i = 0; i < count; i += 16) {
        if (i == 0 || (first + i) % nf4_block == 0)
            table = table_scaled(nf4_levels, stored_nf4_scale(s, (first + i) / nf4_block));
        sixteen_levels(out + i, codes + i / 2, false, &table);
    }
}

static void load_micro(float *out, const struct stored *s, int64_t row, int64_t column, int64_t count) {
    const uint8_t *codes = stored_codes(s, row, column);
    for (int64_t i = 0; i < count; i += stored_micro_block) {
        const stored_table table = table_scaled(e2m1_levels, stored_micro_scale(s, row, column + i));
        for (int64_t j = i; j < i + stored_micro_block; j += 16)
            sixteen_levels(out + j, codes + j / 2, true, &table);
    }
}

static void load_bytes(float *out, const struct stored *s, int64_t row, int64_t column, int64_t count) {
    const uint8_t *codes = stored_codes(s, row, column);
    const float scale = stored_number(&s->part[PART_SCALES], row);
    for (int64_t i = 0; i < count; i += 16) sixteen_bytes(out + i, codes + i, scale);
}

static inline __attribute__((always_inline)) void load_affine(float *out, const struct stored *s, int64_t row,
                                                              int64_t column, int64_t count, const int bits) {
    const int64_t group = dtype_row(s->dtype)->block, groups = s->columns / group;
    const uint8_t *codes = stored_codes(s, row, column);
    for (int64_t i = 0; i < count; i += group) {
        const int64_t part = row * groups + (column + i) / group;
        const float scale = stored_number(&s->part[PART_SCALES], part),
                    offset = stored_number(&s->part[PART_OFFSETS], part);
        for (int64_t j = i; j < i + group; j += 16, codes += 2 * bits)
            sixteen_affine(out + j, codes, bits, scale, offset);
    }
}

static void load_stored(float *out, const struct stored *s, int64_t row, int64_t column, int64_t count) {
    int64_t done = count / 16 * 16;
    switch (dtype_row(s->dtype)->form) {
    case FORM_LEVELS:
        if ((row * s->columns + column) % 16) done = 0; /* rows of no multiple of 16 */
        load_levels(out, s, row, column, done);
        break;
    case FORM_ROWS: load_bytes(out, s, row, column, done); break;
    case FORM_AFFINE:
        switch (stored_code_bits(s->dtype)) {
        case 2: load_affine(out, s, row, column, count, 2); return;
        case 3: load_affine(out, s, row, column, count, 3); return;
        case 4: load_affine(out, s, row, column, count, 4); return;
        case 5: load_affine(out, s, row, column, count, 5); return;
        case 6: load_affine(out, s, row, column, count, 6); return;
        default: load_affine(out, s, row, column, count, 8); return;
        }
    case FORM_MICRO: load_micro(out, s, row, column, count); return;
    case FORM_BLOCK: done = 0;
    }
    if (done < count) stored_decode(s, row, column + done, count - done, out + done);
}

#endif
