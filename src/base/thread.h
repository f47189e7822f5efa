/* One pool of worker threads. Work is a count of tasks that may run in any order on any thread, so
 * results must not depend on which thread runs what: split work by shape, never by thread count. */
#ifndef HONE_BASE_THREAD_H
#define HONE_BASE_THREAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct pool;

/* `task` runs in [0, tasks); `worker` in [0, pool_threads) tells which scratch memory is free to use. */
typedef void (*pool_task)(void *user, int task, int worker);

bool pool_open(struct pool **out, int threads, struct error *err); /* threads >= 1, the caller's included */
void pool_close(struct pool **pool);
int pool_threads(const struct pool *pool);
/* Returns when all tasks are done. One call at a time per pool; tasks must not call it. */
void pool_run(struct pool *pool, int tasks, pool_task run, void *user);
/* What the rounds after this one will read: threads that wait bring it near meanwhile, the one of index i the
 * i-th share of the bytes. Nothing is read, so that any address is allowed. It stands until the next call. */
void pool_ahead(struct pool *pool, const void *at, size_t bytes);

/* Cores that this process may use: affinity mask and cgroup quota, at least 1. */
int thread_cores(void);
/* Seconds on a clock that only goes forward. */
double clock_seconds(void);
/* Seconds since 1970, UTC. */
double clock_unix(void);

#endif
