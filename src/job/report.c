/* `hone report`: a run on one page. Reads what the run has written (events.jsonl, recipe.yaml), whether it is
 * done, running or broken, and draws it; the page needs nothing but itself. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "job/job.h"
#include "job/place.h"
#include "job/report_chart.h"
#include "job/report_page.h"
#include "train/run_log.h"

static const double mebibyte = 1 << 20;

/* Classes of the plan, from below as they are stacked. */
static const struct {
    const char *key, *name;
    int color;
} classes[] = {
    {"process_bytes", "process", 6},        {"context_bytes", "driver and libraries", 6},
    {"weights_bytes", "weights", 0},        {"adapter_bytes", "adapter", 4},
    {"gradient_bytes", "gradients", 1},     {"optimizer_bytes", "optimizer", 2},
    {"activation_bytes", "activations", 3}, {"workspace_bytes", "workspace", 5},
};
enum { class_count = sizeof classes / sizeof *classes, constant_classes = 6 };

/* A file of a stranger may hold any number: what no run has, and what would not fit an axis, is none. */
static double limited(double value) {
    double size = fabs(value);
    return size < 1e-30 ? 0 : size > 1e15 ? NAN : value;
}

static double number(const json_t *object, const char *key) {
    double value = limited(json_number_value(json_object_get(object, key)));
    return isfinite(value) ? value : 0;
}

static uint64_t whole_bytes(double value) { return value >= 1 && value <= 1e15 ? (uint64_t)value : 0; }

static void utc(double seconds, char out[32]) {
    struct tm parts;
    time_t whole = fabs(seconds) < 1e11 ? (time_t)seconds : 0;
    if (!whole || !gmtime_r(&whole, &parts) || !strftime(out, 32, "%Y-%m-%d %H:%M UTC", &parts))
        snprintf(out, 32, "?");
}

static void duration(double seconds, char out[32]) {
    long whole = seconds > 0 && seconds < 1e9 ? (long)(seconds + 0.5) : 0;
    if (whole >= 3600)
        snprintf(out, 32, "%ld h %02ld min", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(out, 32, "%ld min %02ld s", whole / 60, whole % 60);
    else if (whole < 10)
        snprintf(out, 32, "%.1f s", seconds > 0 ? seconds : 0);
    else
        snprintf(out, 32, "%ld s", whole);
}

/* A number of tokens, without an exponent. */
static const char *tokens_text(double count, char out[32]) {
    if (count < 999.5e3)
        snprintf(out, 32, "%.0f", count);
    else if (count < 999.5e6)
        snprintf(out, 32, "%.3g million", count * 1e-6);
    else
        snprintf(out, 32, "%.4g billion", count * 1e-9);
    return out;
}

/* ---- curves ---- */

/* The columns of the steps, as charts take them. */
struct curves {
    double *step, *loss, *rate, *norm, *speed, *eval_step, *eval_loss;
};

static bool curves_open(struct curves *out, const struct run_log *log, struct error *err) {
    double **columns[] = {&out->step, &out->loss, &out->rate, &out->norm, &out->speed};
    memset(out, 0, sizeof *out);
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
        if (!(*columns[c] = mem_array(log->step_count + 1, sizeof(double))))
            return error_no_memory(err, "report", log->step_count * sizeof(double));
    out->eval_step = mem_array(log->eval_count + 1, sizeof(double));
    out->eval_loss = mem_array(log->eval_count + 1, sizeof(double));
    if (!out->eval_step || !out->eval_loss) return error_no_memory(err, "report", log->eval_count);
    for (size_t i = 0; i < log->step_count; i++) {
        const struct run_log_step *s = &log->steps[i];
        out->step[i] = (double)s->step;
        out->loss[i] = limited(s->loss);
        out->rate[i] = limited(s->learning_rate);
        out->norm[i] = s->gradient_norm >= 0 ? limited(s->gradient_norm) : NAN; /* -1: not finite */
        out->speed[i] = limited(s->tokens_per_second);
    }
    for (size_t i = 0; i < log->eval_count; i++) {
        out->eval_step[i] = (double)log->evals[i].step;
        out->eval_loss[i] = limited(log->evals[i].loss);
    }
    return true;
}

static void curves_close(struct curves *curves) {
    double *columns[] = {curves->step,  curves->loss,      curves->rate,     curves->norm,
                         curves->speed, curves->eval_step, curves->eval_loss};
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) mem_free(columns[c]);
}

