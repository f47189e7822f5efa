#include "device/cuda/upload.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"

/* Two pieces a thread: it fills one while the other is on the bus. With fewer threads or smaller pieces
 * copies are slower; more take longer to lock their pages (0.4 ms a MiB) than they save. */
enum { piece_bytes = 2 << 20, most_threads = 8 };

struct lane {
    unsigned char *buffer[2]; /* page-locked, piece_bytes each */
    cudaEvent_t sent[2];
    int next;
};

struct upload {
    struct device *device;
    struct pool *pool;
    struct lane lanes[most_threads]; /* a thread's each */
    unsigned char *block;            /* their buffers */
};

/* Whole rows, or a part of one that is longer than a piece. */
struct piece {
    const unsigned char *from;
    unsigned char *to;
    size_t rows, width, pitch;
};

struct copying {
    struct upload *upload;
    struct piece *pieces;
    size_t count;
    atomic_int status; /* the first cudaError_t that is none of success */
};

static bool lane_open(struct lane *lane, unsigned char *buffers, struct error *err) {
    const unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
    bool ok = true;
    for (int b = 0; ok && b < 2; b++) {
        lane->buffer[b] = buffers + b * piece_bytes;
        ok = cuda_check(cudaEventCreateWithFlags(&lane->sent[b], flags), "make an event", err);
    }
    return ok;
}

bool upload_open(struct upload **out, struct device *device, struct error *err) {
    struct upload *upload = mem_calloc(1, sizeof *upload);
    *out = upload;
    if (!upload) return error_no_memory(err, "cuda", sizeof *upload);
    int cores = thread_cores(), threads = cores < most_threads ? cores : most_threads;
    upload->device = device;
    bool ok = pool_open(&upload->pool, threads, err) &&
              cuda_check(cudaMallocHost((void **)&upload->block, (size_t)threads * 2 * piece_bytes),
                         "allocate page-locked memory", err);
    for (int t = 0; ok && t < threads; t++)
        ok = lane_open(&upload->lanes[t], upload->block + (size_t)t * 2 * piece_bytes, err);
    if (!ok) upload_close(out);
    return ok;
}

void upload_close(struct upload **handle) {
    struct upload *upload = *handle;
    if (!upload) return;
    cudaStreamSynchronize(upload->device->stream); /* the last pieces are on their way */
    for (int b = 0; b < 2 * most_threads; b++)
        if (upload->lanes[b / 2].sent[b % 2]) cudaEventDestroy(upload->lanes[b / 2].sent[b % 2]);
    cudaFreeHost(upload->block);
    pool_close(&upload->pool);
    mem_free(upload);
    *handle = NULL;
}

static size_t rows_of_piece(const struct upload_range *range) {
    return range->pitch < piece_bytes ? piece_bytes / range->pitch : 1;
}

static size_t parts_of_row(const struct upload_range *range) {
    return range->pitch < piece_bytes ? 1 : (range->width + piece_bytes - 1) / piece_bytes;
}

static size_t pieces_of(const struct upload_range *range) {
    size_t rows = rows_of_piece(range);
    return range->width ? (range->rows + rows - 1) / rows * parts_of_row(range) : 0;
}

static struct piece piece_of(const struct upload_range *range, size_t index) {
    size_t parts = parts_of_row(range), row = index / parts * rows_of_piece(range),
           at = index % parts * piece_bytes;
    struct piece piece = {.from = range->from + row * range->width + at,
                          .to = range->to + row * range->pitch + at,
                          .rows = range->rows - row,
                          .width = range->width,
                          .pitch = range->pitch};
    if (piece.rows > rows_of_piece(range)) piece.rows = rows_of_piece(range);
    if (parts > 1) piece.width = range->width - at < piece_bytes ? range->width - at : piece_bytes;
    return piece;
}

/* Rows as they lie on the device, so that one copy takes them all. Returns their bytes. */
static size_t fill_buffer(unsigned char *buffer, const struct piece *piece) {
    if (piece->width == piece->pitch) {
        memcpy(buffer, piece->from, piece->rows * piece->width);
        return piece->rows * piece->width;
    }
    for (size_t r = 0; r < piece->rows; r++) {
        if (r) memset(buffer + (r - 1) * piece->pitch + piece->width, 0, piece->pitch - piece->width);
        memcpy(buffer + r * piece->pitch, piece->from + r * piece->width, piece->width);
    }
    return (piece->rows - 1) * piece->pitch + piece->width;
}

static cudaError_t send_piece(struct lane *lane, const struct piece *piece, cudaStream_t stream) {
    int b = lane->next;
    lane->next = !b;
    cudaError_t status = cudaEventSynchronize(lane->sent[b]);
    if (status != cudaSuccess) return status;
    size_t bytes = fill_buffer(lane->buffer[b], piece);
    status = cudaMemcpyAsync(piece->to, lane->buffer[b], bytes, cudaMemcpyHostToDevice, stream);
    return status == cudaSuccess ? cudaEventRecord(lane->sent[b], stream) : status;
}

static void copy_piece(void *user, int task, int worker) {
    struct copying *copying = user;
    const struct device *device = copying->upload->device;
    int none = cudaSuccess;
    if (atomic_load(&copying->status) != none) return;
    cudaError_t status = cudaSetDevice(device->index); /* each thread has a current one of its own */
    struct lane *lane = &copying->upload->lanes[worker];
    if (status == cudaSuccess) status = send_piece(lane, &copying->pieces[task], device->stream);
    if (status != cudaSuccess) atomic_compare_exchange_strong(&copying->status, &none, (int)status);
}

bool upload_copy(struct upload *upload, const struct upload_range *ranges, size_t count, struct error *err) {
    struct copying copying = {.upload = upload};
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += pieces_of(&ranges[i]);
    copying.pieces = mem_array(total + 1, sizeof *copying.pieces);
    if (!copying.pieces) return error_no_memory(err, "cuda", total * sizeof *copying.pieces);
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < pieces_of(&ranges[i]); p++)
            copying.pieces[copying.count++] = piece_of(&ranges[i], p);
    pool_run(upload->pool, (int)copying.count, copy_piece, &copying);
    mem_free(copying.pieces);
    return cuda_check((cudaError_t)atomic_load(&copying.status), "copy to the GPU", err);
}
