/* Where the largest of many numbers is. */
#ifndef HONE_BASE_LARGEST_H
#define HONE_BASE_LARGEST_H

#include <stdint.h>

/* The index of the first of the largest; NaN is never larger. -1 where there is none above -inf. */
int64_t floats_largest(const float *x, int64_t count);

#endif
