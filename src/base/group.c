#include "base/group.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs_internal.h"
#include "base/mem.h"
#include "base/thread.h"

#ifndef MSG_NOSIGNAL /* macOS: an option of the socket */
#define MSG_NOSIGNAL 0
#endif

enum { most_ranks = 1024, chunk = 1 << 16 /* numbers that travel at a time */, wait_ms = 50 };
static const double slow_seconds = 60;
static const double hello_seconds = 1; /* ours say who they are as soon as they have connected */

struct group {
    int rank, size;
    int *peers; /* [size]: sockets; of rank 0 to each other one, of the others to rank 0; -1 elsewhere */
    void (*waits)(void *user, int rank, double seconds);
    void *user;
    double slow;
};

/* One that is waited for; the sockets of a group give up after `slow` seconds, to be asked again. */
struct waiting {
    const struct group *group;
    int rank, times;
};

/* False: it was no waiting, but a failure. */
static bool waits_on(struct waiting *waiting) {
    if (errno == EINTR) return true;
    if (!waiting || (errno != EAGAIN && errno != EWOULDBLOCK)) return false;
    const struct group *group = waiting->group;
    int times = ++waiting->times;
    if (group->waits && !(times & (times - 1))) group->waits(group->user, waiting->rank, times * group->slow);
    return true;
}

/* What a process says of itself when it comes, and what it hears. */
struct hello {
    char name[16];
    int rank, size;
    struct digest facts;
};
enum answer { ANSWER_WELCOME = 'w', ANSWER_STRANGER = 's' };
static const char protocol[16] = "hone group 1";

int group_rank(const struct group *group) { return group->rank; }
int group_size(const struct group *group) { return group->size; }

static bool lost(int rank, struct error *err) {
    error_set(err, ERROR_FAILED, "group", "process %d of the run is gone", rank);
    return error_fix(err,
                     "See what it said; the same command with --resume goes on from the last checkpoint.");
}

