#include "base/process.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>

void process_memory(struct process_memory *out) {
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    memset(out, 0, sizeof *out);
    if (task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) == KERN_SUCCESS)
        out->anonymous = info.phys_footprint;
}

uint64_t process_memory_total(void) {
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    return sysctlbyname("hw.memsize", &bytes, &size, NULL, 0) == 0 ? bytes : 0;
}

uint64_t process_memory_limit(void) { return UINT64_MAX; }

uint64_t process_memory_available(void) {
    vm_statistics64_data_t statistics;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&statistics, &count) !=
        KERN_SUCCESS)
        return 0;
    return ((uint64_t)statistics.free_count + statistics.inactive_count) * (uint64_t)sysconf(_SC_PAGESIZE);
}

#else
#include "base/cgroup.h"

/* The number after `key` in a file of "Key:   123 kB" lines, in bytes; 0: not there. */
static uint64_t kib_field(const char *path, const char *key) {
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ':' && sscanf(line + length + 1, "%lu", &kib) == 1)
            break;
    fclose(file);
    return kib * 1024;
}

void process_memory(struct process_memory *out) {
    char line[256];
    unsigned long kib;
    memset(out, 0, sizeof *out);
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "RssAnon: %lu", &kib) == 1 || sscanf(line, "RssShmem: %lu", &kib) == 1)
            out->anonymous += (uint64_t)kib * 1024;
        if (sscanf(line, "RssFile: %lu", &kib) == 1) out->mapped = (uint64_t)kib * 1024;
    }
    fclose(file);
}

uint64_t process_memory_total(void) { return kib_field("/proc/meminfo", "MemTotal"); }

static struct cgroup_memory groups(void) {
    struct cgroup_memory found;
    cgroup_memory(&found, "/sys/fs/cgroup", "/proc/self/cgroup");
    return found;
}

uint64_t process_memory_limit(void) { return groups().limit; }

uint64_t process_memory_available(void) {
    uint64_t available = kib_field("/proc/meminfo", "MemAvailable"), left = groups().available;
    return left < available ? left : available;
}
#endif
