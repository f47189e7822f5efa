/* `hone data check`, `stats` and `preview`. */
#include "cli/cli.h"

#include <string.h>

static void show_text(const char *label, const char *text) {
    printf("%-10s", label);
    print_text(stdout, text, false);
    putchar('\n');
}

static void show_problems(const json_t *result) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "problems"), i, row) {
        print_text(stdout, json_get_text(row, "file"), false);
        printf(":%.0f: ", json_get_number(row, "line"));
        print_text(stdout, json_get_text(row, "cause"), false);
        putchar('\n');
    }
}

static void show_count(const json_t *result, const char *key, const char *label) {
    if (json_get_number(result, key) > 0) printf("%-10s%.0f %s\n", "", json_get_number(result, key), label);
}

static void show_data(const json_t *result) {
    size_t i;
    json_t *file;
    json_array_foreach(json_object_get(result, "files"), i, file)
        show_text("file", json_string_value(file) ? json_string_value(file) : "");
    printf("%-10s%s, %s\n", "layout", json_get_text(result, "layout"), json_get_text(result, "container"));
    show_text("because", json_get_text(result, "evidence"));
    printf("%-10s%.0f good, %.0f bad\n", "rows", json_get_number(result, "rows"),
           json_get_number(result, "bad_rows"));
    show_count(result, "duplicates", "stand there more than once");
    show_count(result, "empty_answers", "have an empty answer");
    show_count(result, "overlap", "of the held-out rows stand in the data too");
    show_count(result, "over_length", "are longer than --max-length");
    show_count(result, "untrained", "have no trained token");
    show_problems(result);
}

static void show_check(struct cli *cli, const json_t *result) {
    const json_t *valid = json_object_get(result, "valid");
    (void)cli;
    show_data(result);
    if (!json_is_object(valid)) return;
    puts("\nheld out");
    show_data(valid);
}

/* Lengths as bars: the fullest bucket is 40 columns. */
static void show_histogram(const json_t *buckets) {
    size_t i;
    json_t *bucket;
    double most = 1;
    json_array_foreach(buckets, i, bucket) if (json_get_number(bucket, "rows") > most) most =
        json_get_number(bucket, "rows");
    json_array_foreach(buckets, i, bucket) {
        double rows = json_get_number(bucket, "rows");
        printf("  up to %6.0f  %8.0f  ", json_get_number(bucket, "up_to"), rows);
        for (int bar = 0; bar < (int)(rows / most * 40 + 0.5); bar++) putchar('#');
        putchar('\n');
    }
}

static void show_stats(struct cli *cli, const json_t *result) {
    const json_t *tokens = json_object_get(result, "tokens");
    (void)cli;
    show_data(result);
    if (!json_is_object(tokens)) {
        puts("Name a model to see lengths in tokens: --model NAME.");
        return;
    }
    printf("%-10s%.0f, %.0f of them trained\n", "tokens", json_get_number(tokens, "total"),
           json_get_number(tokens, "supervised"));
    printf(
        "%-10sshortest %.0f, half up to %.0f, 90 %% up to %.0f, 99 %% up to %.0f, longest %.0f, mean %.1f\n",
        "lengths", json_get_number(tokens, "min"), json_get_number(tokens, "p50"),
        json_get_number(tokens, "p90"), json_get_number(tokens, "p99"), json_get_number(tokens, "max"),
        json_get_number(tokens, "mean"));
    show_histogram(json_object_get(tokens, "histogram"));
}

/* Bad rows are what the command looks for; scripts learn of them by the status. */
static int check_status(const json_t *result) {
    double bad =
        json_get_number(result, "bad_rows") + json_get_number(json_object_get(result, "valid"), "bad_rows");
    return bad > 0 ? hone_exit_status(HONE_INPUT) : 0;
}

/* The trained parts stand out: in colour on a terminal, between ⟦ and ⟧ elsewhere. */
static void show_marked(struct cli *cli, const char *text, const json_t *spans) {
    size_t i, at = 0, size = strlen(text);
    json_t *span;
    json_array_foreach(spans, i, span) {
        size_t first = (size_t)json_integer_value(json_array_get(span, 0)),
               end = (size_t)json_integer_value(json_array_get(span, 1));
        if (first < at || end < first || end > size) continue;
        char *before = hone_escape(text + at, first - at, true),
             *inside = hone_escape(text + first, end - first, true);
        printf("%s%s%s%s", before ? before : "", cli->color ? "\033[32m" : "⟦", inside ? inside : "",
               cli->color ? "\033[0m" : "⟧");
        hone_free(before);
        hone_free(inside);
        at = end;
    }
    print_text(stdout, text + at, true);
    putchar('\n');
}

static void show_preview(struct cli *cli, const json_t *result) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "examples"), i, row) {
        if (i) putchar('\n');
        printf("--- row %.0f of %.0f, ", json_get_number(row, "row") + 1, json_get_number(result, "of"));
        print_text(stdout, json_get_text(row, "file"), false);
        printf(":%.0f\n", json_get_number(row, "line"));
        show_marked(cli, json_get_text(row, "text"), json_object_get(row, "trained"));
    }
}

const struct command command_data_check = {
    .name = "data check",
    .group = "Data",
    .summary = "layout, evidence, and every bad row with line and cause",
    .usage = "hone data check FILE... [--model NAME]",
    .positional = "data",
    .examples = "  hone data check rows.jsonl\n"
                "  hone data check rows.csv --columns prompt=question,completion=answer\n"
                "  hone data check rows.jsonl --model smollm2-135m-instruct    and count tokens\n",
    .show = show_check,
    .status = check_status,
};

const struct command command_data_stats = {
    .name = "data stats",
    .group = "Data",
    .summary = "lengths in tokens, duplicates, overlap with held-out rows",
    .usage = "hone data stats FILE... [--model NAME] [--valid FILE]",
    .positional = "data",
    .examples = "  hone data stats rows.jsonl --model smollm2-135m-instruct\n"
                "  hone data stats rows.jsonl --valid held-out.jsonl --model smollm2-135m-instruct --json\n",
    .show = show_stats,
};

const struct command command_data_preview = {
    .name = "data preview",
    .group = "Data",
    .summary = "rows as the model sees them, with what is trained marked",
    .usage = "hone data preview FILE... --model NAME [--rows N]",
    .positional = "data",
    .examples = "  hone data preview rows.jsonl --model smollm2-135m-instruct\n"
                "  hone data preview rows.jsonl --model smollm2-135m-instruct --train-on last --rows 1\n",
    .show = show_preview,
};
