/* A run as it goes: a bar on a terminal, plain lines in a pipe. */
#include "cli/cli.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { plain_lines = 100 /* about so many step lines a run, in a pipe */ };

static int terminal_width(void) {
    struct winsize size;
    return ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void clear_bar(struct cli *cli) {
    if (cli->progress.drawn) fputs("\r\033[K", stdout);
    cli->progress.drawn = false;
}

/* A line that went on below could not be cleared: it ends one column before the edge. */
static void draw_bar(struct cli *cli, const char *facts) {
    const struct progress *progress = &cli->progress;
    char count[64];
    snprintf(count, sizeof count, "%.0f/%.0f", progress->last, progress->total);
    int width = terminal_width() - 1, counted = (int)strlen(count) + 1;
    int room = width - counted - (int)strlen(facts) - 4;
    if (room > 40) room = 40;
    clear_bar(cli);
    printf("%.*s ", width > 1 ? width - 1 : 0, count);
    if (room >= 8 && progress->total > 0) {
        int done = (int)(progress->last / progress->total * room);
        fputs(cli->color ? "[\033[32m" : "[", stdout);
        for (int i = 0; i < room; i++) putchar(i < done ? '=' : ' ');
        fputs(cli->color ? "\033[0m] " : "] ", stdout);
    }
    printf("%.*s", width > counted ? width - counted : 0, facts);
    cli->progress.drawn = true;
    fflush(stdout);
}

static bool worth_a_line(const struct progress *progress) {
    double stride = progress->total > plain_lines ? progress->total / plain_lines : 1;
    return progress->last >= progress->printed + stride || progress->last >= progress->total ||
           progress->last == progress->first + 1;
}

static void step(struct cli *cli, const json_t *event) {
    struct progress *progress = &cli->progress;
    char facts[200], memory[32], left[32];
    progress->last = json_get_number(event, "step");
    progress->seconds += json_get_number(event, "seconds");
    double done = progress->last - progress->first, to_go = progress->total - progress->last;
    snprintf(facts, sizeof facts, "loss %.4f  %.0f tokens/s  %s  %s left", json_get_number(event, "loss"),
             json_get_number(event, "tokens_per_second"),
             print_bytes(json_get_number(event, "memory_bytes"), memory),
             print_seconds(done > 0 ? progress->seconds / done * to_go : 0, left));
    if (cli->terminal) {
        draw_bar(cli, facts);
    } else if (worth_a_line(progress)) {
        printf("step %.0f/%.0f  %s\n", progress->last, progress->total, facts);
        progress->printed = progress->last;
        fflush(stdout);
    }
}

static void recipe(struct cli *cli, const json_t *event) {
    const char *name;
    json_t *row;
    puts("Not given, and so:");
    json_object_foreach(json_object_get(event, "settings"), name, row) {
        const char *origin = json_get_text(row, "origin"), *reason = json_get_text(row, "reason");
        if (strcmp(origin, "given") == 0 || strcmp(origin, "stored") == 0) continue;
        printf("  %-24s ", name);
        print_text(stdout, json_get_text(row, "value"), false);
        fputs(cli->color ? "  \033[2m(" : "  (", stdout);
        print_text(stdout, *reason ? reason : origin, false);
        puts(cli->color ? ")\033[0m" : ")");
    }
}

void progress_plan(const json_t *plan) {
    static const struct {
        const char *key, *label;
        bool always; /* else where there is something of it: not every device has it */
    } rows[] = {{"weights_bytes", "weights, copied or decoded", true},
                {"adapter_bytes", "trained", true},
                {"gradient_bytes", "gradients", true},
                {"optimizer_bytes", "optimizer", true},
                {"activation_bytes", "activations", true},
                {"workspace_bytes", "workspace", true},
                {"process_bytes", "process", false},
                {"context_bytes", "driver and libraries", false},
                {"peak_bytes", "peak", true},
                {"mapped_bytes", "mapped files, beside it", false},
                {"offloaded_bytes", "offloaded to a file", false},
                {"host_bytes", "on the host, beside it", false},
                {"start_bytes", "in process: the start", false}};
    char text[32];
    puts("Plan");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double bytes = json_get_number(plan, rows[i].key);
        if (bytes > 0 || rows[i].always) printf("  %-28s %12s\n", rows[i].label, print_bytes(bytes, text));
    }
    double seconds = json_get_number(plan, "start_seconds");
    if (seconds > 0) printf("  %-28s %12s\n", "time for the start, about", print_seconds(seconds, text));
    double steps = json_get_number(plan, "steps"), tokens = json_get_number(plan, "micro_batch_tokens");
    if (steps > 0) printf("  %-28s %12.0f\n", "steps", steps);
    if (tokens > 0) printf("  %-28s %12.0f\n", "tokens a micro-batch", tokens);
    printf("  %-28s %12.3g\n", "floating-point operations", json_get_number(plan, "flops"));
    printf("  %-28s %12s\n", "time, about", print_seconds(json_get_number(plan, "seconds"), text));
}