static void draw_curves(struct buf *out, const struct run_log *log, const struct curves *c) {
    size_t n = log->step_count;
    const struct chart charts[] = {
        {.title = "Loss",
         .x_label = "step",
         .y_label = "loss, nats a token",
         .series = {{"training", 0, c->step, c->loss, n, false},
                    {"held out", 1, c->eval_step, c->eval_loss, log->eval_count, true}},
         .count = 2},
        {.title = "Learning rate",
         .x_label = "step",
         .y_label = "learning rate",
         .series = {{"learning rate", 3, c->step, c->rate, n, false}},
         .count = 1,
         .from_zero = true},
        {.title = "Gradient norm, before the clip",
         .x_label = "step",
         .y_label = "norm",
         .series = {{"gradient norm", 4, c->step, c->norm, n, false}},
         .count = 1},
        {.title = "Speed",
         .x_label = "step",
         .y_label = "tokens a second",
         .series = {{"tokens a second", 2, c->step, c->speed, n, false}},
         .count = 1,
         .from_zero = true},
    };
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        page_box_open(out, charts[i].title, false);
        chart_lines(out, &charts[i]);
        page_box_close(out);
    }
}

/* ---- memory ---- */

/* A column of the plan's profile in MiB; *count is the shortest so far. NULL: out of memory. */
static double *profile_column(const json_t *profile, const char *key, double unit, size_t *count) {
    const json_t *list = json_object_get(profile, key);
    size_t size = json_array_size(list);
    if (size < *count) *count = size;
    double *column = mem_array(size + 1, sizeof *column);
    for (size_t i = 0; column && i < size; i++)
        column[i] = fmin(fmax(json_number_value(json_array_get(list, i)), 0), 1e15) / unit;
    return column;
}

static void draw_step(struct buf *out, const struct run_log *log, double *columns[3], size_t count) {
    const json_t *profile = json_object_get(log->plan, "profile");
    char planned[64], measured[64], size[32];
    snprintf(planned, sizeof planned, "planned peak %s",
             text_bytes(whole_bytes(number(log->plan, "peak_bytes")), size));
    snprintf(measured, sizeof measured, "measured %s", text_bytes(whole_bytes(log->peak_bytes), size));
    struct chart_stack chart = {.title = "Memory over one step",
                                .x_label = "operation of the step",
                                .y_label = "memory, MiB",
                                .x = columns[0],
                                .count = count,
                                .layer_count = class_count,
                                .phases = {{"forward", 0},
                                           {"backward", number(profile, "backward_from")},
                                           {"update", number(profile, "update_from")}},
                                .phase_count = 3,
                                .levels = {{planned, number(log->plan, "peak_bytes") / mebibyte},
                                           {measured, (double)whole_bytes(log->peak_bytes) / mebibyte}}};
    for (int c = 0; c < class_count; c++)
        chart.layers[c] =
            (struct chart_layer){.name = classes[c].name,
                                 .color = classes[c].color,
                                 .y = c < constant_classes ? NULL : columns[1 + c - constant_classes],
                                 .level = number(log->plan, classes[c].key) / mebibyte};
    chart_stacked(out, &chart);
}

static bool draw_profile(struct buf *out, const struct run_log *log, struct error *err) {
    static const char *const keys[] = {"position", "activation_bytes", "workspace_bytes"};
    const json_t *profile = json_object_get(log->plan, "profile");
    double *columns[3] = {NULL};
    size_t count = SIZE_MAX;
    bool ok = true;
    for (int c = 0; ok && c < 3; c++) {
        columns[c] = profile_column(profile, keys[c], c ? mebibyte : 1, &count);
        ok = columns[c] || error_no_memory(err, "report", count);
    }
    if (ok) draw_step(out, log, columns, count);
    for (int c = 0; c < 3; c++) mem_free(columns[c]);
    return ok;
}

