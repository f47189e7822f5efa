/* Processes that add up: here each is a thread with a handle of its own. */
#include "support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/group.h"
#include "base/mem.h"
#include "base/thread.h"

enum { most = 5, numbers = 150001 /* more than travel at a time */ };

struct member {
    struct group_options options;
    struct error err;
    bool came, summed, told;
    bool leaves;   /* at once, without a word */
    double rests;  /* before it adds its part, seconds */
    int waited[2]; /* how often it was told so of rank 0 and 1 */
    float *data;
    double wide[3];
    char text[32];
};

static float number(int rank, size_t i) { return (float)(rank + 1) * 0.1f + (float)(i % 1000) * 1e-3f; }

static void rest(double seconds) {
    const struct timespec pause = {.tv_sec = (time_t)seconds,
                                   .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
}

static void *live(void *user) {
    struct member *m = user;
    struct group *group;
    int rank = m->options.rank;
    m->came = group_open(&group, &m->options, &m->err);
    if (!m->came) return NULL;
    if (!m->leaves) {
        rest(m->rests);
        for (size_t i = 0; i < numbers; i++) m->data[i] = number(rank, i);
        for (int i = 0; i < 3; i++) m->wide[i] = rank + i / 8.0;
        snprintf(m->text, sizeof m->text, "said by %d", rank);
        m->summed =
            group_sum_f32(group, m->data, numbers, &m->err) && group_sum_f64(group, m->wide, 3, &m->err);
        m->told = m->summed && group_broadcast(group, m->text, sizeof m->text, &m->err);
    }
    group_close(&group);
    return NULL;
}

static void begin(struct member *members, int size, const char *place) {
    for (int r = 0; r < size; r++) {
        members[r] = (struct member){.options = {.rank = r, .size = size, .place = place, .patience = 20}};
        members[r].data = mem_array(numbers, sizeof(float));
        assert_non_null(members[r].data);
        digest_bytes("facts", 5, &members[r].options.facts);
    }
}

static void run(struct member *members, int size) {
    pthread_t threads[most];
    for (int r = size - 1; r >= 0; r--) /* the first comes last */
        assert_int_equal(pthread_create(&threads[r], NULL, live, &members[r]), 0);
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
}

static void end(struct member *members, int size) {
    for (int r = 0; r < size; r++) mem_free(members[r].data);
}

static void assert_error(bool failed, const struct error *err, enum error_code code, const char *words) {
    assert_true(failed);
    assert_int_equal(err->code, code);
    if (!strstr(err->what, words)) fail_msg("\"%s\" is not in \"%s\"", words, err->what);
}

static char *place;

static void sums_are_the_same_bits_everywhere(void **state) {
    (void)state;
    struct member members[most];
    for (int size = 2; size <= most; size++) {
        begin(members, size, place);
        run(members, size);
        for (int r = 0; r < size; r++) {
            assert_ok(members[r].came && members[r].summed && members[r].told, &members[r].err);
            assert_memory_equal(members[r].data, members[0].data, numbers * sizeof(float));
            assert_string_equal(members[r].text, "said by 0");
        }
        for (size_t i = 0; i < numbers; i++) { /* in the order of the ranks */
            float sum = number(0, i);
            for (int r = 1; r < size; r++) sum += number(r, i);
            if (sum != members[0].data[i]) fail_msg("number %zu is another", i);
        }
        for (int i = 0; i < 3; i++)
            assert_true(members[0].wide[i] == size * (size - 1) / 2.0 + size * i / 8.0);
        end(members, size);
    }
}

static void one_that_leaves_is_missed_by_all(void **state) {
    (void)state;
    struct member members[most];
    for (int gone = 0; gone < 3; gone++) {
        begin(members, 3, place);
        members[gone].leaves = true;
        run(members, 3);
        for (int r = 0; r < 3; r++) {
            if (r == gone) continue;
            assert_true(members[r].came);
            assert_error(!members[r].summed, &members[r].err, ERROR_FAILED, "is gone");
        }
        end(members, 3);
    }
}

static void a_place_may_be_made_later(void **state) {
    (void)state;
    struct member members[most];
    char later[600], slash[600];
    snprintf(later, sizeof later, "%s/later/run", place);
    snprintf(slash, sizeof slash, "%s/later/run/", place);
    begin(members, 2, later);
    members[1].options.place = slash;
    run(members, 2);
    for (int r = 0; r < 2; r++) assert_true(members[r].came && members[r].summed);
    end(members, 2);
}

static void note_waiting(void *user, int rank, double seconds) {
    struct member *m = user;
    assert_true(rank < 2 && seconds > 0.09);
    m->waited[rank]++;
}

static void one_that_is_slow_is_waited_for_and_named(void **state) {
    (void)state;
    struct member members[most];
    begin(members, 2, place);
    for (int r = 0; r < 2; r++) {
        members[r].options.waits = note_waiting;
        members[r].options.user = &members[r];
        members[r].options.slow = 0.1;
    }
    members[1].rests = 0.55; /* told after 0.1, 0.2 and 0.4 s; a busy machine may wait longer */
    run(members, 2);
    for (int r = 0; r < 2; r++) assert_true(members[r].came && members[r].summed && members[r].told);
    assert_in_range(members[0].waited[1], 3, 7);
    assert_int_equal(members[0].waited[0], 0);
    end(members, 2);
}

static void strangers_are_told(void **state) {
    (void)state;
    struct member members[most];
    begin(members, 2, place);
    digest_bytes("other", 5, &members[1].options.facts);
    run(members, 2);
    for (int r = 0; r < 2; r++)
        assert_error(!members[r].came, &members[r].err, ERROR_USAGE, "other settings or data");
    end(members, 2);
}

static void waiting_ends(void **state) {
    (void)state;
    struct group *group;
    struct error err;
    atomic_int stop = 0;
    struct group_options options = {.size = 2, .place = place, .patience = 0.1};
    for (options.rank = 0; options.rank < 2; options.rank++)
        assert_error(!group_open(&group, &options, &err), &err, ERROR_FAILED, "has not come");
    atomic_store(&stop, 1);
    options.stop = &stop;
    for (options.rank = 0; options.rank < 2; options.rank++)
        assert_error(!group_open(&group, &options, &err), &err, ERROR_INTERRUPTED, "stopped");
    options.rank = 7;
    assert_error(!group_open(&group, &options, &err), &err, ERROR_USAGE, "rank 7 of 2");
}

/* ---- one that connects, or listens, and says nothing ---- */

/* Where the processes of `place` meet, as base/group.c names it. */
static struct sockaddr_un meeting_place(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct digest digest;
    const char *folder = getenv("TMPDIR");
    char *whole = realpath(place, NULL);
    assert_non_null(whole);
    digest_bytes(whole, strlen(whole), &digest);
    free(whole);
    if (!folder || strlen(folder) > 40) folder = "/tmp";
    snprintf(address.sun_path, sizeof address.sun_path, "%s/hone-%lu-%.16s.socket", folder,
             (unsigned long)getuid(), digest.hex);
    return address;
}

static const double too_long = 10; /* what is silent closes after it, so that this test ends either way */

/* Comes before everyone else. */
static void *say_nothing(void *user) {
    const atomic_int *over = user;
    struct sockaddr_un address = meeting_place();
    double until = clock_seconds() + too_long;
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(made, (struct sockaddr *)&address, sizeof address) && clock_seconds() < until) rest(0.01);
    while (!atomic_load(over) && clock_seconds() < until) rest(0.01);
    close(made);
    return NULL;
}

