/* hone: the table of commands, and the way to the one that was asked for. */
#include "cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In the order of help; a group's commands stand together. */
static const struct command *const commands[] = {
    &command_doctor,     &command_pull,                              /* get started */
    &command_data_check, &command_data_stats, &command_data_preview, /* data */
    &command_plan,       &command_train,                             /* train */
    &command_eval,       &command_bench,      &command_report,       /* measure */
    &command_generate,   &command_chat,                              /* use */
    &command_convert,    &command_settings,                          /* hand over */
};
enum { command_count = sizeof commands / sizeof *commands };

/* A command of two words ("data check") is found by both. Returns how many words it took. */
static int find_command(int argc, char **argv, const struct command **out) {
    char two[64];
    *out = NULL;
    if (argc > 1) snprintf(two, sizeof two, "%.30s %.30s", argv[0], argv[1]);
    for (size_t i = 0; i < command_count; i++) {
        bool pair = argc > 1 && strcmp(commands[i]->name, two) == 0;
        if (!pair && strcmp(commands[i]->name, argv[0]) != 0) continue;
        *out = commands[i];
        return pair ? 2 : 1;
    }
    return 0;
}

/* "hone data" alone: the commands that begin with it. */
static bool show_family(const char *word) {
    const struct command *family[command_count];
    size_t count = 0, size = strlen(word);
    for (size_t i = 0; i < command_count; i++)
        if (strncmp(commands[i]->name, word, size) == 0 && commands[i]->name[size] == ' ')
            family[count++] = commands[i];
    if (count) help_overview(stdout, family, count);
    return count != 0;
}

static bool is_help(const char *word) { return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0; }

static bool wants(int argc, char **argv, const char *flag) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], flag) == 0) return true;
    return false;
}

/* As settings of type bool are read; what is neither yes nor no is refused with the flags. */
static bool wants_json(int argc, char **argv) {
    static const char *const forms[] = {"--json", "--json=true", "--json=yes", "--json=on", "--json=1"};
    bool wanted = false;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) wanted |= wants(argc, argv, forms[i]);
    return wanted;
}

static int run_command(struct cli *cli, int argc, char **argv) {
    const struct command *command;
    struct hone_error err;
    bool help = argc > 1 && strcmp(argv[0], "help") == 0;
    argc -= help;
    argv += help;
    int words = find_command(argc, argv, &command);
    if (!command) {
        if (argc < 2 || is_help(argv[1])) {
            if (show_family(argv[0])) return 0;
        }
        struct hone_job *job;
        char name[128];
        snprintf(name, sizeof name, "%.60s%s%.60s", argv[0],
                 argc > 1 && argv[1][0] != '-' && strcmp(argv[0], "data") == 0 ? " " : "",
                 argc > 1 && argv[1][0] != '-' && strcmp(argv[0], "data") == 0 ? argv[1] : "");
        if (hone_job_open(&job, name, &err))
            cli_refuse(&err, "hone", "this command has no place in the table", "");
        hone_job_close(&job);
        return cli_fail(cli, &err);
    }
    argc -= words;
    argv += words;
    if (help || wants(argc, argv, "--help") || wants(argc, argv, "-h"))
        return help_command(stdout, command, &err) ? 0 : cli_fail(cli, &err);
    return (command->run ? command->run : cli_run)(cli, command, argc, argv);
}

int main(int argc, char **argv) {
    /* A file that may not grow any more is an error of the write, as a full disk is. */
    signal(SIGXFSZ, SIG_IGN);
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    struct cli cli = {.json = wants_json(argc, argv), .terminal = isatty(1)};
    cli.color = cli.terminal && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
    if (term && strcmp(term, "dumb") == 0) cli.terminal = false;
    cli_on_lost_page(&cli);
    if (argc < 2 || is_help(argv[1]) || (strcmp(argv[1], "help") == 0 && argc == 2)) {
        help_overview(argc < 2 ? stderr : stdout, commands, command_count);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("hone %s\n", hone_version());
        return 0;
    }
    int status = run_command(&cli, argc - 1, argv + 1);
    /* A full disk or a closed pipe behind stdout must not pass for success; it may have failed long ago, at
     * an event of a run. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        fputs("hone: not all of the output could be written.\n", stderr);
        status = 1;
    }
    return status;
}
