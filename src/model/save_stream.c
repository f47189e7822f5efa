/* Slabs: rows read, turned into the stored type and looked at by several threads, then written by one. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/thread.h"
#include "model/layout.h"
#include "model/rope.h"
#include "model/save_internal.h"
#include "tensor/rowcodec.h"

enum { slab_bytes = 4 << 20, task_elements = 1 << 15 };

static uint64_t row_bytes(const struct save_stream *stream, size_t index) {
    return stream->list->tensors[index].bytes / (uint64_t)stream->list->items[index].rows;
}

/* At least a row. */
static int64_t slab_rows(const struct save_stream *stream, size_t index) {
    int64_t rows = (int64_t)(slab_bytes / row_bytes(stream, index)), all = stream->list->items[index].rows;
    return rows < 1 ? 1 : rows < all ? rows : all;
}

/* What the largest slab takes. */
static bool measure(const struct save_stream *stream, uint64_t *bytes, int64_t *rows, uint64_t *elements) {
    *bytes = *elements = 1;
    *rows = 1;
    for (size_t i = 0; i < stream->list->count; i++) {
        const struct save_item *item = &stream->list->items[i];
        uint64_t b, e;
        int64_t r;
        if (item->piece > PIECE_CODES) continue;
        if (item->piece == PIECE_ALL) {
            r = slab_rows(stream, i);
            b = (uint64_t)r * row_bytes(stream, i);
            e = 2 * (uint64_t)item->columns;
        } else if (!save_pieces_need(item, &b, &r, &e)) {
            return false;
        }
        *bytes = b > *bytes ? b : *bytes;
        *rows = r > *rows ? r : *rows;
        *elements = e > *elements ? e : *elements;
    }
    return true;
}

/* Reports are most where rows are shortest, the slab and the lines where they are longest. */
uint64_t model_save_memory(const struct model *model, int threads) {
    uint64_t longest = 1, reports = 1;
    for (size_t i = 0; i < layout_count(&model->config); i++) {
        const struct tensor *weight = &model->weights[i];
        if (weight->rank != 2) continue;
        uint64_t columns = (uint64_t)weight->dim[1], rows = (uint64_t)weight->dim[0];
        uint64_t together =
            slab_bytes / (2 * columns) + 1; /* of 2 bytes each, the least of what is trained */
        if (columns > longest) longest = columns;
        if ((rows < together ? rows : together) > reports) reports = rows < together ? rows : together;
    }
    uint64_t row = longest * sizeof(float);
    return (row > slab_bytes ? row : slab_bytes) + 2 * row * (uint64_t)threads +
           reports * sizeof(struct row_report) + fs_writer_memory;
}

