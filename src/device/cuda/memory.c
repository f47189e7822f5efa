/* The store and the arena of a device with memory of its own. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "device/cuda/cuda.h"

bool cuda_allocate(void **out, uint64_t bytes, const char *what, struct error *err) {
    char text[32];
    *out = NULL;
    cudaError_t status = cudaMalloc(out, (size_t)bytes + 256);
    if (status == cudaSuccess) return true;
    if (status != cudaErrorMemoryAllocation) return cuda_check(status, "allocate", err);
    size_t available = 0, total = 0;
    char have[32];
    cudaGetLastError(); /* the error is told here; later calls do not see it again */
    cudaMemGetInfo(&available, &total);
    error_set(err, ERROR_MEMORY, "cuda", "%s needs %s, the GPU has %s free", what, text_bytes(bytes, text),
              text_bytes(available, have));
    return error_fix(err,
                     "End other programs on this GPU, or give --memory, --max-length or --recompute block.");
}

static bool fill_mapped(struct store *store, struct error *err) {
    bool ok = true;
    for (int i = 0; ok && i < store->rows; i++) {
        const struct state_row *row = &store->table->rows[i];
        if (row->class == STATE_MAPPED)
            ok = cuda_check(cudaMemcpyAsync(store->data[i], row->mapped, (size_t)row->bytes,
                                            cudaMemcpyHostToDevice, store->device->stream),
                            "copy weights to the GPU", err);
    }
    return ok && cuda_wait(store->device, err);
}

bool cuda_store_open(struct device *device, const struct state_table *table, struct store **out,
                     struct error *err) {
    *out = NULL;
    if (table->failed) return error_no_memory(err, "store", 0);
    struct store *store = mem_calloc(1, sizeof *store);
    if (!store) return error_no_memory(err, "store", sizeof *store);
    store->device = device;
    store->table = table;
    store->rows = table->count;
    store->data = mem_calloc((size_t)table->count + 1, sizeof *store->data);
    uint64_t total = 0;
    bool ok = store->data || error_no_memory(err, "store", 0);
    for (int i = 0; ok && i < table->count; i++)
        if (table->rows[i].parent < 0 &&
            !checked_add(total, (table->rows[i].bytes + 63) & ~(uint64_t)63, &total))
            ok = error_no_memory(err, "store", 0);
    ok = ok && cuda_allocate((void **)&store->block, total, "the model with its state", err) &&
         cuda_check(cudaMemsetAsync(store->block, 0, (size_t)total, device->stream), "clear memory", err);
    uint64_t at = 0;
    for (int i = 0; ok && i < table->count; i++) {
        if (table->rows[i].parent >= 0) continue;
        store->data[i] = store->block + at;
        at += (table->rows[i].bytes + 63) & ~(uint64_t)63;
    }
    for (int i = 0; ok && i < table->count; i++)
        if (table->rows[i].parent >= 0)
            store->data[i] = store->data[table->rows[i].parent] + table->rows[i].offset;
    ok = ok && fill_mapped(store, err);
    if (!ok) cuda_store_close(&store);
    *out = store;
    return ok;
}

void cuda_store_close(struct store **handle) {
    struct store *store = *handle;
    if (!store) return;
    cudaFree(store->block);
    cudaFree(store->arena);
    mem_free(store->data);
    mem_free(store);
    *handle = NULL;
}

bool cuda_reserve(struct store *store, uint64_t bytes, struct error *err) {
    bytes += 256; /* the workspace behind a program's values is aligned to as many */
    if (bytes <= store->arena_bytes) return true;
    cudaFree(store->arena);
    store->arena_bytes = 0;
    if (!cuda_allocate((void **)&store->arena, bytes, "a step's activations", err)) return false;
    store->arena_bytes = bytes;
    return true;
}

static bool row_range(const struct store *store, int row, size_t bytes, struct error *err) {
    if (row >= 0 && row < store->rows && bytes <= store->table->rows[row].bytes) return true;
    return error_set(err, ERROR_INTERNAL, "store", "row %d has no %zu bytes", row, bytes);
}

bool cuda_upload(struct store *store, int row, const void *data, size_t bytes, struct error *err) {
    return row_range(store, row, bytes, err) &&
           cuda_check(
               cudaMemcpyAsync(store->data[row], data, bytes, cudaMemcpyHostToDevice, store->device->stream),
               "copy to the GPU", err) &&
           cuda_wait(store->device, err);
}

bool cuda_download(struct store *store, int row, void *data, size_t bytes, struct error *err) {
    return row_range(store, row, bytes, err) &&
           cuda_check(
               cudaMemcpyAsync(data, store->data[row], bytes, cudaMemcpyDeviceToHost, store->device->stream),
               "copy from the GPU", err) &&
           cuda_wait(store->device, err);
}
