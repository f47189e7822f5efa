/* The small matrix product that attention is made of, over f32 blocks in scratch, and moving rows
 * between activations and scratch. */
#ifndef HONE_DEVICE_CPU_ATTENTION_TILE_H
#define HONE_DEVICE_CPU_ATTENTION_TILE_H

#include "device/cpu/simd_vector.h"

/* Rows of a tile, and vectors across it: as many sums as registers hold beside their operands. */
enum { tile_rows = 4 };
#if defined(__AVX512F__)
enum { tile_vectors = 4 };
#else
enum { tile_vectors = 2 };
#endif

/* c (+)= a b for one tile: tile_rows rows, `vectors` vectors across. The compiler specialises it for
 * each constant `vectors`, which is what keeps the sums in registers. */
static inline __attribute__((always_inline)) void tile_multiply(const int vectors, bool add, int64_t depth,
                                                                const float *a, int64_t a_row, int64_t a_step,
                                                                const float *b, int64_t b_row, float *c,
                                                                int64_t c_row) {
    vf sum[tile_rows][tile_vectors];
#pragma GCC unroll 4
    for (int r = 0; r < tile_rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = add ? v_load(c + r * c_row + v * lanes) : (vf){0};
    for (int64_t k = 0; k < depth; k++) {
        vf across[tile_vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) across[v] = v_load(b + k * b_row + v * lanes);
#pragma GCC unroll 4
        for (int r = 0; r < tile_rows; r++) {
            vf down = v_splat(a[r * a_row + k * a_step]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(down, across[v], sum[r][v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < tile_rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) v_store(c + r * c_row + v * lanes, sum[r][v]);
}

/* c [rows, columns] = a b, or += with `add`.
 *   a  element (i, k) at a[i · a_row + k · a_step];  b [depth, columns], c: rows of b_row, c_row floats
 * rows are rounded up to tile_rows and columns to `lanes`: the blocks have that room. */
static inline void block_multiply(bool add, int64_t rows, int64_t columns, int64_t depth, const float *a,
                                  int64_t a_row, int64_t a_step, const float *b, int64_t b_row, float *c,
                                  int64_t c_row) {
    for (int64_t j = 0; j < columns; j += tile_vectors * lanes) {
        int64_t vectors = (columns - j + lanes - 1) / lanes;
        for (int64_t i = 0; i < rows; i += tile_rows) {
            const float *down = a + i * a_row;
            float *out = c + i * c_row + j;
            if (vectors >= tile_vectors)
                tile_multiply(tile_vectors, add, depth, down, a_row, a_step, b + j, b_row, out, c_row);
#if defined(__AVX512F__)
            else if (vectors == 3)
                tile_multiply(3, add, depth, down, a_row, a_step, b + j, b_row, out, c_row);
            else if (vectors == 2)
                tile_multiply(2, add, depth, down, a_row, a_step, b + j, b_row, out, c_row);
#endif
            else
                tile_multiply(1, add, depth, down, a_row, a_step, b + j, b_row, out, c_row);
        }
    }
}

/* `rows` rows of d activations, `stride` elements apart, to rows of `padded` floats; zeros in the padding
 * and in the rows up to `all_rows`. */
static inline void load_block(float *out, int64_t padded, const void *source, enum dtype dtype,
                              int64_t stride, int64_t rows, int64_t all_rows, int64_t d) {
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)source + r * stride * v_bytes(dtype);
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
