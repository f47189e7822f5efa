#include "cli/cli.h"

static void show(struct cli *cli, const json_t *result) {
    (void)cli;
    const char *what = *json_get_text(result, "model") ? "model" : "adapter";
    printf("The %s lies in ", what);
    print_text(stdout, json_get_text(result, what), false);
    putchar('\n');
}

const struct command command_train = {
    .name = "train",
    .group = "Train",
    .summary = "tune a model on rows of data",
    .usage = "hone train --model NAME --data FILE --output DIR [--flag value ...]",
    .examples =
        "  hone train --model smollm2-135m-instruct --data rows.jsonl --valid-split 0.1 --output runs/first\n"
        "  hone train --model smollm2-135m-instruct --data rows.jsonl --output runs/small --memory 600MiB\n"
        "  hone train --model llama --data rows.jsonl --device cuda:0,1 --output runs/two        # a "
        "process each\n"
        "  hone train --resume --output runs/first        # after a stop or a crash\n"
        "  hone train --recipe runs/first/recipe.yaml --seed 1 --output runs/second\n",
    .events = true,
    .event = progress_event,
    .show = show,
    .run = cli_run_ranks,
};
