/* The store and the arena of a device with memory of its own. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "device/cuda/cuda.h"
#include "device/cuda/fp8.h"
#include "device/cuda/offload.h"
#include "device/cuda/upload.h"

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

/* ---- rows of bf16 matrices are wider, and there are more of them, where an adapter is to fit in: products.c
 */

enum { most_pad = 128 }; /* graph_fold folds no larger rank */

static int64_t rank_of(const struct state_table *table) {
    int64_t most = 0;
    for (int i = 0; i < table->count; i++) {
        const struct state_row *row = &table->rows[i];
        if (row->class != STATE_TRAINED || row->parent < 0 || row->rank != 2) continue;
        int64_t rank = row->dim[0] < row->dim[1] ? row->dim[0] : row->dim[1];
        if (rank <= most_pad && rank > most) most = rank;
    }
    return most;
}

/* Scales and offsets, which stand right behind the codes that they belong to. */
static bool lies_apart(const struct state_table *table, int row) {
    for (int codes = row - 1; codes >= 0 && codes >= row - tensor_parts; codes--)
        for (int p = 0; p < tensor_parts; p++)
            if (table->rows[codes].part[p] == row) return true;
    return false;
}

bool cuda_is_padded(const struct state_table *table, int index) {
    const struct state_row *row = &table->rows[index];
    return (row->class == STATE_MAPPED || row->class == STATE_WEIGHT) && row->dtype == DTYPE_BF16 &&
           row->rank == 2 && row->parent < 0 && !row->fp8 && !lies_apart(table, index);
}

static bool stored_bytes(const struct state_table *table, int index, int64_t rank, uint64_t *out) {
    const struct state_row *row = &table->rows[index];
    struct fp8_layout layout;
    uint64_t bytes = row->bytes;
    int64_t pad = cuda_pad(rank);
    if (row->fp8) {
        if (!fp8_layout(&layout, row->dim[0], row->dim[1], fp8_pad(rank))) return false;
        bytes = layout.bytes;
    }
    if (cuda_is_padded(table, index) &&
        (!checked_mul((uint64_t)(row->dim[0] + pad), (uint64_t)(row->dim[1] + pad) * 2, &bytes)))
        return false;
    return checked_align(bytes, 256, out); /* rows begin where lines of the cache do */
}

uint64_t cuda_store_extra(const struct state_table *table) {
    uint64_t extra = 0, bytes;
    int64_t rank = rank_of(table);
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].parent < 0 && stored_bytes(table, i, rank, &bytes))
            extra += bytes - ((table->rows[i].bytes + 63) & ~(uint64_t)63);
    return extra;
}

/* The first `bytes` of a row, as the host has them and where they lie here; whole rows of the matrix where it
 * is padded. */
static struct upload_range range_of(const struct store *store, int row, const void *from, size_t bytes) {
    const struct state_row *r = &store->table->rows[row];
    struct upload_range range = {
        .from = from, .to = store->data[row], .rows = 1, .width = bytes, .pitch = bytes};
    if (!store->pad || !cuda_is_padded(store->table, row)) return range;
    range.width = (size_t)r->dim[1] * 2;
    range.pitch = range.width + (size_t)store->pad * 2;
    range.rows = bytes / range.width;
    return range;
}

/* One row may be longer than the pitch of a copy of several can be. */
static bool copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                      size_t rows, struct store *store, struct error *err) {
    cudaStream_t stream = store->device->stream;
    cudaError_t status =
        rows == 1 ? cudaMemcpyAsync(to, from, width, cudaMemcpyDefault, stream)
                  : cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, stream);
    return cuda_check(status, "copy between GPU and host", err);
}

