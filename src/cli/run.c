/* Running a job from the command line: errors, signals, output. */
#include "cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What a signal handler reaches; the only mutable state outside of main, since handlers take no argument. */
static void (*volatile interrupt)(void *);
static void *volatile interrupt_user;
static volatile sig_atomic_t interrupts;
static struct timespec interrupted; /* the first; read and written by the handler alone */

static bool second_has_passed(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - interrupted.tv_sec) + (double)(now.tv_nsec - interrupted.tv_nsec) * 1e-9 > 1;
}

/* The first signal asks the job to stop, a later one ends the process. One that follows at once is the same
 * request: `timeout` signals the process and then its group, and wrappers pass on what the group got too. */
static void on_signal(int number) {
    (void)number;
    if (!interrupt) _exit(130);
    if (interrupts) {
        if (second_has_passed()) _exit(130);
        return;
    }
    interrupts = 1;
    clock_gettime(CLOCK_MONOTONIC, &interrupted);
    interrupt(interrupt_user);
}

void cli_on_interrupt(void (*cancel)(void *), void *user) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = cancel ? on_signal : SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    interrupt_user = user;
    interrupt = cancel;
    interrupts = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

#define LOST_PAGE "a file cannot be read any more where it was read before: it was cut, or its disk fails"
#define LOST_PAGE_FIX "Bring it back; a training run goes on with --resume."

/* Whether anybody reads what is said changes nothing. */
static void leave(int descriptor, const char *text, size_t size) {
    ssize_t ignored = write(descriptor, text, size);
    (void)ignored;
    _exit(3);
}

static void on_lost_page(int number) {
    static const char text[] = "hone: " LOST_PAGE ". " LOST_PAGE_FIX "\n";
    (void)number;
    leave(STDERR_FILENO, text, sizeof text - 1);
}

static void on_lost_page_json(int number) {
    static const char text[] = "{\"error\":{\"code\":\"input\",\"where\":\"hone\",\"what\":\"" LOST_PAGE
                               "\",\"why\":\"\",\"fix\":\"" LOST_PAGE_FIX "\"}}\n";
    (void)number;
    leave(STDOUT_FILENO, text, sizeof text - 1);
}

void cli_on_lost_page(const struct cli *cli) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = cli->json ? on_lost_page_json : on_lost_page;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

/* The run has ended, what is left is to say how. Where a signal ended it, one that follows is the same
 * request still and must not end the process before that is said. */
static void after_run(void) {
    if (!interrupts) cli_on_interrupt(NULL, NULL);
}

bool cli_refuse(struct hone_error *err, const char *where, const char *what, const char *fix) {
    memset(err, 0, sizeof *err);
    err->code = HONE_USAGE;
    snprintf(err->where, sizeof err->where, "%s", where);
    snprintf(err->what, sizeof err->what, "%s", what);
    snprintf(err->fix, sizeof err->fix, "%s", fix);
    return false;
}

void cli_end_line(struct cli *cli) {
    if (cli->streamed || cli->progress.drawn) putchar('\n');
    cli->streamed = cli->progress.drawn = false;
}

int cli_fail(struct cli *cli, const struct hone_error *err) {
    char *text = cli->json ? hone_error_json(err) : hone_error_text(err);
    cli_end_line(cli);
    fflush(stdout);
    if (cli->json) {
        puts(text ? text : "{\"error\":{\"code\":\"memory\"}}");
    } else {
        print_text(stderr, text ? text : "hone: out of memory", true);
        fputc('\n', stderr);
    }
    hone_free(text);
    return hone_exit_status(err->code);
}

struct listener {
    struct cli *cli;
    const struct command *command;
};

void cli_warn(const char *message) {
    fputs("warning: ", stderr);
    print_text(stderr, message, false);
    fputc('\n', stderr);
}

void cli_event_warning(struct cli *cli, const json_t *event) {
    (void)cli;
    if (strcmp(json_get_text(event, "event"), "warning") == 0) cli_warn(json_get_text(event, "message"));
}

/* Where stdout holds one object, a warning goes to stderr. */
static void warn_aside(const char *line) {
    json_t *event = cli_json(line);
    if (event) cli_event_warning(NULL, event);
    json_decref(event);
}

static void on_event(void *user, const char *line) {
    struct listener *listener = user;
    if (listener->cli->json) {
        /* The settings stand in recipe.yaml; here are the lines of events.jsonl alone. */
        if (!listener->command->events)
            warn_aside(line);
        else if (!strstr(line, "\"event\":\"recipe\""))
            puts(line);
        fflush(stdout); /* who reads a pipe wants each event as it happens */
        return;
    }
    if (!listener->command->event) return;
    json_t *event = cli_json(line);
    if (event) listener->command->event(listener->cli, event);
    json_decref(event);
}

static bool set_value(void *job, const char *name, const char *value, struct hone_error *err) {
    return hone_job_set(job, name, value, err);
}

static void cancel_job(void *job) { hone_job_cancel(job); }

static int show_result(struct cli *cli, const struct command *command, const char *text) {
    json_t *result = cli_json(text);
    if (!result) return hone_exit_status(HONE_MEMORY);
    if (!cli->json && command->show)
        command->show(cli, result);
    else if (cli->json && !command->events)
        puts(text);
    int status = command->status ? command->status(result) : 0;
    json_decref(result);
    return status;
}

int cli_run(struct cli *cli, const struct command *command, int argc, char **argv) {
    struct flags *flags = NULL;
    struct hone_job *job = NULL;
    struct hone_error err;
    struct listener listener = {cli, command};
    bool ok = hone_job_open(&job, command->name, &err) && flags_open(&flags, command->name, &err) &&
              flags_parse(flags, command, argc, argv, set_value, job, &err);
    if (ok) {
        hone_job_on_event(job, on_event, &listener);
        cli_on_interrupt(cancel_job, job);
        ok = hone_job_run(job, &err);
        after_run();
    }
    int status = ok ? show_result(cli, command, hone_job_result(job)) : cli_fail(cli, &err);
    flags_close(&flags);
    hone_job_close(&job);
    return status;
}
