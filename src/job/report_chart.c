#include "job/report_chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The drawing in its own units; the page scales it to the width that it has. */
enum {
    width = 640,
    height = 300,
    left = 78,
    right = 26,
    top = 40, /* room for the legend */
    bottom = 46,
    phase_room = 32,    /* at the top of a stack: the names of its phases, and that of a level below them */
    most_columns = 400, /* of a series that is too long to draw point by point */
    bar_height = 26,
    bar_left = 92,
};

/* One direction: numbers from `low` to `high` onto `from` to `to`. */
struct scale {
    double low, high, from, to, step;
    bool log;
};

static double place(const struct scale *s, double value) {
    double low = s->low, high = s->high;
    if (s->log) {
        low = log10(low);
        high = log10(high);
        value = log10(value);
    }
    return s->from + (value - low) / (high - low) * (s->to - s->from);
}

/* 1, 2 or 5 times a power of ten, so that some `wanted` of them span the range. */
static double nice_step(double range, int wanted) {
    double rough = range / wanted, power = pow(10, floor(log10(rough))), rest = rough / power;
    return power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
}

static struct scale scale_open(double low, double high, double from, double to, int ticks, bool whole) {
    if (!(high > low)) { /* one value, or none */
        double margin = fabs(low) > 0 ? fabs(low) * 0.1 : 1;
        high = low + margin;
        low -= margin;
    }
    struct scale s = {.low = low, .high = high, .from = from, .to = to};
    s.step = nice_step(high - low, ticks);
    if (whole && s.step < 1) s.step = 1;
    return s;
}

/* Widens the range to whole ticks. */
static void round_out(struct scale *s) {
    s->low = floor(s->low / s->step) * s->step;
    s->high = ceil(s->high / s->step) * s->step;
}

static void make_log(struct scale *s) {
    s->log = true;
    s->low = pow(10, floor(log10(s->low)));
    s->high = pow(10, ceil(log10(s->high)));
    if (!(s->high > s->low)) s->high = s->low * 10;
}

/* ---- frame ---- */

static void open_svg(struct buf *out, const char *title, int tall) {
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", width, tall, title);
}

static void text(struct buf *out, const char *class, double x, double y, const char *anchor,
                 const char *words) {
    buf_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", class, x, y,
               anchor, words);
}

static void line(struct buf *out, const char *class, double x1, double y1, double x2, double y2) {
    buf_printf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1,
               x2, y2);
}

static void tick_text(double value, char out[32]) {
    if (fabs(value) >= 1e7 || (fabs(value) > 0 && fabs(value) < 1e-3))
        snprintf(out, 32, "%.2g", value);
    else
        snprintf(out, 32, "%.7g", value);
}

static void y_tick(struct buf *out, const struct scale *y, double value) {
    char words[32];
    double at = place(y, value);
    tick_text(value, words);
    line(out, "grid", left, at, width - right, at);
    text(out, "tick", left - 8, at + 4, "end", words);
}

static void y_axis(struct buf *out, const struct scale *y, const char *label) {
    if (y->log) {
        for (double v = y->low; v <= y->high * 1.0001; v *= 10) y_tick(out, y, v);
    } else {
        int count = (int)((y->high - y->low) / y->step + 0.5);
        for (int i = 0; i <= count; i++) {
            double value = y->low + i * y->step;
            y_tick(out, y, fabs(value) < y->step * 1e-6 ? 0 : value);
        }
    }
    buf_printf(out,
               "<text class=\"label\" x=\"14\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 14 "
               "%d)\">%s</text>\n",
               (top + height - bottom) / 2, (top + height - bottom) / 2, label);
}

static void x_axis(struct buf *out, const struct scale *x, int base, const char *label) {
    char words[32];
    line(out, "axis", x->from, base, x->to, base);
    for (double v = ceil(x->low / x->step - 1e-9) * x->step; v <= x->high + x->step * 1e-6; v += x->step) {
        double at = place(x, v);
        tick_text(fabs(v) < x->step * 1e-6 ? 0 : v, words);
        line(out, "axis", at, base, at, base + 4);
        text(out, "tick", at, base + 18, "middle", words);
    }
    text(out, "label", (x->from + x->to) / 2, base + 38, "middle", label);
}

/* Names beside their colours; *at moves on. */
static void legend(struct buf *out, double *at, int color, const char *name) {
    buf_printf(out, "<rect class=\"c%d\" x=\"%.1f\" y=\"12\" width=\"11\" height=\"11\" rx=\"2\"/>\n", color,
               *at);
    text(out, "legend", *at + 16, 22, "start", name);
    *at += 16 + 5.9 * (double)strlen(name) + 10;
}