static void draw_bars(struct buf *out, const struct run_log *log) {
    double mapped = number(log->plan, "mapped_bytes") + number(log->plan, "offloaded_bytes");
    struct chart_bar bars[4] = {
        {.name = "planned", .part_count = class_count},
        {.name = "measured",
         .parts = {{.name = "highest", .color = 7, .level = (double)whole_bytes(log->peak_bytes) / mebibyte}},
         .part_count = 1},
        {.name = "mapped files",
         .parts = {{.name = "beside it", .color = 7, .level = mapped / mebibyte}},
         .part_count = 1},
        {.name = "pages held",
         .parts = {{.name = "highest", .color = 7, .level = log->mapped_bytes / mebibyte}},
         .part_count = 1}};
    for (int c = 0; c < class_count; c++)
        bars[0].parts[c] = (struct chart_layer){.name = classes[c].name,
                                                .color = classes[c].color,
                                                .level = number(log->plan, classes[c].key) / mebibyte};
    chart_bars(out, "Peak of memory", "memory, MiB", bars, 4);
}

static bool draw_memory(struct buf *out, const struct run_log *log, struct error *err) {
    page_box_open(out, "Memory over one step", false);
    bool ok = draw_profile(out, log, err);
    page_box_close(out);
    page_box_open(out, "Peak of memory, planned and measured", false);
    draw_bars(out, log);
    page_box_close(out);
    return ok;
}

/* ---- figures and tables ---- */

static void loss_tiles(struct buf *out, const struct run_log *log) {
    char text[64] = "-", beside[64] = "";
    if (log->step_count) snprintf(text, sizeof text, "%.4f", log->steps[log->step_count - 1].loss);
    page_tile(out, "training loss", text, "of the last step");
    const struct run_log_eval *best = NULL;
    for (size_t i = 0; i < log->eval_count; i++)
        if (log->evals[i].step > 0 && !isnan(log->evals[i].loss) &&
            (!best || log->evals[i].loss < best->loss))
            best = &log->evals[i];
    snprintf(text, sizeof text, "-");
    if (log->eval_count) {
        double last = log->evals[log->eval_count - 1].loss;
        snprintf(text, sizeof text, isnan(last) ? "not finite" : "%.4f", last);
    }
    if (best) snprintf(beside, sizeof beside, "best %.4f at step %lld", best->loss, (long long)best->step);
    page_tile(out, "held-out loss", text, beside);
}

static void draw_tiles(struct buf *out, const struct run_log *log) {
    char text[64], beside[64], size[32];
    double tokens = 0, seconds = 0, steps = number(log->plan, "steps");
    for (size_t i = 0; i < log->step_count; i++) {
        tokens += log->steps[i].tokens;
        seconds += log->steps[i].seconds;
    }
    page_tiles_open(out);
    loss_tiles(out, log);
    long long last = log->step_count ? (long long)log->steps[log->step_count - 1].step : 0;
    snprintf(text, sizeof text, "%lld", last);
    snprintf(beside, sizeof beside, "of %.0f", steps);
    page_tile(out, "steps", text, beside);
    snprintf(text, sizeof text, seconds > 0 ? "%.0f" : "-", seconds > 0 ? tokens / seconds : 0);
    snprintf(beside, sizeof beside, "%s tokens in all", tokens_text(tokens, size));
    page_tile(out, "tokens a second", text, beside);
    snprintf(beside, sizeof beside, "planned %s",
             text_bytes(whole_bytes(number(log->plan, "peak_bytes")), size));
    page_tile(out, "peak of memory", log->step_count ? text_bytes(whole_bytes(log->peak_bytes), text) : "-",
              beside);
    duration(log->done ? number(log->done, "seconds") : seconds, text);
    duration(number(log->plan, "seconds"), size);
    snprintf(beside, sizeof beside, "planned %s", size);
    page_tile(out, log->done ? "time" : "time of steps", text, beside);
    page_tiles_close(out);
}

