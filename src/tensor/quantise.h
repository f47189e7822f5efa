/* How numbers find their codes: a search for the scale (and minimum) that leaves the least squared error.
 *
 * A group of n numbers (16 or 32) is written as scale · level, or scale · level - minimum, where a level is
 * one of a few numbers (struct grid). The best level for a given scale is the nearest one; the best scale for
 * given levels is a quotient of sums (least squares). Neither knows the other, so some scales are tried, each
 * is improved once by its own levels, and the best stays.
 *
 * The types of 256 numbers keep their groups' scales as small integers times one f16: quantise_signed and
 * quantise_affine choose those too, and then improve the f16 by least squares over all 256. */
#ifndef HONE_TENSOR_QUANTISE_H
#define HONE_TENSOR_QUANTISE_H

#include <stdbool.h>
#include <stdint.h>

enum { superblock = 256, most_groups = 16 };

struct grid {
    float low, high;      /* the outermost levels */
    const int8_t *levels; /* 16, ascending; NULL: every integer from low to high */
};

/* level[i] = the level nearest to x[i] · inverse; NaN takes the lowest. */
void grid_nearest(const struct grid *grid, const float *restrict x, int n, float inverse,
                  float *restrict level);
/* Σ (x - scale · level + minimum)² */
float grid_error(const float *restrict x, const float *restrict level, int n, float scale, float minimum);
/* The scale, of either sign, for x ≈ scale · level. */
float grid_fit(const struct grid *grid, const float *x, int n);

/* 256 numbers as d · scale[group] · level. */
struct signed_shape {
    int group; /* numbers in a group: 16 or 32 */
    struct grid grid;
    int scale_low, scale_high; /* bounds of a group's scale; -scale_low is the larger */
};
struct signed_block {
    float d; /* can be stored as f16 without loss */
    int scale[most_groups];
    float level[superblock];
};
void quantise_signed(const struct signed_shape *shape, const float *x, struct signed_block *out);

/* 256 numbers as d · scale[group] · level - m · minimum[group], all of them at least 0. */
struct affine_shape {
    int group;
    float most;     /* the highest level; the lowest is 0 */
    int scale_most; /* of scale and minimum */
};
struct affine_block {
    float d, m;
    int scale[most_groups], minimum[most_groups];
    float level[superblock];
};
void quantise_affine(const struct affine_shape *shape, const float *x, struct affine_block *out);

#endif
