/* The command line: a coat over the public library. It parses flags from the library's list of settings, runs
 * the job of that name and shows events and the result; nothing here knows a model, a file or a number.
 *
 * Words: command (a row of the table in main.c, and a file), job (the library's). */
#ifndef HONE_CLI_CLI_H
#define HONE_CLI_CLI_H

#include <hone/hone.h>
#include <jansson.h>
#include <stdio.h>

/* How to speak, decided once at the start; and what was said so far. */
struct cli {
    bool json;     /* stdout holds JSON only */
    bool terminal; /* stdout is a terminal: a bar is drawn, text from models is escaped */
    bool color;
    bool streamed; /* an answer was printed piece by piece */
    struct progress {
        double first, last, total; /* steps: before this process began, now, in all */
        double seconds;            /* spent on steps and evaluations by this process */
        double printed;            /* step of the last plain line */
        bool drawn;                /* a bar stands on the last line */
    } progress;
};

struct command {
    const char *name;       /* also the job's name */
    const char *group;      /* a heading of `hone --help` */
    const char *summary;    /* one line */
    const char *usage;      /* "hone train --model NAME --data FILE --output DIR" */
    const char *positional; /* the setting that takes words without a flag, or NULL */
    const char *examples;   /* lines */
    bool events;            /* with --json, print the events and not the result */
    /* What to do with an event while the job runs (NULL: nothing), and with its result. */
    void (*event)(struct cli *cli, const json_t *event);
    void (*show)(struct cli *cli, const json_t *result);
    int (*status)(const json_t *result); /* exit status after success; NULL: 0 */
    /* In place of the usual run; NULL: cli_run. Returns the exit status. */
    int (*run)(struct cli *cli, const struct command *command, int argc, char **argv);
};

/* A row per file. */
extern const struct command command_doctor, command_pull, command_data_check, command_data_stats,
    command_data_preview, command_plan, command_train, command_eval, command_generate, command_chat,
    command_bench, command_convert, command_report, command_settings;

/* Opens the job, takes the flags, runs it, shows the result. argv[0] is the first word after the command.
 * SIGINT and SIGTERM cancel the job; a second one leaves at once. */
int cli_run(struct cli *cli, const struct command *command, int argc, char **argv);

/* The same, by several processes where --device names several or a launcher says so. */
int cli_run_ranks(struct cli *cli, const struct command *command, int argc, char **argv);

/* The parts of cli_run, for commands that do it their own way. */
struct flags; /* what a command takes */
bool flags_open(struct flags **out, const char *job, struct hone_error *err);
void flags_close(struct flags **flags);
/* Hands each flag of argv to `take` as name and value (NULL for a flag that stands alone). */
bool flags_parse(const struct flags *flags, const struct command *command, int argc, char **argv,
                 bool (*take)(void *user, const char *name, const char *value, struct hone_error *err),
                 void *user, struct hone_error *err);
/* Where a part of an answer or a bar stands on the last line: begins the next one. */
void cli_end_line(struct cli *cli);
/* Prints the error (JSON on stdout with --json, else a line on stderr) and returns its exit status. */
int cli_fail(struct cli *cli, const struct hone_error *err);
/* "warning: …" on stderr, where stdout holds an answer. */
void cli_warn(const char *message);
/* The same of an event that is a warning; of others nothing. */
void cli_event_warning(struct cli *cli, const json_t *event);
bool cli_refuse(struct hone_error *err, const char *where, const char *what,
                const char *fix); /* HONE_USAGE; returns false */
/* Lets SIGINT and SIGTERM call `cancel`, which must be safe in a handler; NULL gives them back. */
void cli_on_interrupt(void (*cancel)(void *), void *user);
/* Models are mapped: where a page of one is gone, SIGBUS ends the process, here with a sentence and status 3.
 */
void cli_on_lost_page(const struct cli *cli);

/* Help. */
void help_overview(FILE *out, const struct command *const *commands, size_t count);
bool help_command(FILE *out, const struct command *command, struct hone_error *err);

/* An event of a training run: the bar, or a line. */
void progress_event(struct cli *cli, const json_t *event);
/* Takes the bar away, for what is printed next. */
void progress_end(struct cli *cli);
/* The plan as a small table. */
void progress_plan(const json_t *plan);

/* Measured rates of a device, a line each. */
void show_rates(const json_t *rates);

/* Text of strangers, escaped. */
void print_text(FILE *out, const char *text, bool keep_lines);
/* Bad rows, a line each: file, line, cause. */
void print_problems(const json_t *result);
/* The form that goes with a count: `one` with 1, `many` with every other. */
const char *print_plural(double count, const char *one, const char *many);
/* "1.5 GiB" into out[32]; returns out. */
const char *print_bytes(double bytes, char out[32]);
/* "1.5 M", "812" into out[32]; returns out. */
const char *print_count(double count, char out[32]);
/* "3m12s", "48s", "2h05m" into out[32]; returns out. */
const char *print_seconds(double seconds, char out[32]);
/* "2.0812" into out[32], or "not finite", which JSON has no number for; returns out. */
const char *print_loss(const json_t *object, const char *key, char out[32]);
/* What the library tells; an answer may hold NUL characters. NULL when out of memory. */
json_t *cli_json(const char *text);
double json_get_number(const json_t *object, const char *key);    /* 0 when it is not there */
const char *json_get_text(const json_t *object, const char *key); /* "" when it is not there */

#endif
