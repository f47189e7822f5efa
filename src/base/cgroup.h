/* What control groups leave to this process of the machine's memory: Linux, version 1 and 2. */
#ifndef HONE_BASE_CGROUP_H
#define HONE_BASE_CGROUP_H

#include <stdint.h>

struct cgroup_memory {
    uint64_t limit;     /* the lowest of its group and those above; UINT64_MAX: none */
    uint64_t available; /* the least that one of them still gives; UINT64_MAX: no limit */
};

/* `mount`: where groups are mounted, "/sys/fs/cgroup"; `self`: the list of this process's groups,
 * "/proc/self/cgroup". In a container the mount shows its own group as the root, and the path in the list may
 * not be there: what cannot be read bounds nothing. Pages of files count as used in a group, and are given up
 * when it needs them: they are available here.
 * Source: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst (5.2) and cgroup-v2.rst ("Memory"). */
void cgroup_memory(struct cgroup_memory *out, const char *mount, const char *self);

#endif
