#include "model/weight_make.h"

#include <string.h>

#include "base/mem.h"
#include "model/layout.h"
#include "tensor/rowcodec.h"

/* One pass over a matrix: from a view, to an encoder. */
struct pass {
    struct stored from;
    const struct stored_encoder *to;
    int64_t head_dim;
    float *rows; /* [workers][stored_rows_together][columns] */
};

/* Row of the file that holds row `r`. */
static int64_t source_row(int64_t head_dim, int64_t r) {
    return head_dim ? layout_row_to_gguf(r, head_dim) : r;
}

static void pass_task(void *user, int task, int worker) {
    const struct pass *pass = user;
    const int64_t columns = pass->to->columns, first = (int64_t)task * stored_rows_together;
    int64_t count = pass->to->rows - first;
    float *rows = pass->rows + (int64_t)worker * stored_rows_together * columns;
    if (count > stored_rows_together) count = stored_rows_together;
    for (int64_t r = 0; r < count; r++)
        stored_decode(&pass->from, source_row(pass->head_dim, first + r), 0, columns, rows + r * columns);
    stored_encode(pass->to, first, count, rows);
}

static bool run_pass(const struct stored *from, int64_t head_dim, const struct stored_layout *layout,
                     void *out, struct pool *pool, struct error *err) {
    struct stored_encoder encoder;
    const int64_t rows = layout->codes.dim[0], columns = layout->codes.dim[1];
    if (!stored_encoder_open(&encoder, layout, out, err)) return false;
    struct pass pass = {.from = *from, .to = &encoder, .head_dim = head_dim};
    const int tasks = (int)((rows + stored_rows_together - 1) / stored_rows_together);
    size_t lines = (size_t)(pool ? pool_threads(pool) : 1) * stored_rows_together;
    pass.rows = mem_array(lines * (size_t)columns, sizeof *pass.rows);
    bool ok = pass.rows || error_no_memory(err, "model", lines * (size_t)columns * sizeof *pass.rows);
    for (int t = 0; ok && !pool && t < tasks; t++) pass_task(&pass, t, 0);
    if (ok && pool) pool_run(pool, tasks, pass_task, &pass);
    stored_encoder_finish(&encoder, pool);
    mem_free(pass.rows);
    return ok;
}

static bool lay_out(struct stored_layout *out, enum dtype dtype, const struct tensor *weight,
                    struct error *err) {
    int64_t columns = weight->dim[weight->rank - 1], rows = weight->rank == 2 ? weight->dim[0] : 1;
    return stored_layout(out, dtype, rows, columns, DTYPE_F32) ||
           error_set(err, ERROR_INTERNAL, "model", "%s has no layout as %s", weight->name,
                     dtype_row(dtype)->name);
}

/* Rows of blocks as they are, in another order. */
static void copy_rows(const struct weight_work *work, unsigned char *out) {
    const struct tensor *weight = work->source;
    int64_t rows = weight->rank == 2 ? weight->dim[0] : 1;
    uint64_t bytes = weight->bytes / (uint64_t)rows;
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + (uint64_t)r * bytes,
               (const unsigned char *)weight->data + (uint64_t)source_row(work->head_dim, r) * bytes, bytes);
}

bool weight_make(const struct weight_work *work, void *out, struct pool *pool, struct error *err) {
    struct stored source = stored_of(work->source);
    struct stored_layout last, base;
    if (work->dtype == work->source->dtype && work->base == work->dtype) {
        copy_rows(work, out);
        return true;
    }
    if (!lay_out(&last, work->dtype, work->source, err)) return false;
    if (work->base == work->source->dtype || work->base == work->dtype)
        return run_pass(&source, work->head_dim, &last, out, pool, err);
    /* Rounded, and kept decoded: the rounded form stands only meanwhile. */
    if (!lay_out(&base, work->base, work->source, err)) return false;
    void *rounded = mem_alloc((size_t)base.bytes);
    if (!rounded) return error_no_memory(err, "model", base.bytes);
    bool ok = run_pass(&source, work->head_dim, &base, rounded, pool, err);
    source = stored_in(&base, rounded);
    ok = ok && run_pass(&source, 0, &last, out, pool, err);
    mem_free(rounded);
    return ok;
}