/* ---- lines ---- */

/* What one column of a long series holds. */
struct column {
    double x, least, most, mean;
};

/* The points of [first, end): one for each, or their extremes; false where none is finite. */
static bool gather(const struct chart_series *s, size_t first, size_t end, struct column *out) {
    size_t count = 0;
    *out = (struct column){.x = (s->x[first] + s->x[end - 1]) / 2, .least = INFINITY, .most = -INFINITY};
    for (size_t i = first; i < end; i++) {
        if (!isfinite(s->y[i])) continue;
        out->least = fmin(out->least, s->y[i]);
        out->most = fmax(out->most, s->y[i]);
        out->mean += (s->y[i] - out->mean) / (double)++count;
    }
    return count > 0;
}

static size_t column_count(const struct chart_series *s) {
    return s->count < most_columns ? s->count : most_columns;
}

static bool column_at(const struct chart_series *s, size_t c, struct column *out) {
    size_t columns = column_count(s);
    return gather(s, s->count * c / columns, s->count * (c + 1) / columns, out);
}

static void draw_band(struct buf *out, const struct chart_series *s, const struct scale *x,
                      const struct scale *y) {
    struct column column;
    size_t columns = column_count(s);
    buf_printf(out, "<path class=\"band b%d\" d=\"", s->color);
    char move = 'M';
    for (size_t c = 0; c < columns; c++)
        if (column_at(s, c, &column)) {
            buf_printf(out, "%c%.1f %.1f", move, place(x, column.x), place(y, column.most));
            move = 'L';
        }
    for (size_t c = columns; c-- > 0;)
        if (column_at(s, c, &column))
            buf_printf(out, "L%.1f %.1f", place(x, column.x), place(y, column.least));
    buf_text(out, "Z\"/>\n");
}

static void draw_series(struct buf *out, const struct chart_series *s, const struct scale *x,
                        const struct scale *y) {
    struct column column;
    size_t columns = column_count(s);
    if (columns < s->count) draw_band(out, s, x, y);
    buf_printf(out, "<path class=\"line l%d\" d=\"M", s->color);
    bool gap = false, begun = false;
    for (size_t c = 0; c < columns; c++) {
        if (!column_at(s, c, &column)) {
            gap = true;
            continue;
        }
        buf_printf(out, "%s%.1f %.1f",
                   !begun ? ""
                   : gap  ? "M"
                          : "L",
                   place(x, column.x), place(y, column.mean));
        begun = true;
        gap = false;
    }
    buf_text(out, begun ? "\"/>\n" : "0 0\"/>\n");
    for (size_t c = 0; (s->marks || s->count == 1) && c < columns; c++)
        if (column_at(s, c, &column))
            buf_printf(out, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", s->color,
                       place(x, column.x), place(y, column.mean));
}

/* The range of all series; false where nothing can be drawn. */
static bool ranges(const struct chart *chart, struct scale *x, struct scale *y) {
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
    for (int s = 0; s < chart->count; s++)
        for (size_t i = 0; i < chart->series[s].count; i++) {
            double at = chart->series[s].x[i], value = chart->series[s].y[i];
            if (!isfinite(value)) continue;
            low = fmin(low, value);
            high = fmax(high, value);
            first = fmin(first, at);
            last = fmax(last, at);
        }
    if (!(high >= low)) return false;
    bool by_log = !chart->from_zero && low > 0 && high / low > 100;
    if (chart->from_zero) low = fmin(low, 0);
    *x = scale_open(first, last, left, width - right, 8, true);
    *y = scale_open(low, high, height - bottom, top, 5, false);
    if (by_log)
        make_log(y);
    else
        round_out(y);
    return true;
}

void chart_lines(struct buf *out, const struct chart *chart) {
    struct scale x, y;
    double at = left;
    if (!ranges(chart, &x, &y)) {
        buf_text(out, "<p class=\"nothing\">Nothing was measured yet.</p>\n");
        return;
    }
    open_svg(out, chart->title, height);
    y_axis(out, &y, chart->y_label);
    x_axis(out, &x, height - bottom, chart->x_label);
    for (int s = 0; s < chart->count; s++) {
        if (!chart->series[s].count) continue;
        draw_series(out, &chart->series[s], &x, &y);
        if (chart->count > 1) legend(out, &at, chart->series[s].color, chart->series[s].name);
    }
    buf_text(out, "</svg>\n");
}

/* ---- stacks ---- */

static double layer_at(const struct chart_layer *layer, size_t i) {
    return layer->y ? layer->y[i] : layer->level;
}

