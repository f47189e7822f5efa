/* Small pieces of output that several commands share. */
#include "cli/cli.h"

#include <string.h>

void print_text(FILE *out, const char *text, bool keep_lines) {
    char *escaped = hone_escape(text, strlen(text), keep_lines);
    fputs(escaped ? escaped : "(out of memory)", out);
    hone_free(escaped);
}

const char *print_plural(double count, const char *one, const char *many) { return count == 1 ? one : many; }

const char *print_bytes(double bytes, char out[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++) bytes /= 1024;
    snprintf(out, 32, unit == 0 || bytes >= 100 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
    return out;
}

const char *print_count(double count, char out[32]) {
    static const char units[] = " kMGT";
    size_t unit = 0;
    for (; count >= 10000 && unit + 2 < sizeof units; unit++) count /= 1000;
    snprintf(out, 32, unit == 0 || count >= 100 ? "%.0f%s%.1s" : "%.1f%s%.1s", count, unit ? " " : "",
             unit ? &units[unit] : "");
    return out;
}

const char *print_seconds(double seconds, char out[32]) {
    long whole = seconds < 0 ? 0 : seconds > 1e9 ? 1000000000 : (long)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(out, 32, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(out, 32, "%ldm%02lds", whole / 60, whole % 60);
    else if (seconds < 10 && seconds >= 0)
        snprintf(out, 32, "%.1fs", seconds);
    else
        snprintf(out, 32, "%lds", whole);
    return out;
}

const char *print_loss(const json_t *object, const char *key, char out[32]) {
    const json_t *value = json_object_get(object, key);
    snprintf(out, 32, json_is_number(value) ? "%.4f" : "not finite", json_number_value(value));
    return out;
}

json_t *cli_json(const char *text) { return json_loads(text, JSON_ALLOW_NUL, NULL); }

double json_get_number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

const char *json_get_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

void print_problems(const json_t *result) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "problems"), i, row) {
        print_text(stdout, json_get_text(row, "file"), false);
        printf(":%.0f: ", json_get_number(row, "line"));
        print_text(stdout, json_get_text(row, "cause"), false);
        putchar('\n');
    }
}
