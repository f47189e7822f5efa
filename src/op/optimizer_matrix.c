/* Updates that see a matrix as a matrix.
 *
 * Adafactor (Shazeer and Stern 2018, algorithms 4 and 5) as transformers.Adafactor computes it without
 * relative steps: of a matrix's second moments only the means of rows r and of columns c are kept. β = 1 -
 * t^-decay_rate;   r = β r + (1-β) mean of a row of (g² + ε1);   c likewise of a column u = g / √(r / mean r)
 * / √c;   for vectors: v = β v + (1-β)(g² + ε1), u = g / √v u /= max(1, rms(u) / clip);   with `scale`: lr =
 * lr · max(ε2, rms(p)) p -= lr · decay · p + lr · u,   ε1 = 1e-30, ε2 = 1e-3 */
#include <math.h>

#include "op/op.h"

int64_t optimizer_factors(const struct op_part *part) {
    return part->columns == 1 ? op_padded(part->rows) : op_padded(part->rows) + op_padded(part->columns);
}

/* Moves the factors of one part by its squares. */
static void factors(const struct op_part *part, const double *g, double clip, double beta, double *state) {
    double *column = state + op_padded(part->rows);
    for (int64_t r = 0; r < part->rows; r++) state[r] *= beta;
    for (int64_t c = 0; part->columns > 1 && c < part->columns; c++) column[c] *= beta;
    for (int64_t r = 0; r < part->rows; r++)
        for (int64_t c = 0; c < part->columns; c++) {
            double x = g[r * part->columns + c] * clip, square = (1 - beta) * (x * x + 1e-30);
            state[r] += square / (double)part->columns;
            if (part->columns > 1) column[c] += square / (double)part->rows;
        }
}

static double root_mean_square(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

static void adafactor_part(const struct op_part *part, const double *hyper, double norm, double step,
                           double *p, const double *g, double *state) {
    int64_t n = part->rows * part->columns;
    double clip = hyper[HYPER_MAX_NORM] > 0 ? fmin(1, hyper[HYPER_MAX_NORM] / (norm + 1e-6)) : 1;
    double mean = 0, squares = 0, rate = hyper[HYPER_RATE];
    const double *column = state + op_padded(part->rows);
    factors(part, g, clip, 1 - pow(step, -hyper[HYPER_DECAY_RATE]), state);
    for (int64_t r = 0; r < part->rows; r++) mean += state[r] / (double)part->rows;
    for (int pass = 0; pass < 2; pass++) { /* first the size of the update, then the update */
        double most = fmax(1, sqrt(squares / (double)n) / hyper[HYPER_CLIP]);
        if (pass && hyper[HYPER_SCALE] > 0) rate *= fmax(1e-3, root_mean_square(p, n));
        for (int64_t i = 0; i < n; i++) {
            int64_t r = i / part->columns, c = i % part->columns;
            double v = part->columns == 1 ? state[r] : state[r] / mean * column[c];
            double u = g[i] * clip / sqrt(v);
            if (pass)
                p[i] -= rate * hyper[HYPER_DECAY] * p[i] + rate * u / most;
            else
                squares += u * u;
        }
    }
}

static void adafactor_reference(const struct reference_call *call) {
    const struct op_parts *parts = call->attributes->parts;
    double norm = call->in[0].data[0];
    if (!isfinite(norm)) return;
    double step = call->in[2].data[0] += 1;
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        adafactor_part(part, call->in[1].data + part->group * HYPER_COLUMNS, norm, step,
                       call->in[3].data + part->offset, call->in[4].data + part->offset,
                       call->in[5].data + part->slot[0]);
    }
}

const struct op_row op_adafactor_row = {
    .name = "adafactor",
    .inputs = 6,
    .outputs = 0,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5,
    .overwrite = {-1, -1, -1, -1},
    .reference = adafactor_reference,
};
