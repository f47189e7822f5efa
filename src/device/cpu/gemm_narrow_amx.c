#if defined(__x86_64__)
/* The way of a narrow side (gradients of adapters) by AMX: 16 rows of the narrow side against 32 columns of
 * the wide one, both as pairs along k. */
#include "device/cpu/gemm_amx.h"
#include "device/cpu/gemm_kernel.h"
#include "device/cpu/gemm_pair_avx512bf16.h"
#include "device/cpu/gemm_transpose_avx512.h"

enum { side = 16, wide = 32, most_steps = gemm_narrow_k / 2, ahead = 16 /* rows of b asked for */ };
enum { sums_row = gemm_narrow_pairs * sizeof(float) };

/* Rows of 32 columns, some of them `there`, as `steps` rows of pairs; zeros from k on. */
static void weave_rows(const uint16_t *b, int64_t ldb, int64_t k, int64_t steps, __mmask32 there,
                       uint32_t *to) {
    for (int64_t s = 0; s < steps; s++, b += 2 * ldb, to += wide) {
        __m512i even = _mm512_maskz_loadu_epi16(2 * s < k ? there : 0, b),
                odd = _mm512_maskz_loadu_epi16(2 * s + 1 < k ? there : 0, b + ldb);
        for (int i = 0; i < 2; i++) __builtin_prefetch(b + (ahead + i) * ldb);
        weave_vectors(even, odd, to);
    }
}

/* sums [16, 32] += a [16, 2 steps] b */
static inline __attribute__((always_inline)) void add_columns(const bool two, const uint32_t *a,
                                                              const uint32_t *b, int64_t steps, float *sums) {
    _tile_loadd(0, sums, sums_row);
    if (two) _tile_loadd(1, sums + side, sums_row);
    for (int64_t s = 0; s < steps; s += side, a += side * side, b += side * wide) {
        _tile_loadd(4, a, 4 * side);
        _tile_loadd(6, b, 4 * wide);
        _tile_dpbf16ps(0, 4, 6);
        if (!two) continue;
        _tile_loadd(7, b + side, 4 * wide);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, sums, sums_row);
    if (two) _tile_stored(1, sums + side, sums_row);
}

void gemm_narrow_amx(int rows, int columns, const float *a, int64_t lda, const uint16_t *b, int64_t ldb,
                     int64_t k, float *sums) {
    _Alignas(64) uint32_t pairs[most_steps * side] = {0}, turned[most_steps * side], woven[most_steps * wide];
    int64_t steps = (k + 2 * side - 1) / (2 * side) * side;
    narrow_units(rows, a, lda, k, pairs);
    for (int64_t s = 0; s < steps; s += side)
        transpose_512(pairs + s * side, side, turned + s * side, side, side);
    gemm_amx_shapes(2 * side);
    for (int j = 0; j < columns; j += wide) {
        int left = columns - j < wide ? columns - j : wide;
        weave_rows(b + j, ldb, k, steps, (__mmask32)(0xffffffffu >> (wide - left)), woven);
        gemm_amx_written(woven);
        if (left > side)
            add_columns(true, turned, woven, steps, sums + j);
        else
            add_columns(false, turned, woven, steps, sums + j);
    }
}
#endif
