#include "cli/cli.h"

static void show_fallbacks(const json_t *fallbacks) {
    size_t i;
    json_t *one;
    json_array_foreach(fallbacks, i, one) {
        const json_t *tensors = json_object_get(one, "tensors");
        size_t count = json_array_size(tensors);
        printf("  %s in place of %s, whose blocks do not divide rows of %.0f: ", json_get_text(one, "type"),
               json_get_text(one, "in_place_of"), json_get_number(one, "row"));
        print_text(stdout, json_string_value(json_array_get(tensors, 0)), false);
        if (count > 1) printf(" and %zu more", count - 1);
        putchar('\n');
    }
}

static void show(struct cli *cli, const json_t *result) {
    const json_t *left_out = json_object_get(result, "left_out");
    const char *type;
    char bytes[32], seconds[32], memory[32];
    json_t *count;
    size_t i;
    progress_end(cli);
    print_text(stdout, json_get_text(result, "output"), false);
    printf(": %s, %.2f bits a weight, in %s, memory at most %s\n",
           print_bytes(json_get_number(result, "bytes"), bytes), json_get_number(result, "bits_per_weight"),
           print_seconds(json_get_number(result, "seconds"), seconds),
           print_bytes(json_get_number(result, "memory_bytes"), memory));
    fputs("  tensors:", stdout);
    json_object_foreach(json_object_get(result, "types"), type, count)
        printf(" %.0f %s", json_number_value(count), type);
    printf("; relative error %.2g\n", json_get_number(result, "relative_error"));
    show_fallbacks(json_object_get(result, "fallbacks"));
    json_array_foreach(left_out, i, count) {
        fputs("  left out, since the architecture has no place for it: ", stdout);
        print_text(stdout, json_string_value(count), false);
        putchar('\n');
    }
}

const struct command command_convert = {
    .name = "convert",
    .group = "Hand over",
    .summary = "a model in another container or stored type; quantises too",
    .usage = "hone convert --model NAME --output PATH [--to gguf|safetensors|mlx] [--type TYPE]",
    .examples = "  hone convert --model ~/models/Qwen2.5-0.5B --type q4_k --output qwen-q4_k.gguf\n"
                "  hone convert --model smollm2-135m-instruct --to safetensors --type bf16 --output smollm2\n"
                "  hone convert --config config.json --random-weights --type q4_k --output random.gguf\n",
    .event = progress_event,
    .show = show,
};
