#include "base/cgroup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* How a version names its files, and what in memory.stat are pages of files, those of groups below included.
 */
struct version {
    const char *folder; /* below the mount */
    const char *limit, *usage, *inactive, *active;
};
static const struct version first = {"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                     "total_inactive_file", "total_active_file"};
static const struct version second = {"", "memory.max", "memory.current", "inactive_file", "active_file"};

enum { path_size = 1024 };
static const uint64_t unlimited = UINT64_C(1) << 60; /* version 1 says "none" as a number near 2^63 */

static FILE *open_in(const char *directory, const char *name) {
    char path[path_size + 64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return fopen(path, "re");
}

static uint64_t read_number(const char *directory, const char *name) {
    uint64_t number = UINT64_MAX;
    FILE *file = open_in(directory, name);
    if (!file) return UINT64_MAX;
    if (fscanf(file, "%" SCNu64, &number) != 1) number = UINT64_MAX; /* "max" */
    fclose(file);
    return number;
}

static uint64_t read_file_pages(const char *directory, const struct version *v) {
    char line[128], key[64];
    uint64_t number, sum = 0;
    FILE *file = open_in(directory, "memory.stat");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%63s %" SCNu64, key, &number) == 2 &&
            (!strcmp(key, v->inactive) || !strcmp(key, v->active)))
            sum += number;
    if (file) fclose(file);
    return sum;
}

static void look_at(struct cgroup_memory *out, const char *directory, const struct version *v) {
    uint64_t limit = read_number(directory, v->limit), used = read_number(directory, v->usage);
    if (limit >= unlimited) return;
    uint64_t files = read_file_pages(directory, v);
    if (used == UINT64_MAX) used = 0;
    used -= files < used ? files : used;
    uint64_t available = limit > used ? limit - used : 0;
    if (limit < out->limit) out->limit = limit;
    if (available < out->available) out->available = available;
}

/* From the group upwards; the mount itself comes last. */
static void look_up(struct cgroup_memory *out, const char *mount, const char *group,
                    const struct version *v) {
    char path[path_size];
    snprintf(path, sizeof path, "%s%s%s", mount, v->folder, group);
    size_t root = strlen(mount) + strlen(v->folder);
    for (;;) {
        look_at(out, path, v);
        if (strlen(path) <= root) return;
        char *slash = strrchr(path, '/');
        *(slash && (size_t)(slash - path) >= root ? slash : path + root) = '\0';
    }
}

void cgroup_memory(struct cgroup_memory *out, const char *mount, const char *self) {
    char line[path_size];
    *out = (struct cgroup_memory){UINT64_MAX, UINT64_MAX};
    FILE *list = fopen(self, "re");
    while (list && fgets(line, sizeof line, list)) { /* "4:memory,cpu:/path", version 2: "0::/path" */
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group || strlen(mount) + strlen(group) + 64 > path_size) continue;
        *group++ = '\0';
        if (!strcmp(names, ":"))
            look_up(out, mount, group, &second);
        else if (strstr(names, "memory"))
            look_up(out, mount, group, &first);
    }
    if (list) fclose(list);
    look_up(out, mount, "", &second); /* where there is no list */
    look_up(out, mount, "", &first);
}
