#include "train/schedule.h"

#include <math.h>

static double constant(double fraction) {
    (void)fraction;
    return 1;
}
static double linear(double fraction) { return 1 - fraction; }
static double cosine(double fraction) { return 0.5 * (1 + cos(M_PI * fraction)); }

static double (*const shapes[])(double fraction) = {
    [SCHEDULE_CONSTANT] = constant, [SCHEDULE_LINEAR] = linear, [SCHEDULE_COSINE] = cosine};

double schedule_rate(enum schedule schedule, double peak, double warmup, int64_t step, int64_t total) {
    int64_t rising = (int64_t)ceil(warmup * (double)total - 1e-9);
    if (step <= rising) return peak * (double)step / (double)rising;
    int64_t falling = total - rising;
    return peak * shapes[schedule](falling > 0 ? (double)(step - 1 - rising) / (double)falling : 0);
}
