#include "cli/cli.h"

#include <string.h>

static void show_memory(const json_t *memory) {
    char total[32], available[32], limit[32];
    printf("memory    %s, %s free for this process",
           print_bytes(json_get_number(memory, "total_bytes"), total),
           print_bytes(json_get_number(memory, "available_bytes"), available));
    if (json_get_number(memory, "limit_bytes") > 0)
        printf("; the cgroup's limit is %s", print_bytes(json_get_number(memory, "limit_bytes"), limit));
    putchar('\n');
}

/* Products or kernels: what is selected and why not the others; of kernels, not those that a better one
 * beats. */
static void show_choices(const json_t *list, const char *subject, const char *key, bool beaten) {
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row) {
        bool selected = json_is_true(json_object_get(row, "selected"));
        const char *why = json_get_text(row, "why");
        if (!selected && !beaten && strncmp(why, "a better one", 12) == 0) continue;
        printf("  %-9s %-22s %-26s %s\n", subject, json_get_text(row, key), json_get_text(row, "name"), why);
    }
}

void show_rates(const json_t *rates) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(rates, "products"), i, row) printf(
        "  rate      %-5s %-12s m %-5.0f n %-5.0f k %-5.0f %8.1f GFLOP/s\n", json_get_text(row, "compute"),
        json_get_text(row, "product"), json_get_number(row, "m"), json_get_number(row, "n"),
        json_get_number(row, "k"), json_get_number(row, "flops_per_second") / 1e9);
    double bytes = json_get_number(rates, "read_bytes_per_second");
    if (bytes > 0) printf("  rate      memory reads %.1f GB/s\n", bytes / 1e9);
}

static void show_device(const json_t *device) {
    printf("\ndevice    %s", json_get_text(device, "name"));
    if (*json_get_text(device, "why_not")) {
        fputs(": not available: ", stdout);
        print_text(stdout, json_get_text(device, "why_not"), false);
        if (*json_get_text(device, "fix")) fputs(". ", stdout);
        print_text(stdout, json_get_text(device, "fix"), false);
    }
    if (json_get_number(device, "threads") > 0)
        printf(", %.0f thread%s", json_get_number(device, "threads"),
               json_get_number(device, "threads") > 1 ? "s" : "");
    if (*json_get_text(device, "features")) printf(", features %s", json_get_text(device, "features"));
    if (strcmp(json_get_text(device, "used"), json_get_text(device, "features")) != 0)
        printf(", used %s", json_get_text(device, "used"));
    if (*json_get_text(device, "what")) printf(", %s", json_get_text(device, "what"));
    putchar('\n');
    show_choices(json_object_get(device, "products"), "product", "compute", true);
    show_choices(json_object_get(device, "kernels"), "kernel", "operation", false);
    show_rates(json_object_get(device, "rates"));
}

static void show(struct cli *cli, const json_t *result) {
    size_t i;
    json_t *device;
    (void)cli;
    printf("hone      %s\nsystem    %s\ncpu       ", json_get_text(result, "version"),
           json_get_text(result, "system"));
    print_text(stdout, json_get_text(result, "cpu"), false);
    printf("\ncores     %.0f usable of %.0f\n", json_get_number(result, "usable_cores"),
           json_get_number(result, "cores"));
    show_memory(json_object_get(result, "memory"));
    fputs("store     ", stdout);
    bool store = json_object_get(result, "store") != NULL;
    print_text(stdout, store ? json_get_text(result, "store") : "none: set HONE_HOME to a directory", false);
    putchar('\n');
    json_array_foreach(json_object_get(result, "devices"), i, device) show_device(device);
}

const struct command command_doctor = {
    .name = "doctor",
    .group = "Get started",
    .summary = "what this machine can do: processor, kernels, memory, devices",
    .usage = "hone doctor [--measure] [--json]",
    .examples = "  hone doctor\n"
                "  hone doctor --measure                  # how fast products and memory are here\n"
                "  hone doctor --measure --mask avx512    # the same without AVX-512\n",
    .show = show,
};
