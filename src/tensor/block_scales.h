/* What plain and vector decoders alike read one number at a time: scales of a few bits, and the levels of
 * types with a table (layouts: rowcodec_k.c, rowcodec_levels.c). */
#ifndef HONE_TENSOR_BLOCK_SCALES_H
#define HONE_TENSOR_BLOCK_SCALES_H

#include <stdint.h>

#include "base/anywhere.h"

static ANYWHERE_TABLE const int8_t block_nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                          1,    13,   25,  38,  53,  69,  89,  113};
static ANYWHERE_TABLE const int8_t block_e2m1_doubled[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                             0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e - 127), since levels are doubled; subnormal for e < 2. */
static inline ANYWHERE float block_mxfp4_scale(uint8_t e) {
    union {
        uint32_t u;
        float f;
    } out = {.u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23};
    return out.f;
}

/* 2^(e - 127), subnormal for e = 0; 255 gives infinity. */
static inline ANYWHERE float block_e8m0_scale(uint8_t e) {
    union {
        uint32_t u;
        float f;
    } out = {.u = e ? (uint32_t)e << 23 : 0x00400000u};
    return out.f;
}

static inline ANYWHERE int block_iq4_xs_scale(const uint8_t *at, int group) {
    return ((at[4 + group / 2] >> 4 * (group % 2) & 15) | (at[2 + group / 4] >> 2 * (group % 4) & 3) << 4) -
           32;
}

/* Four bits in a nibble of the first 8 bytes, two in a two of the last 4; less 32. */
static inline ANYWHERE int block_q3_k_scale(const uint8_t *at, int group) {
    return ((at[group % 8] >> 4 * (group / 8) & 15) | (at[8 + group % 4] >> 2 * (group / 4) & 3) << 4) - 32;
}

/* Scale and minimum of Q4_K and Q5_K. Groups 0 to 3: six bits of bytes g and g + 4. Groups 4 to 7: a nibble
 * each of byte g + 4, and above it the two bits that those left over. */
struct block_six {
    int scale, minimum;
};
static inline ANYWHERE struct block_six block_six(const uint8_t *at, int group) {
    struct block_six low = {at[group % 4] & 63, at[group % 4 + 4] & 63};
    if (group < 4) return low;
    struct block_six high = {(at[group + 4] & 15) | at[group - 4] >> 6 << 4,
                             at[group + 4] >> 4 | at[group] >> 6 << 4};
    return high;
}

/* Codes of 256 numbers. Twos and single bits lie in planes: element 128 h + 32 r + l is the r-th two of byte
 * 32 h + l, and bit 4 h + r of byte l. Nibbles in runs of 2 n: n low ones of n bytes, then the n high ones.
 */
static inline ANYWHERE int block_two(const uint8_t *at, int i) {
    return at[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3;
}
static inline ANYWHERE int block_bit(const uint8_t *at, int i) { return at[i % 32] >> i / 32 & 1; }
static inline ANYWHERE int block_nibble(const uint8_t *at, int i, int n) {
    return at[n * (i / (2 * n)) + i % n] >> 4 * (i / n % 2) & 15;
}

#endif
