/* Charts as SVG: what they show comes as numbers, how they look is decided here and in the page's style sheet
 * (report_page.c), which knows the class names. Nothing is interactive; no text of strangers passes here. */
#ifndef HONE_JOB_REPORT_CHART_H
#define HONE_JOB_REPORT_CHART_H

#include <stdint.h>

#include "base/buf.h"

enum { chart_most_series = 4, chart_most_layers = 8 };

struct chart_series {
    const char *name;
    int color;           /* of the style sheet's, from 0 */
    const double *x, *y; /* [count], x ascending; a y that is not finite is a gap */
    size_t count;
    bool marks; /* every point is marked: there are few */
};

struct chart {
    const char *title;             /* also what a screen reader says */
    const char *x_label, *y_label; /* with units */
    struct chart_series series[chart_most_series];
    int count;
    bool from_zero; /* y begins at 0 */
};

/* Lines. A series of more points than the chart is wide is drawn as the mean of each column, and a band from
 * its least to its largest. A y range of more than two powers of ten above 0 is drawn by its logarithm. */
void chart_lines(struct buf *out, const struct chart *chart);

struct chart_layer {
    const char *name;
    int color;
    const double *y; /* [count]; NULL: `level` everywhere */
    double level;
};
struct chart_stack {
    const char *title, *x_label, *y_label;
    const double *x; /* [count], ascending */
    size_t count;
    struct chart_layer layers[chart_most_layers]; /* from below */
    int layer_count;
    struct {
        const char *name;
        double x;
    } phases[4]; /* where each begins */
    int phase_count;
    struct {
        const char *name;
        double y;
    } levels[2]; /* dashed lines; y <= 0: left out */
};
void chart_stacked(struct buf *out, const struct chart_stack *chart);

/* Bars from left to right, one below the other, each a sum of parts. */
struct chart_bar {
    const char *name;
    struct chart_layer parts[chart_most_layers]; /* level */
    int part_count;
};
void chart_bars(struct buf *out, const char *title, const char *x_label, const struct chart_bar *bars,
                int count);

#endif
