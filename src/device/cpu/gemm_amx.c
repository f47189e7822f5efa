#if defined(__x86_64__)
/* Tiles of 32 × 32 in AMX registers: four sums, two tiles of x and two of w, each of 16 rows of 64 bytes. A
 * panel's 16 steps are a tile of w as they lie. */
#include <immintrin.h>
#include <string.h>

#include "device/cpu/gemm_amx.h"
#include "device/cpu/gemm_finish.h"
#include "device/cpu/gemm_pair_avx512bf16.h"
#include "device/cpu/gemm_transpose_avx512.h"

enum { rows_amx = 32, columns_amx = 32, tile_side = 16, tile_steps = 16, panel_row = columns_amx * 4 };

/* What LDTILECFG reads. */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void set_shape(struct tile_shapes *shapes, int tile, int rows) {
    shapes->rows[tile] = (uint8_t)rows;
    shapes->row_bytes[tile] = rows ? 64 : 0;
}

/* Loading shapes takes a fifth of the time of a tile: they stay from one to the next, until the thread
 * leaves. */
static _Thread_local int configured_rows;

/* Sums are tiles 0 to 3 (row by row), x is 4 and 5, w is 6 and 7. */
void gemm_amx_shapes(int rows) {
    if (configured_rows == rows) return;
    struct tile_shapes shapes = {.palette = 1};
    int upper = rows < tile_side ? rows : tile_side, lower = rows - upper;
    for (int v = 0; v < 2; v++) {
        set_shape(&shapes, v, upper);
        set_shape(&shapes, 2 + v, lower);
        set_shape(&shapes, 6 + v, tile_steps);
    }
    set_shape(&shapes, 4, upper);
    set_shape(&shapes, 5, lower);
    gemm_amx_written(&shapes);
    _tile_loadconfig(&shapes);
    configured_rows = rows;
}

static void leave_amx(void) {
    if (configured_rows) _tile_release();
    configured_rows = 0;
}

/* Sixteen steps. `two_rows`, `two_columns`: whether the second tile of each side is used. */
static inline __attribute__((always_inline)) void multiply(const bool two_rows, const bool two_columns,
                                                           const char *a, int64_t stride, const char *b) {
    _tile_loadd(4, a, (size_t)stride);
    _tile_loadd(6, b, panel_row);
    _tile_dpbf16ps(0, 4, 6);
    if (two_columns) {
        _tile_loadd(7, b + 64, panel_row);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (!two_rows) return;
    _tile_loadd(5, a + tile_side * stride, (size_t)stride);
    _tile_dpbf16ps(2, 5, 6);
    if (two_columns) _tile_dpbf16ps(3, 5, 7);
}

/* The steps behind the last sixteen, filled up with zeros. */
struct tail {
    _Alignas(64) char a[rows_amx * 64], b[tile_steps * panel_row];
};

static void fill_tail(struct tail *tail, int rows, const char *a, int64_t stride, const char *b,
                      int64_t steps) {
    const __mmask16 there = (__mmask16)((1u << steps) - 1);
    for (int r = 0; r < rows; r++)
        _mm512_store_si512(tail->a + r * 64, _mm512_maskz_loadu_epi32(there, a + r * stride));
    for (int s = 0; s < tile_steps; s++)
        for (int at = s * panel_row; at < (s + 1) * panel_row; at += 64)
            _mm512_store_si512(tail->b + at, s < steps ? _mm512_loadu_si512(b + at) : _mm512_setzero_si512());
}

static inline __attribute__((always_inline)) void
begin_tiles(const bool add, const bool two_rows, const bool two_columns, const float *out, size_t row) {
    if (!add) {
        _tile_zero(0);
        if (two_columns) _tile_zero(1);
        if (two_rows) _tile_zero(2);
        if (two_rows && two_columns) _tile_zero(3);
        return;
    }
    const char *lower = (const char *)out + tile_side * row;
    _tile_loadd(0, out, row);
    if (two_columns) _tile_loadd(1, out + tile_side, row);
    if (two_rows) _tile_loadd(2, lower, row);
    if (two_rows && two_columns) _tile_loadd(3, lower + 4 * tile_side, row);
}

/* `parts` of x, one or two. */
static inline __attribute__((always_inline)) void sum_tiles(const bool add, const bool two_rows,
                                                            const bool two_columns, int rows,
                                                            const struct gemm_rows *x, int parts,
                                                            const char *b, float *out, int64_t out_stride) {
    const size_t row = (size_t)out_stride * sizeof *out;
    char *lower = (char *)out + tile_side * row;
    struct tail tail;
    begin_tiles(add, two_rows, two_columns, out, row);
    for (const struct gemm_rows *end = x + parts; x < end; b += x->steps * panel_row, x++) {
        int64_t whole = x->steps / tile_steps * tile_steps;
        const char *a = x->at;
        for (int64_t k = 0; k < whole; k += tile_steps)
            multiply(two_rows, two_columns, a + 4 * k, x->stride, b + k * panel_row);
        if (whole == x->steps) continue;
        fill_tail(&tail, rows, a + 4 * whole, x->stride, b + whole * panel_row, x->steps - whole);
        gemm_amx_written(&tail);
        multiply(two_rows, two_columns, tail.a, 64, tail.b);
    }
    _tile_stored(0, out, row);
    if (two_columns) _tile_stored(1, out + tile_side, row);
    if (two_rows) _tile_stored(2, lower, row);
    if (two_rows && two_columns) _tile_stored(3, lower + 4 * tile_side, row);
}

static inline __attribute__((always_inline)) void sum_block(const bool add, int rows, int columns,
                                                            const struct gemm_rows *x, const int parts,
                                                            const void *b, float *out, int64_t out_stride) {
    gemm_amx_shapes(rows);
    if (rows > tile_side && columns > tile_side)
        sum_tiles(add, true, true, rows, x, parts, b, out, out_stride);
    else if (rows > tile_side)
        sum_tiles(add, true, false, rows, x, parts, b, out, out_stride);
    else if (columns > tile_side)
        sum_tiles(add, false, true, rows, x, parts, b, out, out_stride);
    else
        sum_tiles(add, false, false, rows, x, parts, b, out, out_stride);
}

static void tile_amx(int rows, int columns, const struct gemm_rows x[2], const void *b, float *out) {
    sum_block(false, rows, columns, x, 2, b, out, columns_amx);
}

static void tile_add_amx(int rows, int columns, const void *a, int64_t stride, const void *b, int64_t steps,
                         float *out, int64_t out_stride) {
    const struct gemm_rows x = {a, stride, steps};
    sum_block(true, rows, columns, &x, 1, b, out, out_stride);
}

static void finish_amx(const struct gemm_tile *tile) { finish_tile(tile, columns_amx); }

const struct gemm_kernel gemm_kernel_amx = {
    .rows = rows_amx,
    .columns = columns_amx,
    .group = tile_steps,
    .pairs = true,
    .tile = tile_amx,
    .tile_add = tile_add_amx,
    .leave = leave_amx,
    .transpose = transpose_512,
    .finish = finish_amx,
    .pair = pair_512,
    .weave = weave_512,
    .narrow = gemm_narrow_avx512,
    .narrow_pairs = gemm_narrow_amx,
    .few = gemm_few_avx512,
    .round = gemm_round_avx512,
    .round_quads = gemm_round_quads_avx512,
};
#endif
