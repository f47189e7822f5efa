#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

/* Between two products of a step only microseconds pass: a thread looks this often before it sleeps. Soon it
 * yields in between: where other programs want the cores, the one that it waits for may need this one. */
enum {
    most_looks = 20000,
    looks_before_yield = 2000,
    looks_between_yields = 128,
    ahead_at_once = 4 * 64, /* bytes asked for at a look: few, so that the begin of a round is seen soon */
    most_ahead = 256 << 10, /* of a thread: a part of its own cache */
    worker_stack_bytes = 512 * 1024
};

/* A round is one call of pool_run. Its ticket holds, from the top, a count of rounds, how many tasks it has
 * and the next to take, so that taking one is one addition and tells at once whether it is one of this round.
 * The caller waits for tasks, never for workers: one that has lost its core to another program comes late and
 * finds nothing to do. */
enum { task_bits = 21, most_tasks = 1 << 20, task_mask = (1 << task_bits) - 1 };

struct pool {
    int threads, looks;
    pthread_t *workers;
    struct worker_start *starts;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pool_task run; /* these three stand while a task of the round is unfinished */
    void *user;
    int first; /* the round's first task */
    atomic_ullong ticket;
    atomic_int unfinished; /* tasks of this round */
    atomic_int sleepers;   /* workers that wait for `wake`, or are about to */
    atomic_int waits;      /* the caller waits for `done`, or is about to */
    atomic_bool stop;
    atomic_uintptr_t ahead; /* see pool_ahead; hints, so that no order is kept between the two */
    atomic_size_t ahead_bytes;
};

struct worker_start {
    struct pool *pool;
    int index;
};

static inline void look_pause(int look) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    if (look > looks_before_yield && look % looks_between_yields == 0) sched_yield();
}

/* How far a waiting thread has come with its share. */
struct ahead {
    uintptr_t of, at, end;
};

static inline void look_ahead(struct pool *pool, struct ahead *ahead, int worker, int look) {
    uintptr_t of = atomic_load_explicit(&pool->ahead, memory_order_relaxed);
    if (of != ahead->of) {
        size_t share = atomic_load_explicit(&pool->ahead_bytes, memory_order_relaxed) / (size_t)pool->threads;
        ahead->of = of;
        ahead->at = of + share * (size_t)worker;
        ahead->end = ahead->at + (share < most_ahead ? share : most_ahead);
    }
    if (ahead->at >= ahead->end) {
        look_pause(look);
        return;
    }
    for (int at = 0; at < ahead_at_once; at += 64, ahead->at += 64)
        __builtin_prefetch((const void *)ahead->at, 0, 2);
}

static unsigned long long round_of(unsigned long long ticket) { return ticket >> (2 * task_bits); }

