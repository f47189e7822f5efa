/* The pool: every task once, by one worker at a time, in rounds of any length, with fewer and with more
 * threads than cores. */
#include "support/test.h"

#include <stdatomic.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/thread.h"

struct count {
    atomic_uchar *done;  /* per task */
    atomic_bool busy[8]; /* per worker */
    atomic_int wrong;
};

static void count_task(void *user, int task, int worker) {
    struct count *count = user;
    if (atomic_exchange(&count->busy[worker], true)) atomic_fetch_add(&count->wrong, 1);
    atomic_fetch_add(&count->done[task], 1);
    if (!atomic_exchange(&count->busy[worker], false)) atomic_fetch_add(&count->wrong, 1);
}

static void run_round(struct pool *pool, int tasks) {
    struct count count = {.done = mem_calloc((size_t)tasks + 1, sizeof *count.done)};
    assert_non_null(count.done);
    pool_run(pool, tasks, count_task, &count);
    assert_int_equal(atomic_load(&count.wrong), 0);
    for (int i = 0; i < tasks; i++)
        if (atomic_load(&count.done[i]) != 1) fail_msg("task %d of %d ran %d times", i, tasks, count.done[i]);
    mem_free(count.done);
}

static void every_task_runs_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        struct pool *pool;
        struct error err;
        assert_ok(pool_open(&pool, threads, &err), &err);
        assert_int_equal(pool_threads(pool), threads);
        for (int round = 0; round < 2000; round++) run_round(pool, round % 23);
        pool_close(&pool);
    }
}

/* More than fit one ticket. */
static void a_round_may_have_millions_of_tasks(void **state) {
    (void)state;
    struct pool *pool;
    struct error err;
    assert_ok(pool_open(&pool, 3, &err), &err);
    run_round(pool, (1 << 21) + 5);
    run_round(pool, 3);
    pool_close(&pool);
}

static void a_pool_without_work_closes(void **state) {
    (void)state;
    struct error err;
    for (int i = 0; i < 200; i++) {
        struct pool *pool;
        assert_ok(pool_open(&pool, 1 + i % 5, &err), &err);
        if (i % 2) pool_run(pool, 0, count_task, NULL);
        pool_close(&pool);
        assert_null(pool);
    }
}

/* A hint is not read: one may point to where nothing lies, and change while threads follow it. */
static void hints_may_point_anywhere(void **state) {
    static const uintptr_t places[] = {0, 1, 4096, (uintptr_t)1 << 40, UINTPTR_MAX - 100, UINTPTR_MAX};
    static const size_t sizes[] = {0, 1, 100, 1 << 20, SIZE_MAX};
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        struct pool *pool;
        struct error err;
        assert_ok(pool_open(&pool, threads, &err), &err);
        for (int round = 0; round < 300; round++) {
            pool_ahead(pool, (const void *)places[round % 6], sizes[round % 5]);
            run_round(pool, 1 + round % 7);
        }
        pool_close(&pool);
    }
}

static void no_threads_are_refused(void **state) {
    (void)state;
    struct pool *pool;
    struct error err;
    assert_false(pool_open(&pool, 0, &err));
    assert_null(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),       cmocka_unit_test(a_round_may_have_millions_of_tasks),
        cmocka_unit_test(a_pool_without_work_closes), cmocka_unit_test(hints_may_point_anywhere),
        cmocka_unit_test(no_threads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
