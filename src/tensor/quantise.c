#include "tensor/quantise.h"

#include <math.h>

#include "tensor/rowcodec_internal.h"

/* Loops run over 16 numbers with 16 sums, a length that compilers turn into vectors. */
enum { lanes = 16, refinements = 2 };

/* To the nearest integer, ties to even, for |v| < 2^22; what is larger is clamped afterwards. */
static inline float nearest_integer(float v) { return (v + 0x1.8p23f) - 0x1.8p23f; }

static inline float clamp(float v, float low, float high) {
    v = v > low ? v : low; /* NaN too */
    return v < high ? v : high;
}

static float total(const float sums[lanes]) {
    float sum = 0;
    for (int i = 0; i < lanes; i++) sum += sums[i];
    return sum;
}

static void nearest_of_table(const struct grid *grid, const float *restrict x, int n, float inverse,
                             float *restrict level) {
    float middle[15], step[15];
    for (int i = 0; i < 15; i++) {
        middle[i] = 0.5f * (float)(grid->levels[i] + grid->levels[i + 1]);
        step[i] = (float)(grid->levels[i + 1] - grid->levels[i]);
    }
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++) {
            float v = x[at + i] * inverse, found = grid->low;
            for (int t = 0; t < 15; t++) found += v > middle[t] ? step[t] : 0.0f;
            level[at + i] = found;
        }
}

void grid_nearest(const struct grid *grid, const float *restrict x, int n, float inverse,
                  float *restrict level) {
    if (grid->levels) {
        nearest_of_table(grid, x, n, inverse, level);
        return;
    }
    const float low = grid->low, high = grid->high;
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++)
            level[at + i] = clamp(nearest_integer(x[at + i] * inverse), low, high);
}

float grid_error(const float *restrict x, const float *restrict level, int n, float scale, float minimum) {
    float sums[lanes] = {0};
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++) {
            float off = x[at + i] - scale * level[at + i] + minimum;
            sums[i] += off * off;
        }
    return total(sums);
}

/* The best scale for these levels; 0 when all are 0. */
static float least_squares(const float *restrict x, const float *restrict level, int n) {
    float products[lanes] = {0}, squares[lanes] = {0};
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++) {
            products[i] += x[at + i] * level[at + i];
            squares[i] += level[at + i] * level[at + i];
        }
    float square = total(squares);
    return square > 0 ? total(products) / square : 0;
}

static float widest_of(const float *x, int n) {
    float widest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(widest)) widest = x[i];
    return widest;
}

/* The number of largest magnitude becomes about the lowest or the highest level: `share` of it, so that it is
 * clipped a little, or the grid is not used up. */
float grid_fit(const struct grid *grid, const float *x, int n) {
    static const float shares[] = {0.76f, 0.82f, 0.88f, 0.92f, 0.96f, 1.0f, 1.04f, 1.1f, 1.18f};
    float widest = widest_of(x, n), least = INFINITY, level[32];
    float best = widest != 0 ? widest / grid->low : 0; /* for squares beyond f32: no error is less then */
    for (int i = 0; widest != 0 && i < 2 * (int)(sizeof shares / sizeof *shares); i++) {
        float scale = widest / ((i % 2 ? grid->high : grid->low) * shares[i / 2]);
        grid_nearest(grid, x, n, inverse_or_zero(scale), level);
        scale = least_squares(x, level, n);
        grid_nearest(grid, x, n, inverse_or_zero(scale), level);
        float error = grid_error(x, level, n, scale, 0);
        if (!(error < least)) continue;
        least = error;
        best = scale;
    }
    return best;
}

static int rounded(float value, int low, int high) {
    return (int)clamp(nearest_integer(value), (float)low, (float)high);
}

