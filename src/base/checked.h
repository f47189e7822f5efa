/* Arithmetic on sizes that come from files or users. True: the result is exact. False: it would not
 * fit, and *out is unchanged. Use these for every count, offset and byte size that was read. */
#ifndef HONE_BASE_CHECKED_H
#define HONE_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* Rounds `a` up to a multiple of `alignment`, a power of two. */
static inline bool checked_align(uint64_t a, uint64_t alignment, uint64_t *out) {
    uint64_t r;
    if (!checked_add(a, alignment - 1, &r)) return false;
    *out = r & ~(alignment - 1);
    return true;
}

/* True when [offset, offset + size) lies inside [0, limit). */
static inline bool checked_range(uint64_t offset, uint64_t size, uint64_t limit) {
    return offset <= limit && size <= limit - offset;
}

/* The same sums for size_t. */
static inline bool checked_size_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool checked_size_add(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

#endif