static void a_silent_visitor_keeps_nobody_out(void **state) {
    (void)state;
    struct member members[most];
    pthread_t threads[2], visitor;
    atomic_int over = 0;
    begin(members, 2, place);
    double start = clock_seconds();
    assert_int_equal(pthread_create(&visitor, NULL, say_nothing, &over), 0);
    assert_int_equal(pthread_create(&threads[0], NULL, live, &members[0]), 0);
    rest(0.3); /* the visitor is heard first */
    assert_int_equal(pthread_create(&threads[1], NULL, live, &members[1]), 0);
    for (int r = 0; r < 2; r++) pthread_join(threads[r], NULL);
    double took = clock_seconds() - start;
    atomic_store(&over, 1);
    pthread_join(visitor, NULL);
    for (int r = 0; r < 2; r++) assert_ok(members[r].came && members[r].summed, &members[r].err);
    if (took > too_long - 1) fail_msg("they met after %.1f s", took);
    end(members, 2);
}

/* What one of this group says first, laid out as in base/group.c. */
struct greeting {
    char name[16];
    int rank, size;
    struct digest facts;
};

/* The answer to it, 'w' or 's'; 0: none. */
static char greet(const struct greeting *greeting) {
    struct sockaddr_un address = meeting_place();
    char answer = 0;
    double until = clock_seconds() + too_long;
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(made, (struct sockaddr *)&address, sizeof address) && clock_seconds() < until) rest(0.01);
    if (send(made, greeting, sizeof *greeting, 0) != sizeof *greeting || recv(made, &answer, 1, 0) != 1)
        answer = 0;
    close(made);
    return answer;
}

