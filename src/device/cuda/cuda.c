/* The CUDA device: one GPU, its description, and the table that the program loads (device/module.h). */
#include "device/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "device/cuda/blas.h"
#include "device/cuda/fp8.h"
#include "device/cuda/replay.h"
#include "device/cuda/upload.h"
#include "device/cuda/usage.h"

enum { least_major = 8 }; /* compute capability: bf16 on tensor cores */

bool cuda_wait(struct device *device, struct error *err) {
    return cuda_check(cudaStreamSynchronize(device->stream), "finish the work on the GPU", err);
}

static bool cuda_present(struct error *err) {
    int count;
    return cuda_count(&count, err);
}

/* "cuda:2" → 2; "cuda", "auto" and NULL → 0. */
static bool index_of(const char *name, int count, int *out, struct error *err) {
    const char *colon = name ? strchr(name, ':') : NULL;
    *out = colon ? (int)strtol(colon + 1, NULL, 10) : 0;
    if (*out < count) return true;
    error_set(err, ERROR_USAGE, "cuda", "there is no GPU %d: this process sees %d", *out, count);
    return error_fix(err, "Take --device cuda, or cuda:0 to cuda:%d.", count - 1);
}

static bool describe_gpu(struct device *device, struct error *err) {
    struct cudaDeviceProp facts;
    if (!cuda_check(cudaGetDeviceProperties(&facts, device->index), "ask the GPU what it is", err))
        return false;
    snprintf(device->name, sizeof device->name, "%.120s", facts.name);
    device->major = facts.major;
    device->minor = facts.minor;
    device->processors = facts.multiProcessorCount;
    device->shared_most = facts.sharedMemPerBlockOptin;
    device->total = facts.totalGlobalMem;
    if (facts.major >= least_major) return true;
    error_set(err, ERROR_FAILED, "cuda", "the %s (compute capability %d.%d) is too old", device->name,
              facts.major, facts.minor);
    return error_fix(err, "GPUs from compute capability 8.0 (Ampere) on are served; take --device cpu here.");
}

/* The toolkit's folder of the environment, then the usual one; by its name alone the system's loader looks
 * where its cache and LD_LIBRARY_PATH say. */
void *cuda_library(const char *soname, char **path) {
    const char *folders[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct buf text = {0};
        if (!folders[i] || folders[i][0] != '/') continue;
        buf_printf(&text, "%s/lib64/%s", folders[i], soname);
        void *library = !text.failed && fs_kind_of(text.data) == FS_FILE ? dlopen(text.data, RTLD_NOW) : NULL;
        if (library) *path = buf_detach(&text, NULL);
        buf_release(&text);
        if (library) return library;
    }
    return dlopen(soname, RTLD_NOW);
}

const char *cuda_functions(void *library, const struct cuda_function *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        void *function = dlsym(library, rows[i].name);
        if (!function) return rows[i].name;
        memcpy(rows[i].slot, &function, sizeof function);
    }
    return NULL;
}

static void cuda_close(struct device **handle) {
    struct device *device = *handle;
    if (!device) return;
    collect_close(&device->collect);
    upload_close(&device->upload);
    blas_close(&device->blas);
    usage_close(&device->usage);
    if (device->stream) cudaStreamDestroy(device->stream);
    mem_free(device);
    *handle = NULL;
}

static bool cuda_open(struct device **out, const struct device_options *options, struct error *err) {
    int count, index;
    *out = NULL;
    if (!cuda_count(&count, err) || !index_of(options ? options->name : NULL, count, &index, err))
        return false;
    struct device *device = mem_calloc(1, sizeof *device);
    if (!device) return error_no_memory(err, "cuda", sizeof *device);
    device->index = index;
    bool ok =
        describe_gpu(device, err) &&
        ((device->usage = usage_open(index, device->total)) || error_no_memory(err, "cuda", 0)) &&
        cuda_check(cudaSetDevice(index), "open the GPU", err) &&
        cuda_check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "open the GPU", err) &&
        blas_open(&device->blas, options && options->tf32, err) && upload_open(&device->upload, device, err);
    if (ok) usage_begin(device->usage);
    if (!ok) cuda_close(&device);
    *out = device;
    return ok;
}

static bool cuda_memory(struct device *device, struct device_memory *out, struct error *err) {
    size_t available, total;
    if (!cuda_check(cudaMemGetInfo(&available, &total), "ask for the GPU's memory", err)) return false;
    *out = (struct device_memory){.total = total,
                                  .available = available,
                                  .held = usage_now(device->usage),
                                  .context = usage_context(device->usage)};
    return true;
}

/* The one name that the program looks up in this module. */
__attribute__((visibility("default"))) extern const struct device_ops hone_device;
const struct device_ops hone_device = {
    .abi = device_abi,
    .name = "cuda",
    .tf32 = true,
    .narrow_gradients = true,
    .offload = OFFLOAD_TO_HOST,
    .attention_rate = 0.5, /* rows of 160,000 tokens on an H100: 0.59, the gradient 0.50 */
    .open = cuda_open,
    .close = cuda_close,
    .present = cuda_present,
    .memory = cuda_memory,
    .recorded_bytes = replays_bytes,
    .join_bytes = cuda_join_bytes,
    .join = cuda_join,
    .sum = cuda_sum,
    .describe = cuda_describe,
    .measure = cuda_measure,
    .fp8 = fp8_serves,
    .supports = cuda_supports,
    .workspace = cuda_workspace,
    .arrange = cuda_arrange,
    .store_extra = cuda_store_extra,
    .store_open = cuda_store_open,
    .store_fill = cuda_store_fill,
    .store_close = cuda_store_close,
    .reserve = cuda_reserve,
    .upload = cuda_upload,
    .download = cuda_download,
    .clear = cuda_clear,
    .compile = cuda_compile,
    .run = cuda_run,
    .finish = cuda_finish,
    .read = cuda_read,
    .program_close = cuda_program_close,
};
