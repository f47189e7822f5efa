/* Help, made from the table of commands and the library's list of settings. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

enum { line_width = 100, name_width = 32 };

void help_overview(FILE *out, const struct command *const *commands, size_t count) {
    const char *group = "";
    fprintf(out,
            "hone %s: fine-tune, measure and use language models.\n\nUsage: hone COMMAND [--flag value …]\n",
            hone_version());
    for (size_t i = 0; i < count; i++) {
        if (strcmp(group, commands[i]->group) != 0) fprintf(out, "\n%s\n", commands[i]->group);
        group = commands[i]->group;
        fprintf(out, "  %-14s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\n`hone COMMAND --help` shows flags and examples. Every command takes --json, for programs.\n"
          "Exit status: 0 done, 1 failed, 2 used wrongly, 3 input refused, 4 out of resources, 130 "
          "interrupted (resumable).\n",
          out);
}

/* Words of `text` from column `at`, broken at line_width and indented by name_width. */
static void print_wrapped(FILE *out, const char *text, size_t at) {
    while (*text) {
        size_t size = strcspn(text, " ");
        if (at > name_width && at + 1 + size > line_width) {
            fprintf(out, "\n%*s", name_width, "");
            at = name_width;
        } else if (at > name_width) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", (int)size, text);
        at += size;
        text += size + (text[size] == ' ');
    }
    fputc('\n', out);
}

static void print_setting(FILE *out, const json_t *row) {
    char flag[160], help[800];
    const char *name = json_get_text(row, "name"), *argument = json_get_text(row, "argument");
    const char *preset = json_get_text(row, "default"), *rule = json_get_text(row, "automatic");
    bool boolean = strcmp(json_get_text(row, "type"), "bool") == 0,
         on = boolean && strcmp(preset, "true") == 0;
    if (on)
        snprintf(flag, sizeof flag, "  --%s, --no-%s", name, name);
    else
        snprintf(flag, sizeof flag, "  --%s%s%s", name, *argument ? " " : "", argument);
    const char *label = on || (*preset && !boolean) ? "" : "auto: ", *value = on        ? "on"
                                                                              : boolean ? ""
                                                                              : *preset ? preset
                                                                                        : rule;
    if (*value)
        snprintf(help, sizeof help, "%s [%s%s]", json_get_text(row, "help"), label, value);
    else
        snprintf(help, sizeof help, "%s", json_get_text(row, "help"));
    if (strlen(flag) + 2 > name_width)
        fprintf(out, "%s\n%*s", flag, name_width, "");
    else
        fprintf(out, "%-*s", name_width, flag);
    print_wrapped(out, help, name_width);
}

static bool first_of_group(const json_t *settings, size_t index) {
    const char *group = json_get_text(json_array_get(settings, index), "group");
    for (size_t i = 0; i < index; i++)
        if (strcmp(json_get_text(json_array_get(settings, i), "group"), group) == 0) return false;
    return true;
}

static void print_groups(FILE *out, const json_t *settings, const char *positional) {
    size_t i, j;
    json_t *row, *other;
    json_array_foreach(settings, i, row) {
        if (!first_of_group(settings, i)) continue;
        fprintf(out, "\n%s\n", json_get_text(row, "group"));
        json_array_foreach(settings, j, other) {
            bool word = positional && strcmp(positional, json_get_text(other, "name")) == 0;
            if (strcmp(json_get_text(other, "group"), json_get_text(row, "group")) == 0 && !word)
                print_setting(out, other);
        }
    }
}

bool help_command(FILE *out, const struct command *command, struct hone_error *err) {
    char *text;
    if (!hone_settings(command->name, &text, err)) return false;
    json_t *settings = json_loads(text, 0, NULL);
    hone_free(text);
    fprintf(out, "hone %s: %s\n\nUsage: %s\n\nExamples:\n%s", command->name, command->summary, command->usage,
            command->examples);
    if (settings) print_groups(out, settings, command->positional);
    json_decref(settings);
    return true;
}
