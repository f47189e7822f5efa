/* Where charts draw what: the plot of lines and stacks reaches from (78, 254) to (614, 40), that of bars from
 * 92 to 614 (report_chart.c). Expected places are worked out by hand beside each case. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job/report_chart.h"

enum { most = 8 };

static void must_hold(const char *what, const struct buf *svg, const char *part) {
    if (!strstr(svg->data, part)) fail_msg("%s: there is no %s in\n%s", what, part, svg->data);
}

static int count_of(const struct buf *svg, const char *part) {
    int count = 0;
    for (const char *at = svg->data; (at = strstr(at, part)); at += strlen(part)) count++;
    return count;
}

/* The words of all ticks in their order: those of the y axis, then those of the x axis. */
static void ticks_of(const struct buf *svg, char *out, size_t size) {
    static const char mark[] = "<text class=\"tick\"";
    size_t used = 0;
    out[0] = '\0';
    for (const char *at = svg->data; (at = strstr(at, mark)); at += strlen(mark)) {
        const char *begin = strchr(at, '>') + 1;
        int length = (int)strcspn(begin, "<");
        used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? " " : "", length, begin);
        assert_true(used < size);
    }
}

struct lines {
    const char *what;
    double x[most], y[most];
    size_t count;
    bool from_zero;
    const char *ticks, *path; /* path: NULL: not looked at */
};

static const struct lines line_cases[] = {
    /* y = 254 - 21.4 v: 2 is 211.2; x = 78 + 134 (v - 1) */
    {"a line from zero",
     {1, 2, 3, 4, 5},
     {2, 4, 6, 8, 10},
     5,
     true,
     "0 2 4 6 8 10 1 2 3 4 5",
     "d=\"M78.0 211.2L212.0 168.4L346.0 125.6L480.0 82.8L614.0 40.0\""},
    /* the range 2.3 to 4.7 in steps of 0.5 is rounded out to 2 to 5 */
    /* in binary, 0.24 - 0.14 is a little less than five steps of 0.02 */
    {"the last tick", {1, 2}, {0.14, 0.24}, 2, false, "0.14 0.16 0.18 0.2 0.22 0.24 1 2", NULL},
    {"a range within its ticks",
     {1, 2},
     {2.3, 4.7},
     2,
     false,
     "2 2.5 3 3.5 4 4.5 5 1 2",
     "d=\"M78.0 232.6L614.0 61.4\""},
    /* steps of 2 begin at the first even one, of 1 even where a half would do */
    {"ticks begin inside", {3, 17}, {1, 2}, 2, true, "0 0.5 1 1.5 2 4 6 8 10 12 14 16", NULL},
    {"steps are whole", {7, 8}, {1, 2}, 2, true, "0 0.5 1 1.5 2 7 8", NULL},
    /* two powers of ten are even; 0.02 to 3, which is more, becomes 0.01 to 10, 71.33 each by its logarithm
     */
    {"a wide range", {1, 2}, {0.1, 10}, 2, false, "0 2 4 6 8 10 1 2", "d=\"M78.0 251.9L614.0 40.0\""},
    {"a wider one",
     {1, 2, 3},
     {0.02, 0.1, 3},
     3,
     false,
     "0.01 0.1 1 10 1 2 3",
     "d=\"M78.0 232.5L346.0 182.7L614.0 77.3\""},
    {"what is not finite is a gap",
     {1, 2, 3, 4, 5},
     {NAN, 2, NAN, 8, 10},
     5,
     true,
     "0 2 4 6 8 10 2 3 4 5",
     "d=\"M78.0 211.2M435.3 82.8L614.0 40.0\""},
    /* one value: a tenth of it on both sides */
    {"a level line",
     {1, 2},
     {5, 5},
     2,
     false,
     "4.4 4.6 4.8 5 5.2 5.4 5.6 1 2",
     "d=\"M78.0 147.0L614.0 147.0\""},
};

static void draw(struct buf *out, const struct lines *c) {
    struct chart chart = {.title = "t",
                          .x_label = "x",
                          .y_label = "y",
                          .series = {{.name = "s", .x = c->x, .y = c->y, .count = c->count}},
                          .count = 1,
                          .from_zero = c->from_zero};
    chart_lines(out, &chart);
    assert_false(out->failed);
}

static void lines_and_ticks_lie_where_their_numbers_are(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof line_cases / sizeof *line_cases; i++) {
        struct buf svg = {0};
        char ticks[200];
        draw(&svg, &line_cases[i]);
        ticks_of(&svg, ticks, sizeof ticks);
        if (strcmp(ticks, line_cases[i].ticks))
            fail_msg("%s: ticks are \"%s\", not \"%s\"", line_cases[i].what, ticks, line_cases[i].ticks);
        if (line_cases[i].path) must_hold(line_cases[i].what, &svg, line_cases[i].path);
        buf_release(&svg);
    }
}

static void one_point_is_a_circle(void **state) {
    (void)state;
    struct buf svg = {0};
    draw(&svg, &(struct lines){.x = {1}, .y = {5}, .count = 1, .from_zero = true});
    must_hold("one point", &svg, "<circle class=\"c0\" cx=\"346.0\" cy=\"40.0\"");
    buf_release(&svg);
}