/* Little is copied by the driver, much by threads; the sources have been read when it returns. */
static bool send_ranges(struct store *store, const struct upload_range *ranges, size_t count,
                        struct error *err) {
    static const size_t worth = (size_t)64 << 20; /* bytes for which threads are started */
    struct upload *upload = store->device->upload;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += ranges[i].rows * ranges[i].width;
    if (!upload && bytes >= worth && !upload_open(&upload, store->device, err)) return false;
    bool ok = true;
    if (upload) ok = upload_copy(upload, ranges, count, err);
    for (size_t i = 0; ok && !upload && i < count; i++)
        ok = copy_rows(ranges[i].to, ranges[i].pitch, ranges[i].from, ranges[i].width, ranges[i].width,
                       ranges[i].rows, store, err);
    if (upload != store->device->upload) upload_close(&upload);
    return ok && (store->device->upload || cuda_wait(store->device, err));
}

/* A weight as it is stored elsewhere, by way of `scratch` of as many bytes, to its codes here. */
static bool fill_fp8(struct store *store, int index, const void *from, void *scratch, struct error *err) {
    const struct state_row *row = &store->table->rows[index];
    struct operand operand = {.data = scratch,
                              .dtype = row->dtype,
                              .rank = 2,
                              .dim = {row->dim[0], row->dim[1]},
                              .stride = row->dim[1]};
    struct fp8_weight to = fp8_weight_at(store->data[index], row->dim[0], row->dim[1], store->fp8_pad);
    size_t bytes = (size_t)row->bytes;
    const struct upload_range range = {from, scratch, 1, bytes, bytes};
    struct matrix matrix = matrix_of(&operand);
    if (!send_ranges(store, &range, 1, err)) return false;
    cuda_fp8_weight(&to, &matrix, row->dim[0], row->dim[1], store->device->stream);
    return cuda_check(cudaGetLastError(), "round weights to fp8", err);
}

/* Each after the other has been rounded, which the stream's order sees to. */
static bool fill_mapped_fp8(struct store *store, struct error *err) {
    const struct state_row *rows = store->table->rows;
    uint64_t most = 0;
    void *scratch;
    for (int i = 0; i < store->rows; i++)
        if (rows[i].class == STATE_MAPPED && rows[i].fp8 && rows[i].bytes > most) most = rows[i].bytes;
    if (!most) return true;
    bool ok = cuda_allocate(&scratch, most, "a weight as it is stored", err);
    for (int i = 0; ok && i < store->rows; i++)
        if (rows[i].class == STATE_MAPPED && rows[i].fp8)
            ok = fill_fp8(store, i, rows[i].mapped, scratch, err);
    ok = ok && cuda_wait(store->device, err);
    cudaFree(scratch);
    return ok;
}

bool cuda_store_fill(struct store *store, struct error *err) {
    const struct state_row *rows = store->table->rows;
    struct upload_range *ranges = mem_array((size_t)store->rows + 1, sizeof *ranges);
    size_t count = 0;
    if (!ranges) return error_no_memory(err, "store", (size_t)store->rows * sizeof *ranges);
    for (int i = 0; i < store->rows; i++)
        if (rows[i].class == STATE_MAPPED && !rows[i].fp8)
            ranges[count++] = range_of(store, i, rows[i].mapped, (size_t)rows[i].bytes);
    bool ok = send_ranges(store, ranges, count, err);
    mem_free(ranges);
    return ok && fill_mapped_fp8(store, err) && cuda_wait(store->device, err);
}

/* Bytes on the device and, of what is offloaded, on the host. */
static bool store_bytes(const struct state_table *table, int64_t rank, uint64_t out[2], struct error *err) {
    uint64_t bytes = 0;
    out[0] = out[1] = 0;
    for (int i = 0; i < table->count; i++) {
        uint64_t *total = &out[table->rows[i].offloaded];
        if (table->rows[i].parent < 0 &&
            (!stored_bytes(table, i, rank, &bytes) || !checked_add(*total, bytes, total)))
            return error_no_memory(err, "store", 0);
    }
    return true;
}

