#include "cli/cli.h"

#include <string.h>

static void show(struct cli *cli, const json_t *result) {
    size_t i;
    json_t *row;
    const char *group = "";
    (void)cli;
    fputs(json_get_text(result, "markdown"), stdout);
    json_array_foreach(json_object_get(result, "settings"), i, row) {
        const char *preset = json_get_text(row, "default"), *rule = json_get_text(row, "automatic");
        if (strcmp(group, json_get_text(row, "group")) != 0)
            printf("%s%s\n", i ? "\n" : "", json_get_text(row, "group"));
        group = json_get_text(row, "group");
        printf("  %-20s %-8s %s", json_get_text(row, "name"), json_get_text(row, "type"),
               json_get_text(row, "help"));
        if (*preset)
            printf(" [%s]", preset);
        else if (*rule)
            printf(" [auto: %s]", rule);
        putchar('\n');
    }
}

const struct command command_settings = {
    .name = "settings",
    .group = "Hand over",
    .summary = "every setting: type, bounds, default, meaning",
    .usage = "hone settings [COMMAND] [--markdown] [--json]",
    .positional = "command",
    .examples = "  hone settings\n"
                "  hone settings train --json    # for forms and scripts\n"
                "  hone settings --markdown      # the page docs/settings.md\n",
    .show = show,
};
