#include "cli/cli.h"

static void show_model(const json_t *model) {
    char bytes[32];
    print_text(stdout, json_get_text(model, "name"), false);
    printf("  %s, %s  ", json_get_text(model, "architecture"),
           print_bytes(json_get_number(model, "bytes"), bytes));
    print_text(stdout, json_get_text(model, "path"), false);
    puts(json_is_false(json_object_get(model, "there")) ? "  (nothing is there any more)" : "");
}

static void show(struct cli *cli, const json_t *result) {
    const json_t *models = json_object_get(result, "models");
    size_t i;
    json_t *model;
    (void)cli;
    if (!models) {
        show_model(result);
        if (!json_object_get(result, "replaced")) return;
        print_text(stdout, json_get_text(result, "name"), false);
        fputs(" stood for ", stdout);
        print_text(stdout, json_get_text(result, "replaced"), false);
        puts(" before");
        return;
    }
    if (json_array_size(models) == 0) puts("The store is empty; `hone pull PATH --name NAME` fills it.");
    json_array_foreach(models, i, model) show_model(model);
}

const struct command command_pull = {
    .name = "pull",
    .group = "Get started",
    .summary = "check a model and give it a name",
    .usage = "hone pull PATH [--name NAME]",
    .positional = "path",
    .examples = "  hone pull SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2-135m-instruct\n"
                "  hone pull ~/models/Qwen2.5-0.5B-Instruct    # a Hugging Face directory\n"
                "  hone pull --list                            # what the store holds\n",
    .show = show,
};
