#include "cli/cli.h"

static void show(struct cli *cli, const json_t *result) {
    const json_t *perplexity = json_object_get(result, "perplexity");
    double tokens = json_get_number(result, "supervised_tokens"),
           examples = json_get_number(result, "examples");
    (void)cli;
    printf(json_is_number(perplexity) ? "loss %.4f, perplexity %.3f" : "loss %.4f, perplexity above 1e308",
           json_get_number(result, "loss"), json_number_value(perplexity));
    printf(", over %.0f trained %s of %.0f %s\n", tokens, print_plural(tokens, "token", "tokens"), examples,
           print_plural(examples, "example", "examples"));
    if (json_get_number(result, "bad_rows") > 0)
        printf("bad rows left out: %.0f\n", json_get_number(result, "bad_rows"));
    print_problems(result);
}

const struct command command_eval = {
    .name = "eval",
    .group = "Measure",
    .summary = "loss of a model, with or without an adapter, on rows of data",
    .usage = "hone eval --model NAME --data FILE [--adapter DIR]",
    .examples = "  hone eval --model smollm2-135m-instruct --data held-out.jsonl\n"
                "  hone eval --model smollm2-135m-instruct --adapter runs/first/adapter --data "
                "held-out.jsonl --json\n",
    .event = cli_event_warning,
    .show = show,
};
