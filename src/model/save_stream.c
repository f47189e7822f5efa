/* Slabs: rows read, turned into the stored type and looked at by several threads, then written by one. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "model/layout.h"
#include "model/rope.h"
#include "model/save_internal.h"
#include "tensor/rowcodec.h"
#include "tensor/stored.h"

enum { slab_bytes = 4 << 20, task_elements = 1 << 15 };

enum row_state { ROW_GOOD, ROW_NOT_FINITE, ROW_TOO_LARGE };

/* What a row tells; summed in the order of rows, so that the sums do not depend on threads. */
struct row_report {
    double change, squares;
    enum row_state state;
};

struct save_stream {
    const struct save *save;
    const struct save_list *list;
    struct pool *pool;
    float *lines; /* [threads, 2, longest row]: a worker's row, and what is read back of it */
    size_t longest;
    unsigned char *slab;
    struct row_report *reports;
    uint64_t done;
    double change, squares;
    /* the slab that is being made */
    size_t index;
    int64_t first, rows, per_task;
};

static int64_t columns_of(const struct tensor *tensor) { return tensor->dim[tensor->rank - 1]; }
static int64_t rows_of(const struct tensor *tensor) { return tensor->rank == 2 ? tensor->dim[0] : 1; }
static uint64_t row_bytes(const struct tensor *tensor) { return tensor->bytes / (uint64_t)rows_of(tensor); }

/* At least a row. */
static int64_t slab_rows(const struct tensor *tensor) {
    int64_t rows = (int64_t)(slab_bytes / row_bytes(tensor));
    return rows < 1 ? 1 : rows < rows_of(tensor) ? rows : rows_of(tensor);
}

bool save_stream_open(struct save_stream **out, const struct save *save, const struct save_list *list,
                      struct error *err) {
    struct save_stream *stream = *out = mem_calloc(1, sizeof *stream);
    uint64_t largest = 0;
    int64_t most = 1;
    if (!stream) return error_no_memory(err, "model", sizeof *stream);
    stream->save = save;
    stream->list = list;
    for (size_t i = 0; i < list->count; i++) {
        const struct tensor *tensor = &list->tensors[i];
        int64_t rows = slab_rows(tensor);
        uint64_t bytes = (uint64_t)rows * row_bytes(tensor);
        if ((size_t)columns_of(tensor) > stream->longest) stream->longest = (size_t)columns_of(tensor);
        if (bytes > largest) largest = bytes;
        if (rows > most) most = rows;
    }
    int threads = save->threads > 0 ? save->threads : thread_cores();
    stream->lines = mem_array((size_t)threads * 2 * stream->longest, sizeof *stream->lines);
    stream->slab = mem_alloc((size_t)largest);
    stream->reports = mem_array((size_t)most, sizeof *stream->reports);
    bool ok = (stream->lines && stream->slab && stream->reports) || error_no_memory(err, "model", largest);
    ok = ok && pool_open(&stream->pool, threads, err);
    if (!ok) save_stream_close(out);
    return ok;
}

void save_stream_close(struct save_stream **handle) {
    struct save_stream *stream = *handle;
    if (!stream) return;
    pool_close(&stream->pool);
    mem_free(stream->lines);
    mem_free(stream->slab);
    mem_free(stream->reports);
    mem_free(stream);
    *handle = NULL;
}

double save_stream_error(const struct save_stream *stream) {
    return stream->squares > 0 ? sqrt(stream->change / stream->squares) : 0;
}

static bool all_finite(const float *line, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &line[i], sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000u;
}

/* The stored row `r` of the file that is written, in Hugging Face's order. */
static int64_t hub_row(const struct save_stream *stream, const struct save_item *item, int64_t r) {
    return item->interleaved ? layout_row_from_gguf(r, stream->save->model->config.head_dim) : r;
}

static int64_t stored_row(const struct save_stream *stream, const struct save_item *item, int64_t hub) {
    const struct model *model = stream->save->model;
    enum weight_role role = layout_role(&model->config, item->weight);
    bool there = model->permuted && (role == WEIGHT_Q || role == WEIGHT_K);
    return there ? layout_row_to_gguf(hub, model->config.head_dim) : hub;
}

