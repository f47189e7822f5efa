#include "device/cuda/usage.h"

#include <dlfcn.h>
#include <unistd.h>

#include "base/mem.h"
#include "device/cuda/cuda.h"

/* What nvml.h declares of the functions used here; the toolkit does not always bring that header. */
typedef struct nvmlDevice_st *nvml_device;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_process {
    unsigned pid;
    unsigned long long bytes; /* all ones: not known */
    unsigned gpu_instance, compute_instance;
};

enum { most_processes = 64 };
struct processes {
    struct nvml_process items[most_processes];
    unsigned count; /* 0 also where there are more, or NVML does not say */
};

/* Bytes of a context where nobody can tell: an H100's with driver 580. */
static const uint64_t usual_context = (uint64_t)520 << 20;
/* Bytes that come later: kernels and the library's, whose code is loaded when they first run, and inputs. */
static const uint64_t loaded_later = (uint64_t)16 << 20;

struct usage {
    void *library; /* NULL: there is no NVML */
    nvml_device device;
    struct processes before; /* on the GPU, before this one */
    unsigned pid;            /* this process, as NVML calls it; 0: it is not in NVML's list */
    uint64_t used_before;    /* of the whole GPU */
    uint64_t context;
    int (*init)(void);
    int (*shutdown)(void);
    int (*find)(const char *bus, nvml_device *out);
    int (*memory)(nvml_device device, struct nvml_memory *out);
    int (*processes)(nvml_device device, unsigned *count, struct nvml_process *out);
};

static void list_processes(const struct usage *usage, struct processes *out) {
    out->count = most_processes;
    if (usage->processes(usage->device, &out->count, out->items) != 0) out->count = 0;
}

static const struct nvml_process *process_of(const struct processes *list, unsigned pid) {
    for (unsigned i = 0; i < list->count; i++)
        if (list->items[i].pid == pid) return &list->items[i];
    return NULL;
}

/* Of the whole GPU: NVML's, since the runtime's would make a context. */
static uint64_t gpu_used(const struct usage *usage) {
    struct nvml_memory memory = {0};
    size_t available, total;
    if (usage->library && usage->memory(usage->device, &memory) == 0) return memory.used;
    return !usage->library && cudaMemGetInfo(&available, &total) == cudaSuccess ? total - available : 0;
}

/* A part of a GPU (MIG) has less memory than the GPU that NVML finds at its place. */
static bool is_whole(const struct usage *usage, uint64_t total) {
    struct nvml_memory memory = {0};
    return usage->memory(usage->device, &memory) == 0 && memory.total < total + total / 8;
}

static bool open_nvml(struct usage *usage, int index, uint64_t total) {
    const struct cuda_function rows[] = {{"nvmlInit_v2", &usage->init},
                                         {"nvmlShutdown", &usage->shutdown},
                                         {"nvmlDeviceGetHandleByPciBusId_v2", &usage->find},
                                         {"nvmlDeviceGetMemoryInfo", &usage->memory},
                                         {"nvmlDeviceGetComputeRunningProcesses_v3", &usage->processes}};
    char bus[32];
    usage->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!usage->library) return false;
    if (cuda_functions(usage->library, rows, sizeof rows / sizeof *rows) || usage->init() != 0) {
        dlclose(usage->library);
        usage->library = NULL;
        return false;
    }
    return cudaDeviceGetPCIBusId(bus, sizeof bus, index) == cudaSuccess &&
           usage->find(bus, &usage->device) == 0 && is_whole(usage, total);
}

static void close_nvml(struct usage *usage) {
    if (!usage->library) return;
    usage->shutdown();
    dlclose(usage->library);
    usage->library = NULL;
}

struct usage *usage_open(int index, uint64_t total) {
    struct usage *usage = mem_calloc(1, sizeof *usage);
    if (!usage) return NULL;
    if (open_nvml(usage, index, total)) {
        usage->used_before = gpu_used(usage);
        list_processes(usage, &usage->before);
    } else {
        close_nvml(usage);
    }
    return usage;
}

/* In a container NVML may call this process by another number than it does itself: it is the one that was not
 * there before. Two that came at once cannot be told apart. */
static unsigned own_pid(const struct usage *usage) {
    struct processes now;
    unsigned news = 0, pid = 0;
    list_processes(usage, &now);
    for (unsigned i = 0; i < now.count; i++) {
        if (now.items[i].bytes + 1 == 0 || process_of(&usage->before, now.items[i].pid)) continue;
        if (now.items[i].pid == (unsigned)getpid()) return now.items[i].pid;
        pid = now.items[i].pid;
        news++;
    }
    return news == 1 ? pid : 0;
}

void usage_begin(struct usage *usage) {
    if (usage->library) {
        usage->pid = own_pid(usage);
    } else {
        uint64_t used = gpu_used(usage);
        usage->used_before = used > usual_context ? used - usual_context : 0;
    }
    usage->context = usage_now(usage) + loaded_later;
}

void usage_add(struct usage *usage, uint64_t bytes) { usage->context += bytes; }

void usage_close(struct usage **handle) {
    struct usage *usage = *handle;
    if (!usage) return;
    close_nvml(usage);
    mem_free(usage);
    *handle = NULL;
}

uint64_t usage_now(const struct usage *usage) {
    if (usage->pid) {
        struct processes now;
        list_processes(usage, &now);
        const struct nvml_process *own = process_of(&now, usage->pid);
        if (own && own->bytes + 1 != 0) return own->bytes;
    }
    uint64_t used = gpu_used(usage);
    return used > usage->used_before ? used - usage->used_before : 0;
}

uint64_t usage_context(const struct usage *usage) { return usage->context; }