/* A field as `name value`; lists of texts one behind the other. Nothing of what is null or empty. */
static void note_field(struct buf *out, const char *name, const json_t *value) {
    const char *between = ": ";
    size_t i;
    json_t *item;
    if (json_is_null(value) || (json_is_array(value) && !json_array_size(value))) return;
    buf_text(out, out->size ? "; " : "");
    for (const char *c = name; *c; c++) buf_printf(out, "%c", *c == '_' ? ' ' : *c);
    if (json_is_string(value)) buf_printf(out, " %s", json_string_value(value));
    if (json_is_number(value)) buf_printf(out, " %.6g", json_number_value(value));
    if (json_is_boolean(value)) buf_text(out, json_is_true(value) ? " yes" : " no");
    json_array_foreach(value, i, item) {
        if (!json_is_string(item)) continue;
        buf_printf(out, "%s%s", between, json_string_value(item));
        between = ", ";
    }
}

/* What an event says in words: its message, or its fields. */
static bool note_text(json_t *event, struct buf *out, struct error *err) {
    static const char *const told[] = {"event", "version", "time", "step"};
    const char *message = json_string_value(json_object_get(event, "message")), *name;
    json_t *value;
    buf_clear(out);
    if (message) return buf_text(out, message) || error_no_memory(err, "report", 0);
    json_object_foreach(event, name, value) {
        bool shown = false;
        for (size_t i = 0; i < sizeof told / sizeof *told; i++) shown |= !strcmp(name, told[i]);
        if (!shown) note_field(out, name, value);
    }
    return !out->failed || error_no_memory(err, "report", out->size);
}

static bool draw_notes(struct buf *out, const struct run_log *log, struct error *err) {
    static const char *const heads[] = {"step", "time", "event", "what"};
    struct buf what = {0};
    bool ok = true;
    page_box_open(out, "Events", true);
    if (!log->note_count) buf_text(out, "<p class=\"nothing\">No warnings, no resumes.</p>\n");
    if (log->note_count) page_table_open(out, heads, 4);
    for (size_t i = 0; ok && i < log->note_count; i++) {
        const struct run_log_note *note = &log->notes[i];
        char step[32], time[32];
        snprintf(step, sizeof step, "%lld", (long long)note->step);
        utc(note->time, time);
        ok = note_text(note->event, &what, err);
        const char *cells[] = {step, time, json_string_value(json_object_get(note->event, "event")),
                               what.data ? what.data : ""};
        if (ok) page_row(out, cells, 4);
    }
    if (log->note_count) page_table_close(out);
    if (log->notes_left_out)
        buf_printf(out, "<p class=\"nothing\">%zu more %s left out.</p>\n", log->notes_left_out,
                   text_plural(log->notes_left_out, "is", "are"));
    page_box_close(out);
    buf_release(&what);
    return ok;
}

/* Files by their last name: a report that is handed on names no directory of this machine. */
static void setting_text(const struct setting *row, const struct recipe *recipe, struct buf *out) {
    const char *slot = (const char *)recipe + row->offset;
    buf_clear(out);
    if (row->type == SETTING_PATH) {
        buf_text(out, fs_base_name(*(char *const *)(const void *)slot));
    } else if (row->type == SETTING_LIST && row->argument && !strcmp(row->argument, "FILE")) {
        const struct text_list *list = (const struct text_list *)(const void *)slot;
        for (size_t i = 0; i < list->count; i++)
            buf_printf(out, "%s%s", i ? ", " : "", fs_base_name(list->items[i]));
    } else {
        setting_write(row, recipe, out);
    }
}

