/* Rows of every stored type to f32 or bf16, 32 numbers at a time; included by each instruction set's file,
 * which brings
 *
 *   row_number                          the type of what is written
 *   row_block(out, at, dtype, group)    decodes one group of 32 of a block
 *   row_rest(out, at, dtype, elements)  what is no whole block
 */
#ifndef HONE_DEVICE_CPU_ROW_LOAD_BODY_H
#define HONE_DEVICE_CPU_ROW_LOAD_BODY_H

#include "device/cpu/block_types.h"

static inline __attribute__((always_inline)) void
load_blocks(row_number *out, const uint8_t *at, const enum dtype dtype, int64_t elements, int64_t bytes) {
    const int groups = block_groups(dtype), block_elements = 32 * groups;
    for (; elements >= block_elements; elements -= block_elements, out += block_elements, at += bytes)
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) row_block(out + 32 * g, at, dtype, g);
    if (elements) row_rest(out, at, dtype, elements);
}

#define LOAD_CASE(name, dtype, bytes) \
    case dtype: load_blocks(out, source, dtype, elements, bytes); break;

static void load_row(row_number *out, const void *source, enum dtype dtype, int64_t elements) {
    switch (dtype) {
        BLOCK_TYPES(LOAD_CASE)
    default: row_rest(out, source, dtype, elements);
    }
}

#endif
