/* Training and using a model from a program of one's own:
 *
 *     cc embed.c -o embed $(pkg-config --cflags --libs hone)
 *     ./embed MODEL ROWS.jsonl RUN_DIRECTORY
 *
 * Trains a small adapter, cancels after three steps, goes on to the end, and asks the result a question. */
#include <hone/hone.h>
#include <stdio.h>
#include <string.h>

struct run {
    struct hone_job *job;
    int steps, stop_after; /* stop_after 0: never */
};

static void on_event(void *user, const char *line) {
    struct run *run = user;
    if (!strstr(line, "\"event\":\"step\"")) return;
    run->steps++;
    if (run->steps == run->stop_after) hone_job_cancel(run->job);
}

/* True when the run came to its end, or was stopped as asked for. */
static bool train(char **argv, bool resume, int stop_after, struct hone_error *err) {
    const struct {
        const char *name, *value;
    } settings[] = {{"model", argv[1]},  {"data", argv[2]},  {"output", argv[3]},  {"lora-rank", "4"},
                    {"batch-size", "4"}, {"max-steps", "6"}, {"max-length", "128"}};
    struct run run = {.stop_after = stop_after};
    bool ok = hone_job_open(&run.job, "train", err);
    for (size_t i = 0; ok && i < sizeof settings / sizeof *settings; i++)
        ok = hone_job_set(run.job, settings[i].name, settings[i].value, err);
    if (ok && resume) ok = hone_job_set(run.job, "resume", NULL, err);
    if (ok) {
        hone_job_on_event(run.job, on_event, &run);
        ok = hone_job_run(run.job, err);
    }
    printf("%s after %d steps\n", ok ? "done" : hone_code_name(err->code), run.steps);
    hone_job_close(&run.job);
    return ok || (stop_after && err->code == HONE_INTERRUPTED);
}

static bool print_piece(void *user, const char *text, size_t size) {
    fwrite(text, 1, size, user);
    return true;
}

static bool ask(char **argv, struct hone_error *err) {
    char adapter[4096];
    struct hone_session *session;
    snprintf(adapter, sizeof adapter, "%s/adapter", argv[3]);
    if (!hone_session_open(&session, argv[1], adapter, NULL, err)) return false;
    bool ok =
        hone_session_generate(session, "What is 3?", "{\"max-tokens\":16}", print_piece, stdout, NULL, err);
    printf("\n");
    hone_session_close(&session);
    return ok;
}

int main(int argc, char **argv) {
    struct hone_error err;
    if (argc != 4) {
        fprintf(stderr, "usage: embed MODEL ROWS.jsonl RUN_DIRECTORY\n");
        return 2;
    }
    if (train(argv, false, 3, &err) && train(argv, true, 0, &err) && ask(argv, &err)) return 0;
    char *text = hone_error_text(&err);
    fprintf(stderr, "%s\n", text ? text : "out of memory");
    hone_free(text);
    return hone_exit_status(err.code);
}