/* Takes tasks until the round has none left; that round. */
static unsigned long long take_tasks(struct pool *pool, int worker) {
    unsigned long long ticket;
    int taken = 0;
    for (;; taken++) {
        ticket = atomic_fetch_add(&pool->ticket, 1);
        int task = (int)(ticket & task_mask), tasks = (int)(ticket >> task_bits & task_mask);
        if (task >= tasks) break;
        pool->run(pool->user, pool->first + task, worker);
    }
    if (taken && atomic_fetch_sub(&pool->unfinished, taken) == taken && atomic_load(&pool->waits)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
    return round_of(ticket);
}

/* Nobody touches the lock while all are awake. A worker that goes to sleep says so before it looks at the
 * round once more, and a round begins before it looks for sleepers, all in one order: one of the two sees the
 * other. The end of a round is told in the same way. */
static void sleep_until_round(struct pool *pool, unsigned long long seen) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (round_of(atomic_load(&pool->ticket)) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument) {
    struct worker_start *start = argument;
    struct pool *pool = start->pool;
    unsigned long long seen = 0;
    struct ahead ahead = {0};
    while (!atomic_load(&pool->stop)) {
        for (int i = 0; i < pool->looks && round_of(atomic_load(&pool->ticket)) == seen; i++)
            look_ahead(pool, &ahead, start->index, i);
        if (round_of(atomic_load(&pool->ticket)) == seen) sleep_until_round(pool, seen);
        seen = take_tasks(pool, start->index);
    }
    return NULL;
}

static void start_round(struct pool *pool, int tasks) {
    unsigned long long round = round_of(atomic_load(&pool->ticket)) + 1;
    atomic_store(&pool->unfinished, tasks);
    atomic_store(&pool->ticket, round << (2 * task_bits) | (unsigned long long)tasks << task_bits);
    int sleepers = atomic_load(&pool->sleepers);
    if (!sleepers) return;
    pthread_mutex_lock(&pool->lock);
    if (!tasks || sleepers < tasks) pthread_cond_broadcast(&pool->wake);
    for (int i = 1; i < tasks && tasks <= sleepers; i++) pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_tasks(struct pool *pool) {
    struct ahead ahead = {0};
    for (int i = 0; i < pool->looks && atomic_load(&pool->unfinished); i++) look_ahead(pool, &ahead, 0, i);
    if (!atomic_load(&pool->unfinished)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waits, 1);
    while (atomic_load(&pool->unfinished)) pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->waits, 0);
    pthread_mutex_unlock(&pool->lock);
}

bool pool_open(struct pool **out, int threads, struct error *err) {
    *out = NULL;
    if (threads < 1) return error_set(err, ERROR_INTERNAL, "thread", "a pool needs at least one thread");
    struct pool *pool = mem_calloc(1, sizeof *pool);
    if (!pool) return error_no_memory(err, "thread", sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = 1;
    pool->looks = threads <= thread_cores() ? most_looks : 0;
    pool->workers = mem_calloc((size_t)threads, sizeof *pool->workers);
    pool->starts = mem_calloc((size_t)threads, sizeof *pool->starts);
    if (!pool->workers || !pool->starts) {
        error_no_memory(err, "thread", (unsigned long long)threads * sizeof *pool->starts);
        pool_close(&pool);
        return false;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, worker_stack_bytes);
    for (int i = 1; i < threads; i++) {
        pool->starts[i] = (struct worker_start){pool, i};
        if (pthread_create(&pool->workers[i], &attributes, worker_main, &pool->starts[i]) != 0) {
            error_set(err, ERROR_MEMORY, "thread", "cannot start thread %d of %d", i + 1, threads);
            error_fix(err, "Lower --threads.");
            pthread_attr_destroy(&attributes);
            pool_close(&pool);
            return false;
        }
        pool->threads++;
    }
    pthread_attr_destroy(&attributes);
    *out = pool;
    return true;
}

void pool_close(struct pool **handle) {
    struct pool *pool = *handle;
    if (!pool) return;
    atomic_store(&pool->stop, true);
    start_round(pool, 0);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    mem_free(pool->workers);
    mem_free(pool->starts);
    mem_free(pool);
    *handle = NULL;
}

int pool_threads(const struct pool *pool) { return pool->threads; }

void pool_run(struct pool *pool, int tasks, pool_task run, void *user) {
    if (tasks <= 0) return;
    if (pool->threads == 1 || tasks == 1) {
        for (int i = 0; i < tasks; i++) run(user, i, 0);
        return;
    }
    pool->run = run;
    pool->user = user;
    for (pool->first = 0; pool->first < tasks; pool->first += most_tasks) {
        int left = tasks - pool->first;
        start_round(pool, left < most_tasks ? left : most_tasks);
        take_tasks(pool, 0);
        wait_for_tasks(pool);
    }
}

void pool_ahead(struct pool *pool, const void *at, size_t bytes) {
    atomic_store_explicit(&pool->ahead_bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&pool->ahead, (uintptr_t)at, memory_order_relaxed);
}

#ifdef __linux__
/* cgroup v2 "max 100000" or "200000 100000" (quota and period, microseconds). */
static int cgroup_cores(void) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!file) return 0;
    long quota = 0, period = 0;
    int fields = fscanf(file, "%ld %ld", &quota, &period);
    fclose(file);
    return fields == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}
#endif

int thread_cores(void) {
    int cores = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
    int quota = cgroup_cores();
    if (quota && quota < cores) cores = quota;
#endif
    if (cores <= 0) cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? cores : 1;
}

double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double clock_unix(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