/* The integer scale of one group, its levels and its error, with d given. */
static float signed_group(const struct signed_shape *shape, const float *x, float d, float wanted, int *scale,
                          float *level) {
    float least = INFINITY, tried[32];
    int middle = rounded(wanted * inverse_or_zero(d), shape->scale_low, shape->scale_high);
    for (int candidate = middle - 1; candidate <= middle + 1; candidate++) {
        if (candidate < shape->scale_low || candidate > shape->scale_high) continue;
        float s = d * (float)candidate;
        grid_nearest(&shape->grid, x, shape->group, inverse_or_zero(s), tried);
        float error = grid_error(x, tried, shape->group, s, 0);
        if (!(error < least) && candidate != middle) continue;
        least = error;
        *scale = candidate;
        memcpy(level, tried, (size_t)shape->group * sizeof *level);
    }
    return least;
}

static float signed_block(const struct signed_shape *shape, const float *x, const float *wanted,
                          struct signed_block *out) {
    float error = 0;
    for (int g = 0; g < superblock / shape->group; g++)
        error += signed_group(shape, x + g * shape->group, out->d, wanted[g], &out->scale[g],
                              out->level + g * shape->group);
    return error;
}

/* The d that is best for the integers that were chosen. */
static float signed_refit(const struct signed_shape *shape, const float *x,
                          const struct signed_block *block) {
    float whole[superblock];
    for (int i = 0; i < superblock; i++) whole[i] = (float)block->scale[i / shape->group] * block->level[i];
    return scale_as_f16(least_squares(x, whole, superblock));
}

void quantise_signed(const struct signed_shape *shape, const float *x, struct signed_block *out) {
    float wanted[most_groups];
    int groups = superblock / shape->group;
    for (int g = 0; g < groups; g++) wanted[g] = grid_fit(&shape->grid, x + g * shape->group, shape->group);
    out->d = scale_as_f16(widest_of(wanted, groups) / (float)shape->scale_low);
    float least = signed_block(shape, x, wanted, out);
    for (int i = 0; i < refinements; i++) {
        struct signed_block again = {.d = signed_refit(shape, x, out)};
        if (again.d == out->d) break;
        float error = signed_block(shape, x, wanted, &again);
        if (!(error < least)) break;
        least = error;
        *out = again;
    }
}

struct line {
    float scale, minimum;
};

/* x ≈ scale · level - minimum by least squares, minimum at least 0. */
static struct line fit_line(const float *restrict x, const float *restrict level, int n) {
    float xs[lanes] = {0}, ls[lanes] = {0}, products[lanes] = {0}, squares[lanes] = {0};
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++) {
            xs[i] += x[at + i];
            ls[i] += level[at + i];
            products[i] += x[at + i] * level[at + i];
            squares[i] += level[at + i] * level[at + i];
        }
    float count = (float)n, sx = total(xs), sl = total(ls), sp = total(products), ss = total(squares);
    float determinant = count * ss - sl * sl;
    struct line line = {0, sx < 0 ? -sx / count : 0};
    if (!(determinant > 0)) return line;
    line.scale = (count * sp - sl * sx) / determinant;
    line.minimum = (sl * sp - ss * sx) / determinant;
    if (!(line.minimum > 0)) line = (struct line){ss > 0 ? sp / ss : 0, 0};
    if (!(line.scale > 0)) line = (struct line){0, sx < 0 ? -sx / count : 0};
    return line;
}

static void affine_levels(const float *restrict x, int n, struct line line, float most,
                          float *restrict level) {
    float inverse = inverse_or_zero(line.scale);
    for (int at = 0; at < n; at += lanes)
        for (int i = 0; i < lanes; i++)
            level[at + i] = clamp(nearest_integer((x[at + i] + line.minimum) * inverse), 0, most);
}

static struct line fit_affine(const float *x, int n, float most) {
    float low = 0, high = x[0], least = INFINITY, level[32];
    for (int i = 0; i < n; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    if (!(high > low)) return (struct line){0, -low};
    struct line best = {(high - low) / most, -low}; /* as in grid_fit */
    for (int i = 0; i < 12; i++) {
        float steps = most + 0.2f * (float)(i - 6) * (most > 4 ? 1.0f : 0.7f);
        struct line line = {(high - low) / steps, -low};
        for (int pass = 0; pass < 2; pass++) {
            affine_levels(x, n, line, most, level);
            line = fit_line(x, level, n);
        }
        affine_levels(x, n, line, most, level);
        float error = grid_error(x, level, n, line.scale, line.minimum);
        if (!(error < least)) continue;
        least = error;
        best = line;
    }
    return best;
}

/* The minimum that is best for these levels. */
static float mean_below(const float *x, const float *level, int n, float scale) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += scale * level[i] - x[i];
    return sum / (float)n;
}

