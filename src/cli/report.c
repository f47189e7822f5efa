#include "cli/cli.h"

static void show(struct cli *cli, const json_t *result) {
    double steps = json_get_number(result, "steps");
    (void)cli;
    printf("The report of %.0f %s lies in ", steps, print_plural(steps, "step", "steps"));
    print_text(stdout, json_get_text(result, "path"), false);
    putchar('\n');
}

const struct command command_report = {
    .name = "report",
    .group = "Measure",
    .summary = "a run on one page: curves, memory, events, settings",
    .usage = "hone report RUN [--output FILE.html]",
    .positional = "run",
    .examples = "  hone report runs/first\n"
                "  hone report runs/first --output first.html\n",
    .show = show,
};
