/* Where training begins. */
#include <cblas.h>
#include <string.h>

#include "base/mem.h"
#include "model/method_init.h"
#include "score/engine_internal.h"

static bool copy_row(struct engine *engine, int from, int to, struct error *err) {
    struct engine_row numbers;
    if (!engine_row_open(&numbers, engine, from, true, err)) return false;
    bool ok = engine->ops->upload(engine->store, to, numbers.data, numbers.bytes, err);
    engine_row_release(&numbers);
    return ok;
}

/* A row begins as long as it is. */
static bool init_magnitudes(struct engine *engine, struct error *err) {
    const struct model_state *state = &engine->state;
    for (int i = 0; i < state->parts.count; i++) {
        const struct trained_part *part = &state->list[i];
        if (part->kind != PART_MAGNITUDE) continue;
        if (!copy_row(engine, state->norms[part->of], part->row, err)) return false;
    }
    return true;
}

static bool init_part(struct engine *engine, const struct trained_part *part, uint64_t seed, float *out,
                      struct pool *pool, struct error *err) {
    if (part->kind == PART_WEIGHT) return model_state_make(&engine->state, part->row, out, pool, err);
    const struct model_config *config = &engine->model->config;
    method_init_a(&engine->state.method, config, seed, part_layer(config, part->of),
                  part_module(config, part->of), out);
    return true;
}

/* Whether a part's first numbers are drawn, or are its weight's; B is zero, of the embedding A, or both are
 * made; a magnitude is a norm. */
static bool is_drawn(const struct engine *engine, const struct trained_part *part) {
    if (part->kind == PART_WEIGHT) return true;
    bool embedding = part_module(&engine->model->config, part->of) == MODULE_EMBEDDING;
    return part->kind == (embedding ? PART_LORA_B : PART_LORA_A) &&
           !method_init_is_made(&engine->state.method);
}

/* ---- starts that are made of the weights ---- */

/* As what is trained, and where the base is to count without it, as the start too. */
static bool upload_pair(struct engine *engine, size_t module, const float *a, const float *b,
                        struct error *err) {
    const struct model_state *state = &engine->state;
    const struct start_pair *start = &state->starts[module];
    const int rows[][2] = {{model_state_part(state, module, PART_LORA_A)->row,
                            model_state_part(state, module, PART_LORA_B)->row},
                           {start->a, start->b}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i][0] < 0) continue;
        size_t bytes_a = (size_t)state->table.rows[rows[i][0]].bytes,
               bytes_b = (size_t)state->table.rows[rows[i][1]].bytes;
        if (!engine->ops->upload(engine->store, rows[i][0], a, bytes_a, err) ||
            !engine->ops->upload(engine->store, rows[i][1], b, bytes_b, err))
            return false;
    }
    return true;
}

static bool make_start(struct engine *engine, size_t module, struct error *err) {
    const struct model_state *state = &engine->state;
    size_t bytes_a = (size_t)state->table.rows[model_state_part(state, module, PART_LORA_A)->row].bytes,
           bytes_b = (size_t)state->table.rows[model_state_part(state, module, PART_LORA_B)->row].bytes;
    float *a = mem_alloc(bytes_a), *b = mem_alloc(bytes_b);
    bool ok = (a && b) || error_no_memory(err, "adapter", bytes_a + bytes_b);
    ok = ok && method_init_make(state, module, a, b, err) && upload_pair(engine, module, a, b, err);
    mem_free(a);
    mem_free(b);
    return ok;
}

/* One module after the other, on one thread: a BLAS with threads of its own splits sums by their number, and
 * OpenBLAS 0.3.21, called by two threads at once, has given a wrong decomposition in one of some fifty
 * starts (Sapphire Rapids). */
static bool make_starts(struct engine *engine, struct error *err) {
    const struct model_state *state = &engine->state;
    int blas_threads = openblas_get_num_threads();
    openblas_set_num_threads(1);
    bool ok = true;
    for (size_t i = 0; ok && i < state->method.count; i++)
        if (state->method.parts[i].rank) ok = make_start(engine, i, err);
    openblas_set_num_threads(blas_threads);
    mem_trim(); /* what the decompositions had taken is not planned for behind them */
    return ok;
}

static bool init_parts(struct engine *engine, uint64_t seed, struct error *err) {
    const struct model_state *state = &engine->state;
    struct pool *pool = NULL;
    bool ok = engine_open_pool(engine, &pool, err);
    for (int i = 0; ok && i < state->parts.count; i++) {
        const struct trained_part *part = &state->list[i];
        if (!is_drawn(engine, part)) continue;
        struct engine_row numbers;
        ok = engine_row_open(&numbers, engine, part->row, false, err) &&
             init_part(engine, part, seed, numbers.data, pool, err) && engine_row_put(&numbers, err);
        engine_row_release(&numbers);
    }
    pool_close(&pool);
    return ok;
}

bool engine_init_trained(struct engine *engine, uint64_t seed, struct error *err) {
    const struct model_state *state = &engine->state;
    if (!init_parts(engine, seed, err)) return false;
    return (!method_init_is_made(&state->method) || make_starts(engine, err)) && engine_derive(engine, err) &&
           init_magnitudes(engine, err);
}

bool engine_init_average(struct engine *engine, struct error *err) {
    const struct model_state *state = &engine->state;
    return state->average < 0 || copy_row(engine, state->trained, state->average, err);
}
