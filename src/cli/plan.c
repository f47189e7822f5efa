#include "cli/cli.h"

enum { bar_columns = 40, profile_rows = 32 };

/* ---- --compare ---- */

static const struct {
    const char *key, *head;
    const char *(*print)(double value, char out[32]); /* NULL: a text */
    int width;
} columns[] = {
    {"method", "method", NULL, -6},
    {"recompute", "recompute", NULL, -9},
    {"micro_batch_tokens", "tokens", print_count, 6},
    {"trainable_parameters", "trained", print_count, 7},
    {"weights_bytes", "weights", print_bytes, 8},
    {"adapter_bytes", "trained", print_bytes, 8},
    {"gradient_bytes", "gradient", print_bytes, 8},
    {"optimizer_bytes", "optimizer", print_bytes, 9},
    {"activation_bytes", "activat.", print_bytes, 8},
    {"workspace_bytes", "workspace", print_bytes, 9},
    {"process_bytes", "process", print_bytes, 8},
    {"context_bytes", "driver", print_bytes, 8},
    {"peak_bytes", "peak", print_bytes, 8},
    {"measured_peak_bytes", "measured", print_bytes, 8},
    {"seconds", "time", print_seconds, 6},
};
enum { column_count = sizeof columns / sizeof *columns };

/* Not every device has bytes of each class, nor every table runs to show. */
static bool is_empty(const json_t *rows, size_t c) {
    size_t i;
    json_t *row;
    if (columns[c].print != print_bytes) return false;
    json_array_foreach(rows, i, row) if (json_get_number(row, columns[c].key) > 0) return false;
    return true;
}

static void show_cell(const json_t *row, size_t c) {
    char text[32] = "-";
    if (!columns[c].print)
        snprintf(text, sizeof text, "%s", json_get_text(row, columns[c].key));
    else if (json_is_number(json_object_get(row, columns[c].key)))
        columns[c].print(json_get_number(row, columns[c].key), text);
    printf("%s%*s", c ? "  " : "", columns[c].width, text);
}

static void show_table(const json_t *rows) {
    size_t i;
    json_t *row;
    bool left_out[column_count];
    for (size_t c = 0; c < column_count; c++) left_out[c] = is_empty(rows, c);
    for (size_t c = 0; c < column_count; c++)
        if (!left_out[c]) printf("%s%*s", c ? "  " : "", columns[c].width, columns[c].head);
    putchar('\n');
    json_array_foreach(rows, i, row) {
        if (json_is_true(json_object_get(row, "fits"))) {
            for (size_t c = 0; c < column_count; c++)
                if (!left_out[c]) show_cell(row, c);
        } else {
            show_cell(row, 0);
            show_cell(row, 1);
            fputs("  ", stdout);
            print_text(stdout, json_get_text(row, "why"), false);
        }
        putchar('\n');
    }
    json_array_foreach(rows, i, row) {
        if (!*json_get_text(row, "run")) continue;
        printf("measured in ");
        print_text(stdout, json_get_text(row, "run"), false);
        printf(": %s, --recompute %s\n", json_get_text(row, "method"), json_get_text(row, "recompute"));
    }
}

/* ---- --profile ---- */

static double column(const json_t *profile, const char *key, size_t index) {
    return json_number_value(json_array_get(json_object_get(profile, key), index));
}

static double live_at(const json_t *profile, size_t index) {
    return column(profile, "activation_bytes", index) + column(profile, "workspace_bytes", index);
}

static const char *phase_of(const json_t *profile, double position) {
    if (position >= json_get_number(profile, "update_from")) return "update";
    return position >= json_get_number(profile, "backward_from") ? "backward" : "forward";
}

static void show_point(const json_t *profile, size_t index, double most) {
    char text[32];
    double position = column(profile, "position", index), live = live_at(profile, index);
    int all = (int)(live / most * bar_columns + 0.5),
        kept = (int)(column(profile, "activation_bytes", index) / most * bar_columns + 0.5);
    const char *operation = json_string_value(json_array_get(json_object_get(profile, "operation"), index));
    printf("  %6.0f  %-8s  %-18s %10s  ", position, phase_of(profile, position), operation ? operation : "",
           print_bytes(live, text));
    for (int i = 0; i < all; i++) putchar(i < kept ? '#' : '+');
    putchar('\n');
}

/* The fullest operation of each stretch: a screen of rows. */
static void show_profile(const json_t *profile) {
    size_t count = json_array_size(json_object_get(profile, "position"));
    size_t rows = count < profile_rows ? count : profile_rows;
    double most = 1;
    for (size_t i = 0; i < count; i++)
        if (live_at(profile, i) > most) most = live_at(profile, i);
    puts("One step: live bytes of activations (#) and workspace (+)");
    for (size_t r = 0; r < rows; r++) {
        size_t best = count * r / rows;
        for (size_t i = best; i < count * (r + 1) / rows; i++)
            if (live_at(profile, i) > live_at(profile, best)) best = i;
        show_point(profile, best, most);
    }
}

static void show(struct cli *cli, const json_t *result) {
    const json_t *rows = json_object_get(result, "rows"), *profile = json_object_get(result, "profile");
    (void)cli;
    if (rows) {
        show_table(rows);
        return;
    }
    progress_plan(result);
    /* Names of operations stand in it when all of them were asked for. */
    if (json_object_get(profile, "operation")) show_profile(profile);
}

const struct command command_plan = {
    .name = "plan",
    .group = "Train",
    .summary = "memory, work and time of a training run, before it starts",
    .usage = "hone plan --model NAME --data FILE [the flags of train]",
    .examples = "  hone plan --model smollm2-135m-instruct --data rows.jsonl\n"
                "  hone plan --model smollm2-135m-instruct --data rows.jsonl --memory 600MiB --json\n"
                "  hone plan --model smollm2-135m-instruct --data rows.jsonl --compare --run runs/first\n",
    .event = progress_event,
    .show = show,
};