static bool draw_settings(struct buf *out, const char *directory, struct error *err) {
    static const char *const heads[] = {"setting", "value"};
    struct recipe recipe;
    struct error cause;
    struct buf text = {0};
    char *path = fs_join(directory, "recipe.yaml");
    if (!path || !recipe_init(&recipe, err)) {
        mem_free(path);
        return error_no_memory(err, "report", 0);
    }
    bool readable = recipe_read(&recipe, path, &cause), ok = readable || cause.code != ERROR_MEMORY;
    if (!ok) *err = cause;
    page_box_open(out, "Settings", true);
    if (readable) {
        buf_text(out, "<div class=\"columns\">");
        page_table_open(out, heads, 2);
        for (size_t i = 0; i < recipe_row_count; i++) {
            const struct setting *row = &recipe_rows[i];
            if (row->uses & USE_INVOKE || !setting_is_set(row, &recipe)) continue;
            setting_text(row, &recipe, &text);
            out->failed |= text.failed;
            const char *cells[] = {row->name, text.data ? text.data : ""};
            page_row(out, cells, 2);
        }
        page_table_close(out);
        buf_text(out, "</div>");
    } else {
        buf_text(out, "<p class=\"nothing\">");
        page_text(out, cause.what);
        buf_text(out, "</p>\n");
    }
    page_box_close(out);
    if (text.failed) ok = error_no_memory(err, "report", 0);
    buf_release(&text);
    recipe_release(&recipe);
    mem_free(path);
    return ok;
}

/* ---- the page ---- */

static double last_time(const struct run_log *log) {
    if (log->done) return number(log->done, "time");
    double time = number(log->plan, "time");
    if (log->step_count) time = fmax(time, log->steps[log->step_count - 1].time);
    if (log->note_count) time = fmax(time, log->notes[log->note_count - 1].time);
    return time;
}

static void state_text(const struct run_log *log, char *out, size_t size) {
    char when[32], lines[96] = "";
    utc(last_time(log), when);
    if (log->damaged)
        snprintf(lines, sizeof lines, "; %zu damaged %s of events.jsonl passed over", log->damaged,
                 text_plural(log->damaged, "line", "lines"));
    snprintf(out, size, "%s, last event %s%s%s", log->done ? "Done" : "Not finished", when,
             log->torn ? "; the last line of events.jsonl is torn" : "", lines);
}

static bool draw_page(struct buf *out, const struct run_log *log, const char *directory, struct error *err) {
    char state[256], *whole = NULL;
    struct error ignored;
    struct curves curves;
    const char *name = fs_base_name(directory);
    if ((!*name || *name == '.') && fs_absolute(directory, &whole, &ignored)) name = fs_base_name(whole);
    state_text(log, state, sizeof state);
    page_open(out, name, state);
    mem_free(whole);
    draw_tiles(out, log);
    page_grid_open(out);
    bool ok = curves_open(&curves, log, err);
    if (ok) draw_curves(out, log, &curves);
    curves_close(&curves);
    ok = ok && draw_memory(out, log, err) && draw_notes(out, log, err) && draw_settings(out, directory, err);
    page_grid_close(out);
    page_close(out, "Made by hone " HONE_VERSION ".");
    return ok && (!out->failed || error_no_memory(err, "report", out->size));
}

bool job_report(struct job *job, struct error *err) {
    const char *directory = job->options.run, *output = job->options.report;
    struct run_log log;
    struct buf page = {0};
    if (!directory) {
        error_set(err, ERROR_USAGE, "report", "the run's directory is missing");
        return error_fix(err, "hone report runs/first.");
    }
    if (!run_log_open(&log, directory, err)) return false;
    char *path = output ? mem_strdup(output) : fs_join(directory, "report.html"),
         *events = fs_join(directory, "events.jsonl");
    bool ok = ((path && events) || error_no_memory(err, "report", 0)) &&
              place_check(path, events, "report", err) && job_going(job, err) &&
              draw_page(&page, &log, directory, err) && fs_write_atomic(path, page.data, page.size, err);
    if (ok) {
        job->result = json_pack("{s:o, s:I, s:b, s:I}", "path", json_text(path), "steps",
                                (json_int_t)(log.step_count ? log.steps[log.step_count - 1].step : 0), "done",
                                log.done != NULL, "damaged_lines", (json_int_t)log.damaged);
        ok = job->result || error_no_memory(err, "report", 0);
    }
    run_log_close(&log);
    buf_release(&page);
    mem_free(path);
    mem_free(events);
    return ok;
}
