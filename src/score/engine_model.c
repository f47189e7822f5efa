/* A model whose weights are trained, to files and back. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/layout.h"
#include "model/save.h"
#include "score/engine.h"
#include "tensor/rowcodec.h"

static const char gguf_name[] = "model.gguf";

/* The trained block: its rows are asked for by several threads. */
struct saving {
    const struct model_state *state;
    struct engine_row block;
};

static bool trained_row(void *user, size_t index, int64_t row, float *out) {
    const struct saving *saving = user;
    const struct state_table *table = &saving->state->table;
    int at = saving->state->weights[index];
    if (at < 0 || table->rows[at].class != STATE_TRAINED) return false;
    const struct state_row *r = &table->rows[at];
    int64_t columns = r->dim[r->rank - 1];
    memcpy(out, (const float *)saving->block.data + r->offset / sizeof *out + row * columns,
           (size_t)columns * sizeof *out);
    return true;
}

/* What each weight is written as: as it is stored, and a trained one as `trained`, or DTYPE_COUNT: as it is
 * stored if that is a float, else bf16. */
static void choose_types(const struct model_state *state, enum dtype trained, enum dtype *types) {
    for (size_t i = 0; i < layout_count(&state->model->config); i++) {
        types[i] = state->model->weights[i].dtype;
        if (!state->method.weights[i]) continue;
        if (trained != DTYPE_COUNT)
            types[i] = trained;
        else if (dtype_row(types[i])->quantised)
            types[i] = DTYPE_BF16;
    }
}

bool engine_save_model(struct engine *engine, const char *directory, bool masters, struct error *err) {
    const struct model_state *state = &engine->state;
    const struct model *model = engine->model;
    struct saving saving = {.state = state};
    enum dtype *types = mem_array(layout_count(&model->config), sizeof *types);
    char *file = model->gguf ? fs_join(directory, gguf_name) : mem_strdup(directory);
    json_t *report = NULL;
    bool ok = (types && file) || error_no_memory(err, "model", 0);
    ok = ok &&
         engine_row_open(&saving.block, engine,
                         masters ? state->trained : model_state_average(state, state->trained), true, err) &&
         (!model->gguf || fs_make_directories(directory, err));
    if (ok) {
        struct save save = {.model = model,
                            .to = model->gguf ? CONTAINER_GGUF : CONTAINER_SAFETENSORS,
                            .types = types,
                            .path = file,
                            .row = trained_row,
                            .user = &saving};
        choose_types(state, masters ? DTYPE_F32 : DTYPE_COUNT, types);
        ok = model_save(&save, &report, err);
    }
    json_decref(report);
    engine_row_release(&saving.block);
    mem_free(types);
    mem_free(file);
    return ok;
}

static bool load_part(struct engine *engine, const struct model *model, const struct trained_part *part,
                      struct error *err) {
    const struct tensor *weight = &model->weights[part->of];
    const struct state_row *row = &engine->state.table.rows[part->row];
    struct engine_row numbers;
    if (weight->rank != row->rank || memcmp(weight->dim, row->dim, (size_t)row->rank * sizeof *row->dim) ||
        weight->dtype != DTYPE_F32)
        return error_set(err, ERROR_INPUT, "model",
                         "%s: the weight %s is missing, of another shape or not f32", model->path, row->name);
    if (!engine_row_open(&numbers, engine, part->row, false, err)) return false;
    bool ok = model_weight_make(model, part->of, DTYPE_F32, DTYPE_F32, numbers.data, NULL, err) &&
              engine_row_put(&numbers, err);
    engine_row_release(&numbers);
    return ok;
}

bool engine_load_model(struct engine *engine, const char *directory, struct error *err) {
    struct model *model;
    if (!model_open(&model, directory, err)) return false;
    bool ok = model->config.layers == engine->model->config.layers ||
              error_set(err, ERROR_INPUT, "model", "%s has another number of layers", directory);
    for (int i = 0; ok && i < engine->state.parts.count; i++)
        ok = load_part(engine, model, &engine->state.list[i], err);
    model_close(&model);
    return ok;
}