static void plan(struct cli *cli, const json_t *event) {
    double steps = json_get_number(event, "steps");
    if (steps > 0) cli->progress.total = steps;
    progress_plan(event);
}

static void upload(struct cli *cli, const json_t *event) {
    char bytes[32], rate[32];
    (void)cli;
    printf("Weights on the GPU: %s in %.2f s (%s a second), those made on the host in %.2f s; ready %.2f s "
           "later\n",
           print_bytes(json_get_number(event, "bytes"), bytes), json_get_number(event, "seconds"),
           print_bytes(json_get_number(event, "bytes_per_second"), rate),
           json_get_number(event, "made_seconds"), json_get_number(event, "ready_seconds"));
}

static void eval(struct cli *cli, const json_t *event) {
    char loss[32];
    cli->progress.seconds += json_get_number(event, "seconds"); /* more of them lie ahead */
    printf("step %.0f  held-out loss %s\n", json_get_number(event, "step"), print_loss(event, "loss", loss));
}

static void checkpoint(struct cli *cli, const json_t *event) {
    if (!cli->terminal)
        printf("step %.0f  saved %s\n", json_get_number(event, "step"), json_get_text(event, "path"));
}

static void warning(struct cli *cli, const json_t *event) {
    (void)cli;
    fputs("warning: ", stdout);
    print_text(stdout, json_get_text(event, "message"), false);
    putchar('\n');
}

static void nonfinite(struct cli *cli, const json_t *event) {
    static const struct {
        const char *action, *text;
    } rows[] = {
        {"stop", "the run stops"}, {"skip", "the step is left out"}, {"rollback", "the run goes back"}};
    const json_t *layer = json_object_get(event, "layer");
    (void)cli;
    printf("step %.0f  not finite", json_get_number(event, "step"));
    if (*json_get_text(event, "operation")) {
        printf(": %s by ", json_get_text(event, "number"));
        print_text(stdout, json_get_text(event, "operation"), false);
    }
    if (json_is_integer(layer)) printf(" of layer %lld", (long long)json_integer_value(layer));
    if (*json_get_text(event, "row")) {
        fputs(", for ", stdout);
        print_text(stdout, json_get_text(event, "row"), false);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(json_get_text(event, "action"), rows[i].action)) printf("; %s", rows[i].text);
    putchar('\n');
}

static void rollback(struct cli *cli, const json_t *event) {
    double step = json_get_number(event, "step");
    (void)cli;
    if (step > 0)
        printf("back to the checkpoint of step %.0f", step);
    else
        printf("back to the start");
    printf(", from here on at %g of the rate\n", json_get_number(event, "rate_factor"));
}

static void micro_batch(struct cli *cli, const json_t *event) {
    (void)cli;
    printf("step %.0f  ", json_get_number(event, "step"));
    print_text(stdout, json_get_text(event, "message"), false);
    putchar('\n');
}

static void overflow(struct cli *cli, const json_t *event) {
    (void)cli;
    printf("step %.0f  overflow in f16, left out; the loss is scaled by %.0f from here on\n",
           json_get_number(event, "step"), json_get_number(event, "loss_scale"));
}

static void save_failed(struct cli *cli, const json_t *event) {
    (void)cli;
    fputs("not saved, the run goes on: ", stdout);
    print_text(stdout, json_get_text(event, "message"), false);
    if (json_get_number(event, "best_step") > 0)
        printf("; the best checkpoint is that of step %.0f", json_get_number(event, "best_step"));
    putchar('\n');
}

