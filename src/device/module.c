#include "device/module.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"

#ifndef HONE_MODULE_DIRECTORY
#define HONE_MODULE_DIRECTORY "/usr/local/lib/hone"
#endif

/* The file that this code was loaded from. A program's own name may be relative: the system knows better. */
static char *own_file(void) {
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)&own_file, &info) || !info.dli_fname) return NULL;
    return realpath(info.dli_fname[0] == '/' ? info.dli_fname : "/proc/self/exe", path) ? mem_strdup(path)
                                                                                        : NULL;
}

/* What is being looked for, and where it was not. */
struct search {
    const char *name;
    struct buf tried;
    char *found; /* from mem_alloc */
};

static void look_in(struct search *search, const char *folder, size_t length, const char *below) {
    struct buf path = {0};
    if (search->found || !length || folder[0] != '/') return;
    buf_printf(&path, "%.*s%s", (int)length, folder, below);
    buf_printf(&search->tried, "%s%s", search->tried.size ? ", " : "", path.data ? path.data : "");
    buf_printf(&path, "/libhone_%s.so", search->name);
    if (!path.failed && fs_kind_of(path.data) == FS_FILE) search->found = buf_detach(&path, NULL);
    buf_release(&path);
}

static void look_everywhere(struct search *search) {
    char *own = own_file();
    if (own) {
        size_t folder = (size_t)(strrchr(own, '/') - own);
        look_in(search, own, folder, "");
        look_in(search, own, folder, "/hone");
        look_in(search, own, folder, "/../lib/hone");
    }
    mem_free(own);
    for (const char *at = getenv("HONE_MODULES"); at && *at;) {
        size_t length = strcspn(at, ":");
        look_in(search, at, length, "");
        at += length + (at[length] == ':');
    }
    look_in(search, HONE_MODULE_DIRECTORY, strlen(HONE_MODULE_DIRECTORY), "");
}

static const struct device_ops *load(const char *path, struct error *err) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        error_set(err, ERROR_FAILED, "device", "the module %s does not load: %s", path, dlerror());
        return NULL;
    }
    const struct device_ops *ops = dlsym(handle, "hone_device");
    if (ops && ops->abi == device_abi) return ops;
    dlclose(handle);
    error_set(err, ERROR_FAILED, "device", "the module %s belongs to another version of hone", path);
    error_fix(err, "Build or install hone and its modules together.");
    return NULL;
}

const struct device_ops *device_module(const char *name, struct error *err) {
    struct search search = {.name = name};
    const struct device_ops *ops = NULL;
    look_everywhere(&search);
    if (search.found) {
        ops = load(search.found, err);
    } else {
        error_set(err, ERROR_FAILED, "device", "the module libhone_%s.so is not here", name);
        error_why(err, "it was looked for in %s", search.tried.data ? search.tried.data : "no folder");
        error_fix(err,
                  "Build hone where the CUDA toolkit is (docs/cuda.md), or name its folder in HONE_MODULES.");
    }
    mem_free(search.found);
    buf_release(&search.tried);
    return ops;
}
