#include "cli/cli.h"

static void show(struct cli *cli, const json_t *result) {
    (void)cli;
    progress_plan(result);
}

const struct command command_plan = {
    .name = "plan",
    .group = "Train",
    .summary = "memory, work and time of a training run, before it starts",
    .usage = "hone plan --model NAME --data FILE [the flags of train]",
    .examples = "  hone plan --model smollm2-135m-instruct --data rows.jsonl\n"
                "  hone plan --model smollm2-135m-instruct --data rows.jsonl --memory 600MiB --json\n",
    .event = progress_event,
    .show = show,
};
