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

static uint64_t number_in(const char *path) {
    unsigned long long number = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file) return UINT64_MAX;
    if (fscanf(file, "%llu", &number) != 1) number = UINT64_MAX; /* "max" */
    fclose(file);
    return number;
}

/* The folder of this process's cgroup (version 2); the root where the name cannot be read. */
static void cgroup_path(char *out, size_t size, const char *file) {
    char line[512], name[512] = "";
    FILE *list = fopen("/proc/self/cgroup", "re");
    while (list && fgets(line, sizeof line, list))
        if (!strncmp(line, "0::", 3)) snprintf(name, sizeof name, "%s", line + 3);
    if (list) fclose(list);
    name[strcspn(name, "\n")] = '\0';
    snprintf(out, size, "/sys/fs/cgroup%s/%s", name, file);
    if (access(out, R_OK) != 0) snprintf(out, size, "/sys/fs/cgroup/%s", file);
}

uint64_t process_memory_limit(void) {
    char path[640];
    cgroup_path(path, sizeof path, "memory.max");
    uint64_t limit = number_in(path),
             first_version = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    if (first_version < limit) limit = first_version;
    return limit >= UINT64_C(1) << 60 ? UINT64_MAX : limit;
}

uint64_t process_memory_available(void) {
    char path[640];
    uint64_t available = kib_field("/proc/meminfo", "MemAvailable"), limit = process_memory_limit();
    if (limit == UINT64_MAX) return available;
    cgroup_path(path, sizeof path, "memory.current");
    uint64_t used = number_in(path);
    if (used == UINT64_MAX) used = 0;
    uint64_t left = limit > used ? limit - used : 0;
    return left < available ? left : available;
}
#endif
