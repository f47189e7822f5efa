/* What this machine and the operating system allow the process: memory and its limits, the CPU's name. */
#ifndef HONE_BASE_MACHINE_H
#define HONE_BASE_MACHINE_H

#include <stdint.h>

/* Bytes; 0 where the system does not tell. */
struct machine_memory {
    uint64_t total;         /* of the machine */
    uint64_t available;     /* free, or in caches that the system would give up */
    uint64_t limit;         /* lowest bound on this process (cgroup, address space); 0: none */
    uint64_t limit_left;    /* what is left below that bound */
    const char *limit_name; /* "cgroup", "ulimit -v", or NULL */
    uint64_t usable;        /* the smaller of available and limit_left */
};
void machine_memory(struct machine_memory *out);

/* RssAnon + RssShmem of this process, and the mapped file pages beside it. False where unknown. */
int machine_resident(uint64_t *own, uint64_t *mapped);

struct machine {
    char system[128]; /* "Linux 6.1.0 x86_64" */
    char cpu[128];    /* "AMD EPYC 7763" */
    int cores;        /* of the machine; thread_cores() tells how many this process may use */
};
void machine_describe(struct machine *out);

#endif
