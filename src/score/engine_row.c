#include "base/mem.h"
#include "score/engine.h"

bool engine_row_open(struct engine_row *out, const struct engine *engine, int row, bool read,
                     struct error *err) {
    size_t bytes = (size_t)engine->state.table.rows[row].bytes;
    *out = (struct engine_row){.engine = engine, .row = row, .bytes = bytes};
    if (engine->ops->row) {
        out->data = engine->ops->row(engine->store, row);
        return true;
    }
    out->data = mem_map(bytes, 0); /* pages that are given back */
    out->copied = out->data != NULL;
    if (!out->data) return error_no_memory(err, "engine", bytes);
    if (!read || engine->ops->download(engine->store, row, out->data, bytes, err)) return true;
    engine_row_release(out);
    return false;
}

bool engine_row_put(const struct engine_row *row, struct error *err) {
    const struct engine *engine = row->engine;
    return !row->copied || engine->ops->upload(engine->store, row->row, row->data, row->bytes, err);
}

void engine_row_release(struct engine_row *row) {
    if (row->copied) mem_unmap(row->data, row->bytes);
    row->data = NULL;
    row->copied = false;
}
