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

enum { parallel_bytes = 256 << 20 }; /* what modules that are decomposed at once may take, but for one */

/* Modules side by side; the state of each is a worker's own. */
struct making {
    struct engine *engine;
    size_t modules[64];
    int count;
    struct made {
        float *a, *b;
        size_t bytes_a, bytes_b;
        bool failed;
        struct error err;
    } made[64];
};

static int workers_of(const struct engine *engine, int threads) {
    uint64_t bytes = method_init_bytes(&engine->state), fit = bytes ? parallel_bytes / bytes : 1;
    int workers = threads < 64 ? threads : 64;
    if (fit < (uint64_t)workers) workers = (int)fit;
    return workers > 0 ? workers : 1;
}

static void make_one(void *user, int task, int worker) {
    struct making *making = user;
    const struct model_state *state = &making->engine->state;
    struct made *made = &making->made[task];
    size_t module = making->modules[task];
    (void)worker;
    made->bytes_a = (size_t)state->table.rows[model_state_part(state, module, PART_LORA_A)->row].bytes;
    made->bytes_b = (size_t)state->table.rows[model_state_part(state, module, PART_LORA_B)->row].bytes;
    made->a = mem_alloc(made->bytes_a);
    made->b = mem_alloc(made->bytes_b);
    made->failed = made->a && made->b ? !method_init_make(state, module, made->a, made->b, &made->err)
                                      : !error_no_memory(&made->err, "adapter", made->bytes_a);
}

/* As what is trained, and where the base is to count without it, as the start too. */
static bool upload_made(struct making *making, int task, struct error *err) {
    struct engine *engine = making->engine;
    const struct model_state *state = &engine->state;
    const struct made *made = &making->made[task];
    const struct start_pair *start = &state->starts[making->modules[task]];
    if (made->failed) *err = made->err;
    return !made->failed &&
           engine->ops->upload(engine->store,
                               model_state_part(state, making->modules[task], PART_LORA_A)->row, made->a,
                               made->bytes_a, err) &&
           engine->ops->upload(engine->store,
                               model_state_part(state, making->modules[task], PART_LORA_B)->row, made->b,
                               made->bytes_b, err) &&
           (start->a < 0 || (engine->ops->upload(engine->store, start->a, made->a, made->bytes_a, err) &&
                             engine->ops->upload(engine->store, start->b, made->b, made->bytes_b, err)));
}

static bool make_several(struct making *making, struct pool *pool, struct error *err) {
    bool ok = true;
    memset(making->made, 0, sizeof making->made);
    pool_run(pool, making->count, make_one, making);
    for (int i = 0; i < making->count; i++) {
        ok = ok && upload_made(making, i, err);
        mem_free(making->made[i].a);
        mem_free(making->made[i].b);
    }
    making->count = 0;
    return ok;
}

static bool make_starts(struct engine *engine, struct error *err) {
    struct making *making = mem_calloc(1, sizeof *making);
    struct pool *pool = NULL;
    const struct model_state *state = &engine->state;
    /* A BLAS that has threads of its own splits sums by their number. */
    int blas_threads = openblas_get_num_threads();
    bool ok =
        (making || error_no_memory(err, "adapter", sizeof *making)) && engine_open_pool(engine, &pool, err);
    int workers = ok ? workers_of(engine, pool_threads(pool)) : 0;
    openblas_set_num_threads(1);
    if (ok) making->engine = engine;
    for (size_t i = 0; ok && i < state->method.count; i++) {
        if (!state->method.parts[i].rank) continue;
        making->modules[making->count++] = i;
        if (making->count == workers) ok = make_several(making, pool, err);
    }
    ok = ok && make_several(making, pool, err);
    openblas_set_num_threads(blas_threads);
    pool_close(&pool);
    mem_free(making);
    mem_trim(); /* what the decompositions had taken is not planned for behind them */
    return ok;
}

bool engine_init_bytes(const struct engine *engine, uint64_t *out, struct error *err) {
    int threads;
    *out = method_init_bytes(&engine->state);
    if (!*out) return true;
    if (!engine_threads(engine, &threads, err)) return false;
    *out *= (uint64_t)workers_of(engine, threads);
    return true;
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