static void resume(struct cli *cli, const json_t *event) {
    size_t i;
    json_t *change;
    char left[32];
    double seconds = json_get_number(event, "seconds_left");
    cli->progress.first = cli->progress.last = json_get_number(event, "from_step");
    printf("Going on from step %.0f", cli->progress.first);
    if (seconds > 0) printf(", about %s left", print_seconds(seconds, left));
    json_array_foreach(json_object_get(event, "changed"), i, change) {
        fputs(i ? ", " : "; changed: ", stdout);
        print_text(stdout, json_string_value(change) ? json_string_value(change) : "", false);
    }
    putchar('\n');
}

static void early_stop(struct cli *cli, const json_t *event) {
    double evaluations = json_get_number(event, "evaluations");
    (void)cli;
    printf("step %.0f  ended: %.0f %s without improvement; the best, at step %.0f, is the result\n",
           json_get_number(event, "step"), evaluations,
           print_plural(evaluations, "evaluation", "evaluations"), json_get_number(event, "best_step"));
}

static void trace(struct cli *cli, const json_t *event) {
    size_t i;
    json_t *row;
    double steps = json_get_number(event, "steps");
    (void)cli;
    print_text(stdout, json_get_text(event, "path"), false);
    printf(" has %.0f %s:", steps, print_plural(steps, "step", "steps"));
    json_array_foreach(json_object_get(event, "operations"), i, row) {
        double share = 100 * json_get_number(row, "share"), rate = json_get_number(row, "flops_per_second");
        if (i && share < 1) break;
        fputs(i ? ", " : " ", stdout);
        print_text(stdout, json_get_text(row, "name"), false);
        printf(" %.0f %%", share);
        if (rate > 0) printf(" (%.0f GFLOP/s)", rate * 1e-9);
    }
    putchar('\n');
}

static void done(struct cli *cli, const json_t *event) {
    (void)cli;
    char seconds[32], memory[32], loss[32];
    printf("Done in %s: loss %s", print_seconds(json_get_number(event, "seconds"), seconds),
           print_loss(event, "loss", loss));
    if (json_is_number(json_object_get(event, "eval_loss")))
        printf(", held-out loss %.4f", json_get_number(event, "eval_loss"));
    double held = json_get_number(event, "memory_bytes");
    if (held > 0) printf(", memory at most %s", print_bytes(held, memory));
    putchar('\n');
}

/* Percent of a file take the place of steps. */
static void convert(struct cli *cli, const json_t *event) {
    struct progress *progress = &cli->progress;
    double done = json_get_number(event, "done_bytes"), total = json_get_number(event, "total_bytes");
    double seconds = json_get_number(event, "seconds");
    char facts[200], written[32], all[32], left[32];
    progress->total = 100;
    progress->last = total > 0 ? (double)(int)(100 * done / total) : 0;
    snprintf(facts, sizeof facts, "%s of %s  %s left", print_bytes(done, written), print_bytes(total, all),
             print_seconds(done > 0 ? seconds / done * (total - done) : 0, left));
    if (cli->terminal) {
        draw_bar(cli, facts);
    } else if (progress->last >= progress->printed + 5) {
        printf("%.0f %%  %s\n", progress->last, facts);
        progress->printed = progress->last;
        fflush(stdout);
    }
}

void progress_end(struct cli *cli) { clear_bar(cli); }

void progress_event(struct cli *cli, const json_t *event) {
    static const struct {
        const char *event;
        void (*show)(struct cli *cli, const json_t *event);
    } rows[] = {{"recipe", recipe},     {"plan", plan},
                {"upload", upload},     {"step", step},
                {"eval", eval},         {"checkpoint", checkpoint},
                {"warning", warning},   {"nonfinite", nonfinite},
                {"rollback", rollback}, {"save_failed", save_failed},
                {"overflow", overflow}, {"micro_batch", micro_batch},
                {"resume", resume},     {"early_stop", early_stop},
                {"trace", trace},       {"done", done},
                {"convert", convert}};
    const char *name = json_get_text(event, "event");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(name, rows[i].event) != 0) continue;
        if (rows[i].show != step && rows[i].show != convert && (rows[i].show != checkpoint || !cli->terminal))
            clear_bar(cli);
        rows[i].show(cli, event);
        fflush(stdout);
    }
}