/* Those who say something else than the one that is missing, and the group comes together all the same. */
static void whoever_does_not_belong_is_sent_away(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int rank, size;
    } strangers[] = {{"hone group 1", 0, 2}, {"hone group 1", -1, 2}, {"hone group 1", 2, 2},
                     {"hone group 1", 1, 3}, {"hone group 1", 1, 1},  {"hone group 2", 1, 2}};
    struct member members[most];
    pthread_t threads[2];
    begin(members, 2, place);
    assert_int_equal(pthread_create(&threads[0], NULL, live, &members[0]), 0);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        struct greeting greeting = {.rank = strangers[i].rank, .size = strangers[i].size};
        snprintf(greeting.name, sizeof greeting.name, "%s", strangers[i].name);
        digest_bytes("facts", 5, &greeting.facts);
        char answer = greet(&greeting);
        if (answer != 's') fail_msg("stranger %zu is answered '%c'", i, answer);
    }
    assert_int_equal(pthread_create(&threads[1], NULL, live, &members[1]), 0);
    for (int r = 0; r < 2; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < 2; r++) assert_ok(members[r].came && members[r].summed, &members[r].err);
    end(members, 2);
}

/* Of two with one rank the later is sent away. */
static void a_rank_is_taken_once(void **state) {
    (void)state;
    struct member members[most];
    pthread_t threads[3];
    struct greeting again = {.name = "hone group 1", .rank = 1, .size = 3};
    begin(members, 3, place);
    again.facts = members[1].options.facts;
    for (int r = 0; r < 2; r++) assert_int_equal(pthread_create(&threads[r], NULL, live, &members[r]), 0);
    rest(0.3); /* rank 1 is in */
    char answer = greet(&again);
    assert_int_equal(pthread_create(&threads[2], NULL, live, &members[2]), 0);
    for (int r = 0; r < 3; r++) pthread_join(threads[r], NULL);
    assert_int_equal(answer, 's');
    for (int r = 0; r < 3; r++) assert_ok(members[r].came && members[r].summed, &members[r].err);
    end(members, 3);
}

struct listener {
    int socket;
    atomic_int over;
};

static void *hear_nothing(void *user) {
    struct listener *listener = user;
    double until = clock_seconds() + too_long;
    while (!atomic_load(&listener->over) && clock_seconds() < until) rest(0.01);
    close(listener->socket);
    return NULL;
}

/* It is there, and takes nobody in. */
static void a_first_one_that_hangs_is_not_waited_for_longer(void **state) {
    (void)state;
    struct sockaddr_un address = meeting_place();
    struct listener listener = {.socket = socket(AF_UNIX, SOCK_STREAM, 0)};
    struct group *group;
    struct error err;
    pthread_t thread;
    atomic_int stop = 0;
    struct group_options options = {.rank = 1, .size = 2, .place = place, .patience = 0.2};
    unlink(address.sun_path);
    assert_int_equal(bind(listener.socket, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener.socket, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, hear_nothing, &listener), 0);
    double start = clock_seconds();
    assert_error(!group_open(&group, &options, &err), &err, ERROR_FAILED, "has not come");
    options.patience = 20;
    options.stop = &stop;
    atomic_store(&stop, 1);
    assert_error(!group_open(&group, &options, &err), &err, ERROR_INTERRUPTED, "stopped");
    double took = clock_seconds() - start;
    atomic_store(&listener.over, 1);
    pthread_join(thread, NULL);
    unlink(address.sun_path);
    if (took > too_long - 1) fail_msg("it was waited for %.1f s", took);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_same_bits_everywhere),
        cmocka_unit_test(one_that_leaves_is_missed_by_all),
        cmocka_unit_test(a_place_may_be_made_later),
        cmocka_unit_test(one_that_is_slow_is_waited_for_and_named),
        cmocka_unit_test(strangers_are_told),
        cmocka_unit_test(waiting_ends),
        cmocka_unit_test(a_silent_visitor_keeps_nobody_out),
        cmocka_unit_test(whoever_does_not_belong_is_sent_away),
        cmocka_unit_test(a_rank_is_taken_once),
        cmocka_unit_test(a_first_one_that_hangs_is_not_waited_for_longer),
    };
    place = test_directory();
    int status = cmocka_run_group_tests(tests, NULL, NULL);
    test_remove_directory(place);
    return status;
}