bool save_stream_open(struct save_stream **out, const struct save *save, const struct save_list *list,
                      struct error *err) {
    struct save_stream *stream = *out = mem_calloc(1, sizeof *stream);
    uint64_t bytes = 0, elements = 0, lines;
    int64_t rows = 0;
    if (!stream) return error_no_memory(err, "model", sizeof *stream);
    stream->save = save;
    stream->list = list;
    int threads = save->threads > 0 ? save->threads : thread_cores();
    bool ok = measure(stream, &bytes, &rows, &elements) &&
              checked_mul(elements * sizeof(float), (uint64_t)threads, &lines);
    if (ok) {
        stream->line_elements = (size_t)elements;
        stream->lines = mem_alloc((size_t)lines);
        stream->slab = mem_alloc((size_t)bytes);
        stream->reports = mem_array((size_t)rows, sizeof *stream->reports);
    }
    ok = (stream->lines && stream->slab && stream->reports) || error_no_memory(err, "model", bytes);
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

/* Row `r` of the file that is written, in Hugging Face's order. */
static int64_t hub_row(const struct save_stream *stream, const struct save_item *item, int64_t r) {
    return item->interleaved && item->rows > 1 ? layout_row_from_gguf(r, stream->save->model->config.head_dim)
                                               : r;
}

/* Where that row lies in the model's own file. */
static int64_t stored_row(const struct save_stream *stream, const struct save_item *item, int64_t hub) {
    const struct model *model = stream->save->model;
    enum weight_role role = layout_role(&model->config, item->weight);
    bool interleaved = model->permuted && layout_interleaved(role) && item->rows > 1;
    return interleaved ? layout_row_to_gguf(hub, model->config.head_dim) : hub;
}

/* A bias of q or k is one row, whose elements stand in the order of the weight's rows. */
static void reorder_bias(float *line, int64_t columns, int64_t head_dim,
                         int64_t (*from)(int64_t r, int64_t head_dim)) {
    float head[4096]; /* the widest that model_config_check lets pass */
    for (int64_t at = 0; at < columns; at += head_dim) {
        memcpy(head, line + at, (size_t)head_dim * sizeof *head);
        for (int64_t i = 0; i < head_dim; i++) line[at + i] = head[from(i, head_dim)];
    }
}

bool save_read_row(const struct save_stream *stream, const struct save_item *item, int64_t r, float *line,
                   struct row_report *report) {
    const struct save *save = stream->save;
    const struct tensor *tensor = &save->model->weights[item->weight];
    int64_t hub = hub_row(stream, item, r);
    /* A tensor that the model does not hold is computed of its configuration, whoever makes the others' rows.
     */
    bool made = tensor->rank && save->row && save->row(save->user, item->weight, hub, line);
    if (!tensor->rank) {
        rope_factors(&save->model->config, line);
    } else if (!made) {
        struct stored stored = stored_of(tensor);
        stored_decode(&stored, stored_row(stream, item, hub), 0, item->columns, line);
    }
    if (layout_interleaved(layout_role(&save->model->config, item->weight)) && tensor->rank == 1) {
        bool is = !made && save->model->permuted;
        int64_t head_dim = save->model->config.head_dim;
        if (is != item->interleaved)
            reorder_bias(line, item->columns, head_dim, is ? layout_row_to_gguf : layout_row_from_gguf);
    }
    *report =
        (struct row_report){.state = model_row_is_finite(line, item->columns) ? ROW_GOOD : ROW_NOT_FINITE};
    return !made;
}

void save_compare_row(const float *line, const float *again, int64_t n, struct row_report *report) {
    if (!model_row_is_finite(again, n)) report->state = ROW_TOO_LARGE;
    for (int64_t i = 0; i < n; i++) {
        double was = (double)line[i], change = was - (double)again[i];
        report->change += change * change;
        report->squares += was * was;
    }
}

/* One row: made in `out`, `line` and `again` are the worker's. */
static void make_row(const struct save_stream *stream, int64_t r, float *line, float *again,
                     unsigned char *out, struct row_report *report) {
    const struct save_item *item = &stream->list->items[stream->index];
    const struct rowcodec *codec = rowcodec(item->type);
    uint64_t bytes = row_bytes(stream, stream->index);
    bool stored = save_read_row(stream, item, r, line, report);
    if (report->state != ROW_GOOD) return;
    if (stored && item->copied)
        memcpy(out,
               (const unsigned char *)stream->save->model->weights[item->weight].data +
                   (uint64_t)stored_row(stream, item, hub_row(stream, item, r)) * bytes,
               (size_t)bytes);
    else
        codec->encode(line, out, item->columns);
    codec->decode(out, again, item->columns);
    save_compare_row(line, again, item->columns, report);
}

static void make_rows(void *user, int task, int worker) {
    struct save_stream *stream = user;
    float *line = stream->lines + (size_t)worker * stream->line_elements,
          *again = line + stream->list->items[stream->index].columns;
    int64_t begin = task * stream->per_task, end = begin + stream->per_task;
    if (end > stream->rows) end = stream->rows;
    for (int64_t r = begin; r < end; r++)
        make_row(stream, stream->first + r, line, again,
                 stream->slab + (uint64_t)r * row_bytes(stream, stream->index), &stream->reports[r]);
}

static bool refuse_row(const struct save_stream *stream, enum row_state state, struct error *err) {
    const struct save_item *item = &stream->list->items[stream->index];
    const struct tensor *stored = &stream->save->model->weights[item->weight];
    const char *path = stream->save->model->path,
               *name = stored->data ? stored->name : stream->list->tensors[stream->index].name;
    if (state == ROW_NOT_FINITE) return model_refuse_not_finite(stream->save->model, name, err);
    error_set(err, ERROR_INPUT, "model", "%s: the tensor %s holds numbers too large for %s", path, name,
              dtype_row(item->type)->name);
    return error_fix(err, "Choose a type with a wider range: bf16 or f32.");
}

bool save_take_reports(struct save_stream *stream, int64_t count, struct error *err) {
    for (int64_t r = 0; r < count; r++) {
        const struct row_report *report = &stream->reports[r];
        if (report->state != ROW_GOOD) return refuse_row(stream, report->state, err);
        stream->change += report->change;
        stream->squares += report->squares;
    }
    return true;
}

bool save_tell_progress(const struct save_stream *stream, struct error *err) {
    const struct save *save = stream->save;
    return !save->progress || save->progress(save->user, stream->done, stream->list->bytes, err);
}

static bool emit_rows(struct save_stream *stream, const struct save_item *item, struct fs_writer *file,
                      struct error *err) {
    int64_t per_task = task_elements / item->columns, most = slab_rows(stream, stream->index);
    stream->per_task = per_task < 1 ? 1 : per_task;
    for (int64_t at = 0; at < item->rows; at += stream->rows) {
        stream->first = at;
        stream->rows = item->rows - at < most ? item->rows - at : most;
        if (!save_tell_progress(stream, err)) return false;
        pool_run(stream->pool, (int)((stream->rows + stream->per_task - 1) / stream->per_task), make_rows,
                 stream);
        uint64_t bytes = (uint64_t)stream->rows * row_bytes(stream, stream->index);
        if (!save_take_reports(stream, stream->rows, err) ||
            !fs_writer_write(file, stream->slab, (size_t)bytes, err))
            return false;
        stream->done += bytes;
    }
    return true;
}

bool save_emit(void *user, size_t index, struct fs_writer *file, struct error *err) {
    struct save_part *part = user;
    struct save_stream *stream = part->stream;
    stream->index = part->first + index;
    const struct save_item *item = &stream->list->items[stream->index];
    return item->piece == PIECE_ALL ? emit_rows(stream, item, file, err)
                                    : save_emit_piece(stream, item, file, err);
}
