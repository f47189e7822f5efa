/* What this process holds of the machine's memory, and what it may hold. Linux reads /proc and cgroups,
 * macOS its task information; 0 where the system does not tell. */
#ifndef HONE_BASE_PROCESS_H
#define HONE_BASE_PROCESS_H

#include <stdint.h>

struct process_memory {
    uint64_t anonymous; /* RssAnon + RssShmem: what a plan's peak is compared with */
    uint64_t mapped;    /* RssFile */
};
void process_memory(struct process_memory *out);

/* Bytes that this process may still take: free memory, or less by the cgroup's limit. */
uint64_t process_memory_available(void);
uint64_t process_memory_total(void); /* of the machine */
uint64_t process_memory_limit(void); /* of the cgroup; UINT64_MAX: none */

#endif
