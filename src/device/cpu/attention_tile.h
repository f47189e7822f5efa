/* The small matrix product that attention is made of, over f32 blocks in scratch, and moving rows
 * between activations and scratch. */
#ifndef HONE_DEVICE_CPU_ATTENTION_TILE_H
#define HONE_DEVICE_CPU_ATTENTION_TILE_H

#include "device/cpu/simd_vector.h"

/* Rows of blocks are multiples of row_step. A tile is 6 rows, or 4 where 6 do not come out even, and this
 * many vectors across: as many sums as registers hold beside their operands. */
enum { row_step = 4, tile_rows = 6 };
#if defined(__AVX512F__)
enum { tile_vectors = 4 };
#else
enum { tile_vectors = 2 };
#endif

/* Factors of a product: a's element (i, k) is a[i * a_row + k * a_step]; rows of b and c are b_row and c_row
 * floats. */
struct factors {
    int64_t depth;
    const float *a;
    int64_t a_row, a_step;
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
};

/* c (+)= a b for one tile. The compiler specialises it for each constant `rows` and `vectors`, which is what
 * keeps the sums in registers. */
static inline __attribute__((always_inline)) void tile_multiply(const int rows, const int vectors, bool add,
                                                                const struct factors *f, const float *a,
                                                                const float *b, float *c) {
    vf sum[tile_rows][tile_vectors];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = add ? v_load(c + r * f->c_row + v * lanes) : (vf){0};
    for (int64_t k = 0; k < f->depth; k++) {
        vf across[tile_vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) across[v] = v_load(b + k * f->b_row + v * lanes);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vf down = v_broadcast(a + r * f->a_row + k * f->a_step);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(down, across[v], sum[r][v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) v_store(c + r * f->c_row + v * lanes, sum[r][v]);
}

/* All rows of one column of tiles: tiles of 4 rows until the rest is a multiple of 6. */
static inline __attribute__((always_inline)) void column_multiply(const int vectors, bool add, int64_t rows,
                                                                  const struct factors *f, int64_t j) {
    int64_t i = 0;
    for (; (rows - i) % tile_rows > 0; i += row_step)
        tile_multiply(row_step, vectors, add, f, f->a + i * f->a_row, f->b + j, f->c + i * f->c_row + j);
    for (; i < rows; i += tile_rows)
        tile_multiply(tile_rows, vectors, add, f, f->a + i * f->a_row, f->b + j, f->c + i * f->c_row + j);
}

/* c [rows, columns] = a b, or += with `add`.
 *   a  element (i, k) at a[i · a_row + k · a_step];  b [depth, columns], c: rows of b_row, c_row floats
 * rows are rounded up to row_step and columns to `lanes`: the blocks have that room. */
static inline void block_multiply(bool add, int64_t rows, int64_t columns, int64_t depth, const float *a,
                                  int64_t a_row, int64_t a_step, const float *b, int64_t b_row, float *c,
                                  int64_t c_row) {
    struct factors f = {depth, a, a_row, a_step, b, b_row, c, c_row};
    rows = (rows + row_step - 1) / row_step * row_step;
    for (int64_t j = 0; j < columns; j += tile_vectors * lanes) {
        int64_t vectors = (columns - j + lanes - 1) / lanes;
        if (vectors >= tile_vectors) column_multiply(tile_vectors, add, rows, &f, j);
#if defined(__AVX512F__)
        else if (vectors == 3)
            column_multiply(3, add, rows, &f, j);
        else if (vectors == 2)
            column_multiply(2, add, rows, &f, j);
#endif
        else
            column_multiply(1, add, rows, &f, j);
    }
}

/* Rows of one head lie apart, where the processor does not see what comes next: it is asked for, so many rows
 * ahead. */
enum { rows_ahead = 12 };

static inline void ask_for(const void *at, int64_t bytes, bool writing) {
    for (int64_t line = 0; line < bytes; line += 64) {
        if (writing)
            __builtin_prefetch((const char *)at + line, 1);
        else
            __builtin_prefetch((const char *)at + line);
    }
}

/* `rows` rows of d activations, `stride` elements apart, to rows of `padded` floats; zeros in the padding
 * and in the rows up to `all_rows`. */
static inline void load_block(float *out, int64_t padded, const void *source, enum dtype dtype,
                              int64_t stride, int64_t rows, int64_t all_rows, int64_t d) {
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)source + r * stride * v_bytes(dtype);
        if (r + rows_ahead < rows)
            ask_for(row + rows_ahead * stride * v_bytes(dtype), d * v_bytes(dtype), false);
        for (int64_t i = 0; i < padded; i += lanes)
            v_store(out + r * padded + i, i < d ? v_read(row, dtype, i, d - i) : (vf){0});
    }
    if (all_rows > rows) memset(out + rows * padded, 0, (size_t)((all_rows - rows) * padded) * sizeof *out);
}

static inline void store_row(void *out, enum dtype dtype, int64_t at, const float *row, float factor,
                             int64_t d) {
    for (int64_t i = 0; i < d; i += lanes) v_write(out, dtype, at + i, d - i, v_load(row + i) * factor);
}

/* out [columns, out_row] = in [rows, columns]ᵀ; both counts are multiples of 4. */
static inline void transpose_block(float *out, int64_t out_row, const float *in, int64_t rows,
                                   int64_t columns) {
    typedef float v4 __attribute__((vector_size(16)));
    for (int64_t r = 0; r < rows; r += 4)
        for (int64_t i = 0; i < columns; i += 4) {
            v4 x[4], y[4];
            for (int j = 0; j < 4; j++) memcpy(&x[j], in + (r + j) * columns + i, sizeof x[j]);
            v4 a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5),
               b = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
            v4 c = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5),
               e = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
            y[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
            y[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
            y[2] = __builtin_shufflevector(b, e, 0, 1, 4, 5);
            y[3] = __builtin_shufflevector(b, e, 2, 3, 6, 7);
            for (int j = 0; j < 4; j++) memcpy(out + (i + j) * out_row + r, &y[j], sizeof y[j]);
        }
}

#endif
