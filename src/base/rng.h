/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A counter-based generator: word = f(key, counter), so nothing is carried between calls and every
 * device draws the same numbers. */
#ifndef HONE_BASE_RNG_H
#define HONE_BASE_RNG_H

#include <math.h>
#include <stdint.h>

#include "base/anywhere.h"

/* key: the 64-bit seed, low word first. out: four words. */
static inline ANYWHERE void philox(uint64_t seed, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* A number of (0, 1) from a word. */
static inline double uniform_of(uint32_t word) { return ((double)word + 0.5) / 4294967296.0; }

/* Box and Muller: two words make two normal numbers. */
static inline void normal_pair(const uint32_t words[2], double out[2]) {
    double radius = sqrt(-2 * log(uniform_of(words[0]))), angle = 6.283185307179586 * uniform_of(words[1]);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

#endif