static bool open_blocks(struct store *store, int64_t rank, struct error *err) {
    const struct state_table *table = store->table;
    uint64_t total[2], bytes = 0;
    if (!store_bytes(table, rank, total, err) ||
        !cuda_allocate((void **)&store->block, total[0], "the model with its state", err) ||
        !cuda_check(cudaMemsetAsync(store->block, 0, (size_t)total[0], store->device->stream), "clear memory",
                    err) ||
        (total[1] && !offload_allocate((void **)&store->host, total[1], err)))
        return false;
    if (total[1]) memset(store->host, 0, (size_t)total[1]);
    unsigned char *at[2] = {store->block, store->host};
    for (int i = 0; i < table->count; i++) {
        unsigned char **next = &at[table->rows[i].offloaded];
        if (table->rows[i].parent >= 0) continue;
        store->data[i] = *next;
        *next += stored_bytes(table, i, rank, &bytes) ? bytes : 0;
    }
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].parent >= 0)
            store->data[i] = store->data[table->rows[i].parent] + table->rows[i].offset;
    return true;
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
    int64_t rank = rank_of(table);
    store->pad = cuda_pad(rank);
    store->fp8_pad = fp8_pad(rank);
    bool ok = (store->data || error_no_memory(err, "store", 0)) && open_blocks(store, rank, err);
    if (!ok) cuda_store_close(&store);
    *out = store;
    return ok;
}

void cuda_store_close(struct store **handle) {
    struct store *store = *handle;
    if (!store) return;
    cudaFree(store->block);
    cudaFreeHost(store->host);
    cudaFree(store->arena);
    mem_free(store->data);
    mem_free(store);
    *handle = NULL;
}

bool cuda_reserve(struct store *store, uint64_t bytes, struct error *err) {
    upload_close(&store->device->upload); /* the store is filled */
    bytes += 256;                         /* the workspace behind a program's values is aligned to as many */
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

static bool upload_fp8(struct store *store, int row, const void *data, size_t bytes, struct error *err) {
    void *scratch;
    if (bytes != store->table->rows[row].bytes)
        return error_set(err, ERROR_INTERNAL, "store", "row %d is filled in one piece", row);
    bool ok = cuda_allocate(&scratch, bytes, "a weight as it is stored", err) &&
              fill_fp8(store, row, data, scratch, err) && cuda_wait(store->device, err);
    cudaFree(scratch);
    return ok;
}

bool cuda_upload(struct store *store, int row, const void *data, size_t bytes, struct error *err) {
    if (!row_range(store, row, bytes, err)) return false;
    if (store->table->rows[row].fp8) return upload_fp8(store, row, data, bytes, err);
    if (state_is_offloaded(store->table, row)) {
        if (!cuda_wait(store->device, err)) return false; /* it may be in use */
        memcpy(store->data[row], data, bytes);
        return true;
    }
    const struct upload_range range = range_of(store, row, data, bytes);
    return send_ranges(store, &range, 1, err);
}

bool cuda_download(struct store *store, int row, void *data, size_t bytes, struct error *err) {
    if (!row_range(store, row, bytes, err)) return false;
    if (store->table->rows[row].fp8)
        return error_set(err, ERROR_INTERNAL, "store", "row %d is kept in fp8 alone", row);
    const struct upload_range range = range_of(store, row, data, bytes);
    return copy_rows(data, range.width, range.to, range.pitch, range.width, range.rows, store, err) &&
           cuda_wait(store->device, err);
}

bool cuda_clear(struct store *store, int row, struct error *err) {
    size_t bytes = (size_t)store->table->rows[row].bytes;
    if (!state_is_offloaded(store->table, row))
        return cuda_check(cudaMemsetAsync(store->data[row], 0, bytes, store->device->stream), "clear memory",
                          err);
    if (!cuda_wait(store->device, err)) return false;
    memset(store->data[row], 0, bytes);
    return true;
}