struct affine_choice {
    int scale, minimum;
};

static float affine_group(const struct affine_shape *shape, const float *x, const struct affine_block *block,
                          struct line wanted, struct affine_choice *choice, float *level) {
    float least = INFINITY, tried[32], im = inverse_or_zero(block->m);
    const int most = shape->scale_most, n = shape->group;
    int middle = rounded(wanted.scale * inverse_or_zero(block->d), 0, most);
    for (int candidate = middle - 1; candidate <= middle + 1; candidate++) {
        if (candidate < 0 || candidate > most) continue;
        struct affine_choice next = {candidate, rounded(wanted.minimum * im, 0, most)};
        for (int pass = 0; pass < 2; pass++) {
            struct line line = {block->d * (float)next.scale, block->m * (float)next.minimum};
            affine_levels(x, n, line, shape->most, tried);
            float error = grid_error(x, tried, n, line.scale, line.minimum);
            if (error < least || (candidate == middle && pass == 0)) {
                least = error;
                *choice = next;
                memcpy(level, tried, (size_t)n * sizeof *level);
            }
            next.minimum = rounded(mean_below(x, tried, n, line.scale) * im, 0, most);
        }
    }
    return least;
}

static float affine_block(const struct affine_shape *shape, const float *x, const struct line *wanted,
                          struct affine_block *out) {
    float error = 0;
    for (int g = 0; g < superblock / shape->group; g++) {
        struct affine_choice choice = {0, 0};
        error +=
            affine_group(shape, x + g * shape->group, out, wanted[g], &choice, out->level + g * shape->group);
        out->scale[g] = choice.scale;
        out->minimum[g] = choice.minimum;
    }
    return error;
}

/* d and m by least squares, in f64: over 256 numbers the two are nearly dependent. */
static bool affine_refit(const struct affine_shape *shape, const float *x, const struct affine_block *from,
                         struct affine_block *to) {
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = 0; i < superblock; i++) {
        double a = (double)from->scale[i / shape->group] * (double)from->level[i];
        double b = (double)from->minimum[i / shape->group], at = (double)x[i];
        aa += a * a;
        ab += a * b;
        bb += b * b;
        xa += at * a;
        xb += at * b;
    }
    double determinant = aa * bb - ab * ab;
    if (!(determinant > 0)) return false;
    to->d = scale_as_f16((float)((xa * bb - xb * ab) / determinant));
    to->m = scale_as_f16((float)((xa * ab - xb * aa) / determinant));
    return to->d > 0 && to->m > 0 && (to->d != from->d || to->m != from->m);
}

void quantise_affine(const struct affine_shape *shape, const float *x, struct affine_block *out) {
    struct line wanted[most_groups];
    float scale = 0, minimum = 0;
    for (int g = 0; g < superblock / shape->group; g++) {
        wanted[g] = fit_affine(x + g * shape->group, shape->group, shape->most);
        if (wanted[g].scale > scale) scale = wanted[g].scale;
        if (wanted[g].minimum > minimum) minimum = wanted[g].minimum;
    }
    out->d = scale_as_f16(scale / (float)shape->scale_most);
    out->m = scale_as_f16(minimum / (float)shape->scale_most);
    float least = affine_block(shape, x, wanted, out);
    for (int i = 0; i < refinements; i++) {
        struct affine_block again;
        if (!affine_refit(shape, x, out, &again)) break;
        float error = affine_block(shape, x, wanted, &again);
        if (!(error < least)) break;
        least = error;
        *out = again;
    }
}
