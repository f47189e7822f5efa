#include "base/largest.h"

#include <math.h>

/* A piece's largest number is found first, in lanes that the compiler makes vectors of, and its place only
 * in the piece that has it. */
int64_t floats_largest(const float *x, int64_t count) {
    enum { lanes = 32, piece = 1024 };
    float best = -INFINITY;
    int64_t place = -1;
    for (int64_t first = 0; first < count; first += piece) {
        int64_t end = count - first < piece ? count : first + piece, v = first;
        float most[lanes], largest = best;
        for (int l = 0; l < lanes; l++) most[l] = best;
        for (; v + lanes <= end; v += lanes)
            for (int l = 0; l < lanes; l++) most[l] = x[v + l] > most[l] ? x[v + l] : most[l];
        for (int l = 0; l < lanes; l++) largest = most[l] > largest ? most[l] : largest;
        for (; v < end; v++) largest = x[v] > largest ? x[v] : largest;
        if (!(largest > best)) continue;
        best = largest;
        for (place = first; x[place] != best;) place++;
    }
    return place;
}