static bool send_all(int socket, const void *data, size_t bytes, struct waiting *waiting) {
    for (const char *at = data; bytes;) {
        ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL);
        if (sent < 0 && waits_on(waiting)) continue;
        if (sent <= 0) return false;
        if (waiting) waiting->times = 0;
        at += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

/* What has come of the `bytes` that go to `at`; both go on behind it. */
static bool receive_some(int socket, char **at, size_t *bytes, struct waiting *waiting) {
    ssize_t got = recv(socket, *at, *bytes, 0);
    if (got < 0 && waits_on(waiting)) return true;
    if (got <= 0) return false;
    if (waiting) waiting->times = 0;
    *at += got;
    *bytes -= (size_t)got;
    return true;
}

static bool send_to(const struct group *group, int rank, const void *data, size_t bytes) {
    struct waiting waiting = {group, rank, 0};
    return send_all(group->peers[rank], data, bytes, &waiting);
}

static bool receive_from(const struct group *group, int rank, void *data, size_t bytes) {
    struct waiting waiting = {group, rank, 0};
    for (char *at = data; bytes;)
        if (!receive_some(group->peers[rank], &at, &bytes, &waiting)) return false;
    return true;
}

/* ---- coming together ---- */

/* The path of a directory without links, as far as it is there; what is not there yet follows as it is given.
 */
static bool whole_path(const char *place, struct buf *out) {
    char *head = mem_strdup(place), *real = NULL;
    size_t size = strlen(place), cut;
    while (size && place[size - 1] == '/') size--;
    for (cut = size; head && !real; cut--) {
        head[cut] = '\0';
        real = realpath(cut ? head : *place == '/' ? "/" : ".", NULL);
        if (real || !cut) break;
        while (cut > 1 && place[cut - 1] != '/') cut--;
    }
    mem_free(head);
    if (!real) return false;
    while (cut < size && place[cut] == '/') cut++;
    buf_text(out, real);
    free(real);
    if (cut < size) buf_printf(out, "/%.*s", (int)(size - cut), place + cut);
    return !out->failed;
}

/* A short path, since a socket's may have only some hundred bytes: the user and the directory's digest. */
static bool socket_path(const char *place, struct sockaddr_un *out, struct error *err) {
    struct digest digest;
    const char *folder = getenv("TMPDIR");
    struct buf whole = {0};
    bool known = whole_path(place, &whole);
    if (known) digest_bytes(whole.data, whole.size, &digest);
    buf_release(&whole);
    if (!known) return error_set(err, ERROR_FAILED, "group", "%s: %s", place, strerror(errno));
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (!folder || strlen(folder) > 40) folder = "/tmp";
    snprintf(out->sun_path, sizeof out->sun_path, "%s/hone-%lu-%.16s.socket", folder, (unsigned long)getuid(),
             digest.hex);
    return true;
}

static bool same_user(int socket) {
#ifdef SO_PEERCRED
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
#else
    uid_t user;
    gid_t group;
    return getpeereid(socket, &user, &group) == 0 && user == getuid();
#endif
}

static int open_socket(struct error *err) {
    int made = fs_apart(socket(AF_UNIX, SOCK_STREAM, 0));
    if (made < 0) error_set(err, ERROR_FAILED, "group", "no socket: %s", strerror(errno));
#ifdef SO_NOSIGPIPE
    int on = 1;
    if (made >= 0) setsockopt(made, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    return made;
}

/* False when it has been waited long enough, or a stop was asked for. */
static bool still_waiting(const struct group_options *options, double until, int missing, struct error *err) {
    if (options->stop && atomic_load(options->stop))
        return error_set(err, ERROR_INTERRUPTED, "group", "stopped while waiting for the other processes");
    if (clock_seconds() < until) return true;
    error_set(err, ERROR_FAILED, "group", "process %d of %d has not come within %.0f s", missing,
              options->size, options->patience);
    return error_fix(err, "All processes of a run are started on one machine with the same settings.");
}

/* As receive_from, of one that may be silent: not beyond `until`, and not when a stop was asked for. */
static bool hear(int socket, void *data, size_t bytes, const struct group_options *options, double until) {
    for (char *at = data; bytes;) {
        struct pollfd look = {.fd = socket, .events = POLLIN};
        bool stop = options->stop && atomic_load(options->stop);
        if (stop || clock_seconds() >= until) return false;
        if (poll(&look, 1, wait_ms) > 0 && !receive_some(socket, &at, &bytes, NULL)) return false;
    }
    return true;
}

/* Takes in one that has connected; a stranger is sent away and the wait goes on. */
static bool let_in(struct group *group, int socket, const struct group_options *options, struct error *err) {
    struct hello hello;
    char answer = ANSWER_STRANGER;
    if (!same_user(socket) || !hear(socket, &hello, sizeof hello, options, clock_seconds() + hello_seconds)) {
        close(socket);
        return true;
    }
    bool ours = !memcmp(hello.name, protocol, sizeof protocol) && hello.size == group->size &&
                hello.rank > 0 && hello.rank < group->size && group->peers[hello.rank] < 0;
    bool same = ours && !memcmp(&hello.facts, &options->facts, sizeof hello.facts);
    if (same) answer = ANSWER_WELCOME;
    if (same && send_all(socket, &answer, 1, NULL)) {
        group->peers[hello.rank] = socket;
        return true;
    }
    send_all(socket, &answer, 1, NULL);
    close(socket);
    return !ours || same ||
           error_set(err, ERROR_USAGE, "group", "process %d was started with other settings or data",
                     hello.rank);
}

static int missing_rank(const struct group *group) {
    for (int r = 1; r < group->size; r++)
        if (group->peers[r] < 0) return r;
    return 0;
}

static bool wait_for_all(struct group *group, const struct group_options *options, struct error *err) {
    struct sockaddr_un address;
    if (!socket_path(options->place, &address, err)) return false;
    int listener = open_socket(err);
    if (listener < 0) return false;
    unlink(address.sun_path); /* what a killed process left there */
    bool ok = bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
              chmod(address.sun_path, S_IRUSR | S_IWUSR) == 0 && listen(listener, group->size) == 0;
    if (!ok) error_set(err, ERROR_FAILED, "group", "%s: %s", address.sun_path, strerror(errno));
    double until = clock_seconds() + options->patience;
    while (ok && missing_rank(group)) {
        struct pollfd look = {.fd = listener, .events = POLLIN};
        int found = poll(&look, 1, wait_ms) > 0 ? fs_apart(accept(listener, NULL, NULL)) : -1;
        ok = found < 0 || let_in(group, found, options, err);
        ok = ok && (!missing_rank(group) || still_waiting(options, until, missing_rank(group), err));
    }
    close(listener);
    unlink(address.sun_path);
    return ok;
}

/* Rank 0 may not be there yet. */
static bool join(struct group *group, const struct group_options *options, struct error *err) {
    struct sockaddr_un address;
    struct hello hello;
    const struct timespec pause = {.tv_nsec = wait_ms * 1000000L};
    double until = clock_seconds() + options->patience;
    char answer = 0;
    memset(&hello, 0, sizeof hello);
    memcpy(hello.name, protocol, sizeof protocol);
    hello.rank = group->rank;
    hello.size = group->size;
    hello.facts = options->facts;
    for (;;) {
        int found = open_socket(err);
        if (found < 0) return false;
        struct error not_yet;
        if (socket_path(options->place, &address, &not_yet) &&
            connect(found, (struct sockaddr *)&address, sizeof address) == 0 && same_user(found) &&
            send_all(found, &hello, sizeof hello, NULL) && hear(found, &answer, 1, options, until)) {
            group->peers[0] = found;
            return answer == ANSWER_WELCOME ||
                   error_set(err, ERROR_USAGE, "group", "process 0 was started with other settings or data");
        }
        close(found);
        if (!still_waiting(options, until, 0, err)) return false;
        nanosleep(&pause, NULL);
    }
}

static void give_up_after(const struct group *group, int rank) {
    double whole = floor(group->slow);
    struct timeval time = {.tv_sec = (time_t)whole, .tv_usec = (suseconds_t)((group->slow - whole) * 1e6)};
    if (group->peers[rank] < 0) return;
    setsockopt(group->peers[rank], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    setsockopt(group->peers[rank], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

bool group_open(struct group **out, const struct group_options *options, struct error *err) {
    *out = NULL;
    if (options->size < 1 || options->size > most_ranks || options->rank < 0 ||
        options->rank >= options->size)
        return error_set(err, ERROR_USAGE, "group", "rank %d of %d processes", options->rank, options->size);
    struct group *group = mem_calloc(1, sizeof *group);
    if (!group) return error_no_memory(err, "group", sizeof *group);
    group->rank = options->rank;
    group->size = options->size;
    group->waits = options->waits;
    group->user = options->user;
    group->slow = options->slow > 0 ? options->slow : slow_seconds;
    group->peers = mem_array((size_t)options->size, sizeof *group->peers);
    for (int r = 0; group->peers && r < options->size; r++) group->peers[r] = -1;
    bool ok = group->peers ? group->rank ? join(group, options, err) : wait_for_all(group, options, err)
                           : error_no_memory(err, "group", 0);
    for (int r = 0; ok && r < group->size; r++) give_up_after(group, r);
    if (!ok) group_close(&group);
    *out = group;
    return ok;
}

void group_close(struct group **handle) {
    struct group *group = *handle;
    if (!group) return;
    for (int r = 0; group->peers && r < group->size; r++)
        if (group->peers[r] >= 0) close(group->peers[r]);
    mem_free(group->peers);
    mem_free(group);
    *handle = NULL;
}

/* ---- adding up ---- */

static void add_f32(void *sum, const void *data, size_t count) {
    float *to = sum;
    const float *from = data;
    for (size_t i = 0; i < count; i++) to[i] += from[i];
}

static void add_f64(void *sum, const void *data, size_t count) {
    double *to = sum;
    const double *from = data;
    for (size_t i = 0; i < count; i++) to[i] += from[i];
}

static bool to_all(struct group *group, const void *data, size_t bytes, struct error *err) {
    for (int r = 1; r < group->size; r++)
        if (!send_to(group, r, data, bytes)) return lost(r, err);
    return true;
}

static bool sum_chunk(struct group *group, char *data, void *scratch, size_t count, size_t size,
                      void (*add)(void *, const void *, size_t), struct error *err) {
    if (group->rank)
        return (send_to(group, 0, data, count * size) && receive_from(group, 0, data, count * size)) ||
               lost(0, err);
    for (int r = 1; r < group->size; r++) {
        if (!receive_from(group, r, scratch, count * size)) return lost(r, err);
        add(data, scratch, count);
    }
    return to_all(group, data, count * size, err);
}

static bool sum(struct group *group, void *data, size_t count, size_t size,
                void (*add)(void *, const void *, size_t), struct error *err) {
    void *scratch = group->rank ? NULL : mem_array(chunk, size);
    bool ok = group->rank || scratch || error_no_memory(err, "group", chunk * size);
    for (size_t at = 0; ok && at < count; at += chunk)
        ok = sum_chunk(group, (char *)data + at * size, scratch, count - at < chunk ? count - at : chunk,
                       size, add, err);
    mem_free(scratch);
    return ok;
}

bool group_sum_f32(struct group *group, float *data, size_t count, struct error *err) {
    return sum(group, data, count, sizeof *data, add_f32, err);
}

bool group_sum_f64(struct group *group, double *data, size_t count, struct error *err) {
    return sum(group, data, count, sizeof *data, add_f64, err);
}

bool group_broadcast(struct group *group, void *data, size_t bytes, struct error *err) {
    if (!group->rank) return to_all(group, data, bytes, err);
    return receive_from(group, 0, data, bytes) || lost(0, err);
}
