#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

/* Between two products of a step only microseconds pass: a worker spins this often before it sleeps. */
enum { spin_rounds = 20000, worker_stack_bytes = 512 * 1024 };

struct pool {
    int threads;
    pthread_t *workers;
    struct worker_start *starts;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pool_task run;
    void *user;
    int tasks;
    atomic_int next;     /* the next task to take */
    atomic_int working;  /* workers that have not finished this round */
    atomic_uint round;   /* counts pool_run calls */
    atomic_int sleepers; /* workers that wait for `wake`, or are about to */
    atomic_int waits;    /* the caller waits for `done`, or is about to */
    bool stop;
};

struct worker_start {
    struct pool *pool;
    int index;
};

static inline void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(struct pool *pool, int worker) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->run(pool->user, task, worker);
    }
}

/* Nobody touches the lock while all are awake. A worker that goes to sleep says so before it looks at the
 * round once more, and a round begins before it looks for sleepers, all in one order: one of the two sees the
 * other. The end of a round is told in the same way. */
static void sleep_until_round(struct pool *pool, unsigned seen) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->round) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument) {
    struct worker_start *start = argument;
    struct pool *pool = start->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < spin_rounds && atomic_load_explicit(&pool->round, memory_order_acquire) == seen;
             i++)
            spin_pause();
        if (atomic_load(&pool->round) == seen) sleep_until_round(pool, seen);
        seen++;
        if (pool->stop) return NULL;
        take_tasks(pool, start->index);
        if (atomic_fetch_sub(&pool->working, 1) == 1 && atomic_load(&pool->waits)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static void start_round(struct pool *pool) {
    atomic_store(&pool->working, pool->threads - 1);
    atomic_fetch_add(&pool->round, 1);
    if (!atomic_load(&pool->sleepers)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_workers(struct pool *pool) {
    for (int i = 0; i < spin_rounds && atomic_load_explicit(&pool->working, memory_order_acquire); i++)
        spin_pause();
    if (!atomic_load(&pool->working)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waits, 1);
    while (atomic_load(&pool->working)) pthread_cond_wait(&pool->done, &pool->lock);
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
    pool->stop = true;
    start_round(pool);
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
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    start_round(pool);
    take_tasks(pool, 0);
    wait_for_workers(pool);
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