/* One row: made in `out`, `line` and `again` are the worker's. */
static void make_row(const struct save_stream *stream, int64_t r, float *line, float *again,
                     unsigned char *out, struct row_report *report) {
    const struct save *save = stream->save;
    const struct save_item *item = &stream->list->items[stream->index];
    const struct tensor *tensor = &stream->list->tensors[stream->index],
                        *stored = &save->model->weights[item->weight];
    int64_t n = columns_of(tensor), hub = hub_row(stream, item, r);
    const struct rowcodec *codec = rowcodec(tensor->dtype);
    const struct stored view = stored_of(stored);
    bool made = save->row && save->row(save->user, item->weight, hub, line);
    *report = (struct row_report){.state = ROW_GOOD};
    if (!made && !stored->rank)
        rope_factors(&save->model->config, line);
    else if (!made)
        stored_decode(&view, stored_row(stream, item, hub), 0, n, line);
    if (!all_finite(line, n)) {
        report->state = ROW_NOT_FINITE;
        return;
    }
    if (!made && item->copied)
        memcpy(out,
               (const unsigned char *)stored->data +
                   (uint64_t)stored_row(stream, item, hub) * row_bytes(stored),
               (size_t)row_bytes(tensor));
    else
        codec->encode(line, out, n);
    codec->decode(out, again, n);
    if (!all_finite(again, n)) report->state = ROW_TOO_LARGE;
    for (int64_t i = 0; i < n; i++) {
        double was = (double)line[i], change = was - (double)again[i];
        report->change += change * change;
        report->squares += was * was;
    }
}

static void make_rows(void *user, int task, int worker) {
    struct save_stream *stream = user;
    const struct tensor *tensor = &stream->list->tensors[stream->index];
    float *line = stream->lines + (size_t)worker * 2 * stream->longest;
    int64_t begin = task * stream->per_task, end = begin + stream->per_task;
    if (end > stream->rows) end = stream->rows;
    for (int64_t r = begin; r < end; r++)
        make_row(stream, stream->first + r, line, line + stream->longest,
                 stream->slab + (uint64_t)r * row_bytes(tensor), &stream->reports[r]);
}

static bool refuse_row(const struct save_stream *stream, enum row_state state, struct error *err) {
    const struct save_item *item = &stream->list->items[stream->index];
    const struct tensor *tensor = &stream->list->tensors[stream->index],
                        *stored = &stream->save->model->weights[item->weight];
    if (state == ROW_NOT_FINITE) {
        error_set(err, ERROR_INPUT, "model", "%s: the tensor %s holds NaN or infinity",
                  stream->save->model->path, stored->data ? stored->name : tensor->name);
        return error_fix(err, "The model is damaged or its training diverged; take another copy.");
    }
    error_set(err, ERROR_INPUT, "model", "%s: the tensor %s holds numbers too large for %s",
              stream->save->model->path, stored->data ? stored->name : tensor->name,
              dtype_row(tensor->dtype)->name);
    return error_fix(err, "Choose a type with a wider range: bf16 or f32.");
}

bool save_emit(void *user, size_t index, struct fs_writer *file, struct error *err) {
    struct save_part *part = user;
    struct save_stream *stream = part->stream;
    const struct save *save = stream->save;
    stream->index = part->first + index;
    const struct tensor *tensor = &stream->list->tensors[stream->index];
    int64_t per_task = task_elements / columns_of(tensor);
    stream->per_task = per_task < 1 ? 1 : per_task;
    for (int64_t at = 0; at < rows_of(tensor); at += stream->rows) {
        int64_t left = rows_of(tensor) - at, most = slab_rows(tensor);
        stream->first = at;
        stream->rows = left < most ? left : most;
        if (save->progress && !save->progress(save->user, stream->done, stream->list->bytes, err))
            return false;
        pool_run(stream->pool, (int)((stream->rows + stream->per_task - 1) / stream->per_task), make_rows,
                 stream);
        for (int64_t r = 0; r < stream->rows; r++) {
            if (stream->reports[r].state != ROW_GOOD)
                return refuse_row(stream, stream->reports[r].state, err);
            stream->change += stream->reports[r].change;
            stream->squares += stream->reports[r].squares;
        }
        uint64_t bytes = (uint64_t)stream->rows * row_bytes(tensor);
        if (!fs_writer_write(file, stream->slab, (size_t)bytes, err)) return false;
        stream->done += bytes;
    }
    return true;
}
