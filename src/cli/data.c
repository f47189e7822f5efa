/* `hone data check`, `stats` and `preview`. */
#include "cli/cli.h"

#include <stdint.h>
#include <string.h>

static void show_text(const char *label, const char *text) {
    printf("%-10s", label);
    print_text(stdout, text, false);
    putchar('\n');
}

/* The verb goes with the count. */
static void show_count(const json_t *result, const char *key, const char *one, const char *many,
                       const char *label) {
    double count = json_get_number(result, key);
    if (count > 0) printf("%-10s%.0f %s %s\n", "", count, print_plural(count, one, many), label);
}

static void show_ignored_calls(const json_t *result) {
    const json_t *first = json_object_get(result, "tool_calls_ignored_first");
    double count = json_get_number(result, "tool_calls_ignored");
    if (!first) return;
    printf("%-10s%.0f %s tool calls that the template leaves out, so that such a turn trains its text "
           "alone, or a bare end marker; the first: ",
           "warning", count, print_plural(count, "has", "have"));
    print_text(stdout, json_get_text(first, "file"), false);
    printf(":%.0f\n", json_get_number(first, "line"));
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
    show_count(result, "duplicates", "stands", "stand", "there more than once");
    show_count(result, "empty_answers", "has", "have", "an empty answer");
    show_count(result, "overlap", "of the held-out rows stands", "of the held-out rows stand",
               "in the data too");
    show_count(result, "over_length", "is", "are", "longer than --max-length");
    show_count(result, "untrained", "has", "have", "no trained token");
    show_ignored_calls(result);
    print_problems(result);
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
struct marks {
    const struct cli *cli;
    bool open;
};

static void mark(struct marks *marks, bool trained) {
    if (trained == marks->open) return;
    if (marks->cli->color)
        fputs(trained ? "\033[32m" : "\033[0m", stdout);
    else
        fputs(trained ? "⟦" : "⟧", stdout);
    marks->open = trained;
}

static void show_part(struct marks *marks, const char *text, size_t size, bool trained) {
    char *shown = hone_escape(text, size, true);
    if (size) mark(marks, trained);
    if (shown) fputs(shown, stdout);
    hone_free(shown);
}

static bool is_flagged(const json_t *row, size_t token) {
    return json_integer_value(json_array_get(json_object_get(row, "flags"), token)) != 0;
}

/* Where the token begins in the text of `size` bytes, moved on to the next whole character. */
static size_t token_start(const json_t *row, size_t token, const char *text, size_t size) {
    const json_t *start = json_array_get(json_object_get(row, "starts"), token);
    size_t at = start ? (size_t)json_integer_value(start) : size;
    if (at > size) at = size;
    while (at < size && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
    return at;
}

/* What stands behind it is not trained on: --max-length cuts here. */
static void show_cut(struct marks *marks) {
    mark(marks, false);
    fputs("✂", stdout);
}

/* Runs of tokens that are all trained or all not, and the tokens around the text. */
static void show_marked(const struct cli *cli, const json_t *row) {
    const char *text = json_get_text(row, "text"), *end = json_get_text(row, "end");
    size_t count = json_array_size(json_object_get(row, "ids")), size = strlen(text);
    size_t inside = *end && count ? count - 1 : count;
    size_t kept = (size_t)json_get_number(row, "kept"), cut = kept && kept < count ? kept : SIZE_MAX;
    struct marks marks = {cli, false};
    show_part(&marks, json_get_text(row, "begin"), strlen(json_get_text(row, "begin")), false);
    for (size_t i = 0, next; i < inside; i = next) {
        bool trained = is_flagged(row, i);
        if (i == cut) show_cut(&marks);
        for (next = i + 1; next < inside && next != cut && is_flagged(row, next) == trained;) next++;
        size_t from = token_start(row, i, text, size),
               to = next < inside ? token_start(row, next, text, size) : size;
        show_part(&marks, text + from, to - from, trained);
    }
    if (inside == cut) show_cut(&marks);
    show_part(&marks, end, strlen(end), count && is_flagged(row, count - 1));
    mark(&marks, false);
    putchar('\n');
}

static void show_preview(struct cli *cli, const json_t *result) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "examples"), i, row) {
        double kept = json_get_number(row, "kept");
        size_t count = json_array_size(json_object_get(row, "ids")), trained = 0;
        for (size_t token = 0; token < count; token++) trained += is_flagged(row, token);
        if (i) putchar('\n');
        printf("--- row %.0f of %.0f, ", json_get_number(row, "row") + 1, json_get_number(result, "of"));
        print_text(stdout, json_get_text(row, "file"), false);
        printf(":%.0f: %zu %s, %zu trained", json_get_number(row, "line"), count,
               print_plural((double)count, "token", "tokens"), trained);
        if (kept < (double)count && kept > 0) printf(", cut after %.0f", kept);
        puts(kept > 0 || !count ? "" : ", dropped as too long");
        show_marked(cli, row);
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
                "  hone data check rows.jsonl --model smollm2-135m-instruct    # and count tokens\n",
    .event = cli_event_warning,
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
    .event = cli_event_warning,
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
    .event = cli_event_warning,
    .show = show_preview,
};