static void nothing_finite_is_said(void **state) {
    (void)state;
    struct buf svg = {0};
    draw(&svg, &(struct lines){.x = {1}, .y = {NAN}, .count = 1});
    must_hold("nothing", &svg, "Nothing was measured yet.");
    buf_release(&svg);
}

/* 800 points, 0 and 10 in turn: each of 400 columns has a mean of 5 and reaches from 0 to 10. */
static void a_long_series_is_its_means_and_extremes(void **state) {
    (void)state;
    enum { points = 800 };
    double x[points], y[points];
    struct buf svg = {0};
    for (int i = 0; i < points; i++) {
        x[i] = i;
        y[i] = i % 2 ? 10 : 0;
    }
    struct chart chart = {.title = "t",
                          .x_label = "x",
                          .y_label = "y",
                          .series = {{.name = "s", .x = x, .y = y, .count = points}},
                          .count = 1,
                          .from_zero = true};
    chart_lines(&svg, &chart);
    must_hold("the band", &svg, "<path class=\"band b0\" d=\"M78.3 40.0L79.7 40.0L");
    must_hold("the band's end", &svg, "L79.7 254.0L78.3 254.0Z\"");
    must_hold("the means", &svg, "<path class=\"line l0\" d=\"M78.3 147.0L79.7 147.0L");
    assert_int_equal(count_of(&svg, "L"), 3 * 400 - 2);
    buf_release(&svg);
}

/* 10 everywhere, and 5 to 15 on it: up to 25; y = 254 - 8.56 v. */
static void layers_stand_on_one_another(void **state) {
    (void)state;
    const double x[2] = {0, 10}, y[2] = {5, 15};
    struct buf svg = {0};
    char ticks[100];
    struct chart_stack chart = {.title = "t",
                                .x_label = "x",
                                .y_label = "y",
                                .x = x,
                                .count = 2,
                                .layers = {{.name = "a", .level = 10}, {.name = "b", .color = 1, .y = y}},
                                .layer_count = 2,
                                .phases = {{"first", 0}, {"second", 4}},
                                .phase_count = 2};
    chart_stacked(&svg, &chart);
    ticks_of(&svg, ticks, sizeof ticks);
    assert_string_equal(ticks, "0 5 10 15 20 25 0 2 4 6 8 10");
    must_hold("the lower", &svg, "class=\"area c0\" d=\"M78.0 168.4L614.0 168.4L614.0 254.0L78.0 254.0Z\"");
    must_hold("the upper", &svg, "class=\"area c1\" d=\"M78.0 125.6L614.0 40.0L614.0 168.4L78.0 168.4Z\"");
    must_hold("the second phase", &svg, "<line class=\"phase\" x1=\"292.4\" y1=\"40.0\" x2=\"292.4\"");
    assert_int_equal(count_of(&svg, "<line class=\"phase\""), 1);
    buf_release(&svg);
}

/* A level of 25 alone would lie at the top, on the names of the phases: the axis goes on to 30. */
static void a_level_leaves_room_for_the_names_of_phases(void **state) {
    (void)state;
    const double x[2] = {0, 10};
    struct buf svg = {0};
    struct chart_stack chart = {.title = "t",
                                .x_label = "x",
                                .y_label = "y",
                                .x = x,
                                .count = 2,
                                .layers = {{.name = "a", .level = 10}},
                                .layer_count = 1,
                                .levels = {{"planned", 25}, {"none", 0}}};
    chart_stacked(&svg, &chart);
    must_hold("the level", &svg, "<line class=\"level\" x1=\"78.0\" y1=\"75.7\" x2=\"614.0\" y2=\"75.7\"/>");
    assert_int_equal(count_of(&svg, "<line class=\"level"), 1);
    buf_release(&svg);
}

/* 10 and 30 of 40, and 20: 13.05 for one. */
static void parts_of_a_bar_follow_one_another(void **state) {
    (void)state;
    const struct chart_bar bars[2] = {
        {.name = "one",
         .parts = {{.name = "a", .level = 10}, {.name = "b", .color = 1, .level = 30}},
         .part_count = 2},
        {.name = "two", .parts = {{.name = "a", .level = 20}}, .part_count = 1}};
    struct buf svg = {0};
    char ticks[100];
    chart_bars(&svg, "t", "x", bars, 2);
    ticks_of(&svg, ticks, sizeof ticks);
    assert_string_equal(ticks, "0 5 10 15 20 25 30 35 40");
    must_hold("the first part", &svg, "<rect class=\"c0\" x=\"92.0\" y=\"40.0\" width=\"130.5\"");
    must_hold("the second", &svg, "<rect class=\"c1\" x=\"222.5\" y=\"40.0\" width=\"391.5\"");
    must_hold("the other bar", &svg, "<rect class=\"c0\" x=\"92.0\" y=\"80.0\" width=\"261.0\"");
    buf_release(&svg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_ticks_lie_where_their_numbers_are),
        cmocka_unit_test(one_point_is_a_circle),
        cmocka_unit_test(nothing_finite_is_said),
        cmocka_unit_test(a_long_series_is_its_means_and_extremes),
        cmocka_unit_test(layers_stand_on_one_another),
        cmocka_unit_test(a_level_leaves_room_for_the_names_of_phases),
        cmocka_unit_test(parts_of_a_bar_follow_one_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
