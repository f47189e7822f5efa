#include "base/machine.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

/* "Name:   123 kB" in a file of /proc; 0 when it is not there. */
static uint64_t proc_field(const char *path, const char *name) {
    char line[256];
    unsigned long long kib = 0;
    size_t size = strlen(name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, size) == 0 && line[size] == ':' && sscanf(line + size + 1, "%llu", &kib) == 1)
            break;
    fclose(file);
    return (uint64_t)kib * 1024;
}

/* One number in a file; 0 for "max" or no file. */
static uint64_t file_number(const char *path) {
    unsigned long long number = 0;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%llu", &number) != 1) number = 0;
    fclose(file);
    return number;
}

static void take_limit(struct machine_memory *out, uint64_t limit, uint64_t used, const char *name) {
    if (!limit || (out->limit && limit >= out->limit) || (out->total && limit > out->total)) return;
    out->limit = limit;
    out->limit_left = used < limit ? limit - used : 0;
    out->limit_name = name;
}

/* Walks from this process's cgroup up to the root: each level may set a bound. */
static void cgroup_limits(struct machine_memory *out) {
    char line[512], group[400] = "", path[512], used[512];
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "0::", 3) == 0)
            snprintf(group, sizeof group, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    if (file) fclose(file);
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", strcmp(group, "/") == 0 ? "" : group);
        snprintf(used, sizeof used, "/sys/fs/cgroup%s/memory.current", strcmp(group, "/") == 0 ? "" : group);
        take_limit(out, file_number(path), file_number(used), "cgroup");
        char *slash = strrchr(group, '/');
        if (!slash) break;
        *slash = '\0';
    }
    take_limit(out, file_number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
               file_number("/sys/fs/cgroup/memory/memory.usage_in_bytes"), "cgroup");
}

#ifdef __APPLE__
static void system_memory(struct machine_memory *out) {
    size_t size = sizeof out->total;
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    sysctlbyname("hw.memsize", &out->total, &size, NULL, 0);
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&vm, &count) == KERN_SUCCESS)
        out->available = ((uint64_t)vm.free_count + vm.inactive_count) * (uint64_t)getpagesize();
}
#else
static void system_memory(struct machine_memory *out) {
    out->total = proc_field("/proc/meminfo", "MemTotal");
    out->available = proc_field("/proc/meminfo", "MemAvailable");
    if (!out->total) out->total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}
#endif

void machine_memory(struct machine_memory *out) {
    struct rlimit limit;
    memset(out, 0, sizeof *out);
    system_memory(out);
    cgroup_limits(out);
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        take_limit(out, limit.rlim_cur, proc_field("/proc/self/status", "VmSize"), "ulimit -v");
    out->usable = out->available ? out->available : out->total;
    if (out->limit && out->limit_left < out->usable) out->usable = out->limit_left;
}

int machine_resident(uint64_t *own, uint64_t *mapped) {
#ifdef __APPLE__
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) != KERN_SUCCESS) return false;
    *own = info.internal + info.compressed;
    *mapped = info.external;
    return true;
#else
    *own = proc_field("/proc/self/status", "RssAnon") + proc_field("/proc/self/status", "RssShmem");
    *mapped = proc_field("/proc/self/status", "RssFile");
    return *own != 0;
#endif
}

static void cpu_name(char *out, size_t size) {
#ifdef __APPLE__
    sysctlbyname("machdep.cpu.brand_string", out, &size, NULL, 0);
#else
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!colon || (strncmp(line, "model name", 10) != 0 && strncmp(line, "Model", 5) != 0)) continue;
        snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file) fclose(file);
#endif
}

void machine_describe(struct machine *out) {
    struct utsname name;
    memset(out, 0, sizeof *out);
    if (uname(&name) == 0)
        snprintf(out->system, sizeof out->system, "%.30s %.60s %.30s", name.sysname, name.release,
                 name.machine);
    cpu_name(out->cpu, sizeof out->cpu);
    out->cores = (int)sysconf(_SC_NPROCESSORS_CONF);
}
