#include "cli/cli.h"

#include <string.h>

/* A terminal gets what cannot trick it; a pipe gets the bytes. */
static void print_answer(struct cli *cli, const json_t *text) {
    const char *bytes = json_string_value(text);
    size_t size = json_string_length(text);
    char *escaped = cli->terminal ? hone_escape(bytes, size, true) : NULL;
    if (cli->terminal)
        fputs(escaped ? escaped : "(out of memory)", stdout);
    else
        fwrite(bytes, 1, size, stdout);
    hone_free(escaped);
    fflush(stdout);
}

static void event(struct cli *cli, const json_t *event) {
    cli_event_warning(cli, event);
    if (strcmp(json_get_text(event, "event"), "text") != 0 || !cli->terminal) return;
    cli->streamed = true;
    print_answer(cli, json_object_get(event, "text"));
}

static void show(struct cli *cli, const json_t *result) {
    if (json_object_get(result, "answers")) {
        char seconds[32];
        double answers = json_get_number(result, "answers");
        printf("%.0f %s in %s, written to ", answers, print_plural(answers, "answer", "answers"),
               print_seconds(json_get_number(result, "seconds"), seconds));
        print_text(stdout, json_get_text(result, "output"), false);
        putchar('\n');
        return;
    }
    if (!cli->streamed) print_answer(cli, json_object_get(result, "text"));
    putchar('\n');
}

const struct command command_generate = {
    .name = "generate",
    .group = "Use",
    .summary = "answer a prompt, a conversation or a file of them",
    .usage = "hone generate --model NAME --prompt TEXT [--adapter DIR]",
    .examples =
        "  hone generate --model smollm2-135m-instruct --prompt \"Define ABSURDITY.\"\n"
        "  hone generate --model smollm2-135m-instruct --adapter runs/first/adapter --prompt \"Define "
        "LOVE.\" --json\n"
        "  hone generate --model smollm2-135m-instruct --batch prompts.jsonl --output answers.jsonl\n",
    .event = event,
    .show = show,
};
