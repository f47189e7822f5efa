#include "base/machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

static void cpu_name(char *out, size_t size) {
#ifdef __APPLE__
    sysctlbyname("machdep.cpu.brand_string", out, &size, NULL, 0);
#else
    /* "model name : …" on x86, "Model : …" on some others. */
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!colon || (strncmp(line, "model name", 10) != 0 && strncmp(line, "Model", 5) != 0)) continue;
        const char *name = colon + 1 + strspn(colon + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(name, "\n"), name);
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