/* Sum of the layers below `upto`. */
static double sum_at(const struct chart_stack *chart, int upto, size_t i) {
    double sum = 0;
    for (int l = 0; l < upto; l++) sum += layer_at(&chart->layers[l], i);
    return sum;
}

static void draw_layer(struct buf *out, const struct chart_stack *chart, int layer, const struct scale *x,
                       const struct scale *y) {
    buf_printf(out, "<path class=\"area c%d\" d=\"", chart->layers[layer].color);
    for (size_t i = 0; i < chart->count; i++)
        buf_printf(out, "%c%.1f %.1f", i ? 'L' : 'M', place(x, chart->x[i]),
                   place(y, sum_at(chart, layer + 1, i)));
    for (size_t i = chart->count; i-- > 0;)
        buf_printf(out, "L%.1f %.1f", place(x, chart->x[i]), place(y, sum_at(chart, layer, i)));
    buf_text(out, "Z\"/>\n");
}

static void draw_levels(struct buf *out, const struct chart_stack *chart, const struct scale *y) {
    static const char *const classes[] = {"level", "level second"};
    for (int l = 0; l < 2; l++) {
        if (!(chart->levels[l].y > 0)) continue;
        double at = place(y, chart->levels[l].y);
        line(out, classes[l], left, at, width - right, at);
        text(out, "level", l ? left + 6 : width - right - 4, l ? at + 14 : at - 5, l ? "start" : "end",
             chart->levels[l].name);
    }
}

void chart_stacked(struct buf *out, const struct chart_stack *chart) {
    const double plot = height - bottom - top;
    double high = 0, at = left;
    for (size_t i = 0; i < chart->count; i++) high = fmax(high, sum_at(chart, chart->layer_count, i));
    for (int l = 0; l < 2; l++) high = fmax(high, chart->levels[l].y * plot / (plot - phase_room));
    if (!chart->count || !(high > 0)) {
        buf_text(out, "<p class=\"nothing\">The plan does not tell.</p>\n");
        return;
    }
    struct scale x = scale_open(chart->x[0], chart->x[chart->count - 1], left, width - right, 8, true),
                 y = scale_open(0, high, height - bottom, top, 5, false);
    round_out(&y);
    open_svg(out, chart->title, height);
    y_axis(out, &y, chart->y_label);
    for (int l = 0; l < chart->layer_count; l++) draw_layer(out, chart, l, &x, &y);
    x_axis(out, &x, height - bottom, chart->x_label);
    for (int p = 0; p < chart->phase_count; p++) {
        double begin = place(&x, chart->phases[p].x);
        if (p) line(out, "phase", begin, top, begin, height - bottom);
        bool narrow = begin > width - right - 60; /* a name would leave the drawing */
        text(out, "phase", narrow ? begin - 5 : begin + 5, top + 12, narrow ? "end" : "start",
             chart->phases[p].name);
    }
    draw_levels(out, chart, &y);
    for (int l = 0; l < chart->layer_count; l++)
        if (chart->layers[l].y || chart->layers[l].level > 0)
            legend(out, &at, chart->layers[l].color, chart->layers[l].name);
    buf_text(out, "</svg>\n");
}

/* ---- bars ---- */

void chart_bars(struct buf *out, const char *title, const char *x_label, const struct chart_bar *bars,
                int count) {
    double high = 0, at = left;
    int tall = top + count * (bar_height + 14) + bottom;
    for (int b = 0; b < count; b++) {
        double sum = 0;
        for (int p = 0; p < bars[b].part_count; p++) sum += bars[b].parts[p].level;
        high = fmax(high, sum);
    }
    struct scale x = scale_open(0, high > 0 ? high : 1, bar_left, width - right, 8, false);
    round_out(&x);
    open_svg(out, title, tall);
    for (int b = 0; b < count; b++) {
        double sum = 0, y = top + b * (bar_height + 14);
        text(out, "name", bar_left - 8, y + bar_height / 2.0 + 4, "end", bars[b].name);
        for (int p = 0; p < bars[b].part_count; p++) {
            const struct chart_layer *part = &bars[b].parts[p];
            buf_printf(out,
                       "<rect class=\"c%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"><title>%s: "
                       "%.1f</title></rect>\n",
                       part->color, place(&x, sum), y, place(&x, sum + part->level) - place(&x, sum),
                       bar_height, part->name, part->level);
            sum += part->level;
        }
    }
    x_axis(out, &x, tall - bottom, x_label);
    for (int p = 0; count && p < bars[0].part_count; p++)
        if (bars[0].parts[p].level > 0) legend(out, &at, bars[0].parts[p].color, bars[0].parts[p].name);
    buf_text(out, "</svg>\n");
}
