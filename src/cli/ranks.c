/* Several processes for one run: started here where --device names several, or by a launcher that tells each
 * its rank in the environment. The first speaks; what another one says of its end is shown when it was the
 * first to end. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { most_ranks = 64, added = 4 };
static const double grace = 1, last_grace = 30; /* seconds */

/* How launchers tell a process its rank, how many there are, and how many of them are on this machine. */
static const struct launcher {
    const char *name, *rank, *size, *here;
} launchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"},
};

/* Runs the command as one of several. */
static int run_rank(struct cli *cli, const struct command *command, int argc, char **argv, const char *rank,
                    const char *size) {
    char **all = calloc((size_t)argc + added + 1, sizeof *all);
    if (!all) return hone_exit_status(HONE_MEMORY);
    const char *more[added] = {"--rank", rank, "--world-size", size};
    memcpy(all, argv, (size_t)argc * sizeof *all);
    for (int i = 0; i < added; i++) all[argc + i] = (char *)(size_t)more[i];
    if (strcmp(rank, "0") != 0 && !freopen("/dev/null", "w", stdout)) cli->terminal = false;
    int status = cli_run(cli, command, argc + added, all);
    free(all);
    return status;
}

static const char *device_list(int argc, char **argv) {
    static const char flag[] = "--device";
    const char *found = NULL;
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], flag) == 0 && i + 1 < argc) found = argv[i + 1];
        if (strncmp(argv[i], flag, sizeof flag - 1) == 0 && argv[i][sizeof flag - 1] == '=')
            found = argv[i] + sizeof flag;
    }
    return found && strchr(found, ',') ? found : NULL;
}

/* ---- starting them ---- */

struct child {
    pid_t process; /* 0: it has ended */
    int status;    /* its exit status */
    FILE *said;    /* what another than the first wrote to stderr */
};

/* What the signal handler reaches. */
static volatile pid_t running[most_ranks];

static void pass_on(int number) {
    int kept = errno;
    for (int r = 0; r < most_ranks; r++)
        if (running[r] > 0) kill(running[r], number);
    errno = kept;
}

static void pass_signals_on(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = pass_on;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static bool start(struct child *child, int rank, int size, struct cli *cli, const struct command *command,
                  int argc, char **argv) {
    char rank_text[16], size_text[16];
    child->said = rank ? tmpfile() : NULL;
    fflush(NULL);
    child->process = fork();
    if (child->process < 0) return false;
    if (child->process) {
        running[rank] = child->process;
        return true;
    }
    if (child->said) dup2(fileno(child->said), 2);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    snprintf(rank_text, sizeof rank_text, "%d", rank);
    snprintf(size_text, sizeof size_text, "%d", size);
    int status = run_rank(cli, command, argc, argv, rank_text, size_text);
    if (fflush(stdout) != 0 && status == 0) status = 1;
    exit(status);
}

/* Not by Ctrl-Z, which stops who would say so too. */
static void tell_stopped(const struct child *children, int size, pid_t process) {
    for (int r = 0; r < size; r++)
        if (children[r].process == process)
            fprintf(stderr, "process %d (%ld) was stopped; the others wait for it\n", r, (long)process);
}

/* Waits for one of them, with `patience` (seconds) no longer than that. Returns its rank; -1: there is none.
 */
static int wait_for_one(struct child *children, int size, double patience) {
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int status;
    pid_t ended;
    bool again;
    do {
        ended = waitpid(-1, &status, WUNTRACED | (patience > 0 ? WNOHANG : 0));
        bool stopped = ended > 0 && WIFSTOPPED(status);
        if (stopped) tell_stopped(children, size, ended);
        again = stopped || (ended < 0 && errno == EINTR) || (ended == 0 && (patience -= 0.01) > 0);
        if (ended == 0 && again) nanosleep(&pause, NULL);
    } while (again);
    for (int r = 0; r < size; r++) {
        if (ended <= 0 || children[r].process != ended) continue;
        children[r].process = running[r] = 0;
        children[r].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return r;
    }
    return -1;
}

static void show_said(FILE *said, int rank) {
    char line[1024];
    if (!said) return;
    rewind(said);
    while (fgets(line, sizeof line, said)) fprintf(stderr, "process %d: %s", rank, line);
}

/* The status of the first that fails is everybody's; the rest cannot go on without it. What it said is shown
 * where the first process has not said the same. */
static int wait_for_all(struct child *children, int size) {
    int cause = -1, rank;
    while (cause < 0 && (rank = wait_for_one(children, size, 0)) >= 0)
        if (children[rank].status) cause = rank;
    if (cause < 0) return 0;
    while (wait_for_one(children, size, grace) >= 0) continue; /* they may end of themselves, and say why */
    pass_on(SIGTERM);
    while (wait_for_one(children, size, last_grace) >= 0) continue;
    pass_on(SIGKILL); /* one may wait for another's GPU */
    while (wait_for_one(children, size, 0) >= 0) continue;
    for (int r = 0; r < size; r++) { /* the others end because of it, and may be seen first */
        int number = children[r].status - 128;
        if (number <= 0 || number == SIGTERM || children[r].status == hone_exit_status(HONE_INTERRUPTED))
            continue;
        fprintf(stderr, "process %d was ended by signal %d\n", r, number);
        return children[r].status;
    }
    if (children[cause].status != children[0].status) show_said(children[cause].said, cause);
    return children[cause].status;
}

static int run_all(struct cli *cli, const struct command *command, int argc, char **argv, int size) {
    struct child children[most_ranks];
    memset(children, 0, sizeof children);
    pass_signals_on();
    for (int r = 0; r < size; r++)
        if (!start(&children[r], r, size, cli, command, argc, argv)) {
            fprintf(stderr, "hone: process %d cannot be started: %s\n", r, strerror(errno));
            pass_on(SIGTERM);
            wait_for_all(children, size);
            return hone_exit_status(HONE_FAILED);
        }
    int status = wait_for_all(children, size);
    for (int r = 0; r < size; r++)
        if (children[r].said) fclose(children[r].said);
    return status;
}

int cli_run_ranks(struct cli *cli, const struct command *command, int argc, char **argv) {
    struct hone_error err;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const struct launcher *launcher = &launchers[i];
        const char *rank = getenv(launcher->rank), *size = getenv(launcher->size),
                   *here = getenv(launcher->here);
        if (!rank || !size || strcmp(size, "1") == 0) continue;
        if (!here || strcmp(here, size) == 0) return run_rank(cli, command, argc, argv, rank, size);
        cli_refuse(&err, launcher->name, "the processes are on several machines",
                   "A run is shared by processes of one machine.");
        return cli_fail(cli, &err);
    }
    const char *list = device_list(argc, argv);
    if (!list) return cli_run(cli, command, argc, argv);
    int size = 1;
    for (const char *at = list; *at; at++) size += *at == ',';
    if (size <= most_ranks) return run_all(cli, command, argc, argv, size);
    cli_refuse(&err, "train", "--device names more than 64 devices", "Name fewer.");
    return cli_fail(cli, &err);
}
