#include "cli/cli.h"

static void show(struct cli *cli, const json_t *result) {
    const json_t *rates = json_object_get(result, "rates"),
                 *generation = json_object_get(result, "generation");
    (void)cli;
    show_rates(rates);
    if (!generation) return;
    double bytes = json_get_number(generation, "decode_bytes_per_second"),
           most = json_get_number(rates, "read_bytes_per_second"),
           prompt = json_get_number(generation, "prompt_tokens"),
           made = json_get_number(generation, "generated_tokens");
    printf("  prefill   %.0f %s: %.0f tokens/s\n", prompt, print_plural(prompt, "token", "tokens"),
           json_get_number(generation, "prefill_tokens_per_second"));
    printf("  decode    %.0f %s: %.1f tokens/s, %.1f GB/s of weights", made,
           print_plural(made, "token", "tokens"), json_get_number(generation, "decode_tokens_per_second"),
           bytes / 1e9);
    if (most > 0) printf(", %.0f %% of what memory gives", 100 * bytes / most);
    putchar('\n');
}

const struct command command_bench = {
    .name = "bench",
    .group = "Measure",
    .summary = "how fast products, memory and a model's answers are here",
    .usage = "hone bench [--model NAME]",
    .examples = "  hone bench\n"
                "  hone bench --model smollm2-135m-instruct --prompt-tokens 256 --max-tokens 64\n"
                "  hone bench --shapes 512x576x1536 --threads 1 --json\n",
    .event = cli_event_warning,
    .show = show,
};
