#include "model/method_init.h"

#include "base/mem.h"
#include "model/layout.h"
#include "model/low_rank.h"

/* What is decomposed, and how. */
static const struct init_row {
    bool of_residual, qr;
} rows[METHOD_INITS] = {
    [METHOD_INIT_OLORA] = {.qr = true},
    [METHOD_INIT_LOFTQ] = {.of_residual = true},
};

bool method_init_is_made(const struct method *method) {
    return method->parts && method->init > METHOD_INIT_GAUSSIAN;
}

static struct low_rank shape_of(const struct model_state *state, size_t module) {
    struct low_rank shape = {.rank = state->method.parts[module].rank, .steps = state->method.init_steps};
    module_shape(&state->model->config, part_module(&state->model->config, module), &shape.rows,
                 &shape.columns);
    return shape;
}

/* w: what is decomposed. */
static bool read_weight(const struct model_state *state, size_t module, float *w, struct error *err) {
    const struct model *model = state->model;
    size_t index = layout_index(&model->config, modules[part_module(&model->config, module)].role,
                                part_layer(&model->config, module));
    bool residual = rows[state->method.init].of_residual;
    if (!model_weight_make(model, index, model_state_base(state, index), DTYPE_F32, w, NULL, err))
        return false;
    if (!residual) return true;
    const struct low_rank shape = shape_of(state, module);
    size_t elements = (size_t)(shape.rows * shape.columns);
    float *exact = mem_pages(elements, sizeof *exact);
    bool ok = exact || error_no_memory(err, "adapter", elements * sizeof *exact);
    ok = ok && model_weight_make(model, index, model->weights[index].dtype, DTYPE_F32, exact, NULL, err);
    for (size_t i = 0; ok && i < elements; i++) w[i] = exact[i] - w[i];
    mem_pages_free(exact);
    return ok;
}

bool method_init_make(const struct model_state *state, size_t module, float *a, float *b, struct error *err) {
    const struct low_rank shape = shape_of(state, module);
    size_t elements = (size_t)(shape.rows * shape.columns);
    float *w = mem_pages(elements, sizeof *w);
    bool ok = w || error_no_memory(err, "adapter", elements * sizeof *w);
    ok = ok && read_weight(state, module, w, err);
    if (ok && rows[state->method.init].qr)
        ok = low_rank_qr(&shape, w, b, a, err);
    else if (ok)
        ok = low_rank_svd(&shape, w, method_scale(&state->method, module), b, a, err);
    mem_pages_free(w);
    return ok;
}

enum { blas_bytes = 4 << 20 }; /* in which OpenBLAS packs panels, for each thread that calls it */

uint64_t method_init_bytes(const struct model_state *state) {
    uint64_t most = 0;
    if (!method_init_is_made(&state->method)) return 0;
    for (size_t i = 0; i < state->method.count; i++) {
        if (!state->method.parts[i].rank) continue;
        const struct low_rank shape = shape_of(state, i);
        uint64_t elements = (uint64_t)(shape.rows * shape.columns),
                 factors = (uint64_t)(shape.rank * (shape.rows + shape.columns)) * sizeof(float);
        uint64_t work = rows[state->method.init].qr ? factors : low_rank_bytes(&shape);
        /* The second copy of a residual is gone before the decomposition begins. */
        if (rows[state->method.init].of_residual && work < elements * sizeof(float))
            work = elements * sizeof(float);
        uint64_t bytes = elements * sizeof(float) + factors + work;
        if (bytes > most) most = bytes;
    }
    return most + blas_bytes;
}

double method_init_flops(const struct model_state *state) {
    double flops = 0;
    if (!method_init_is_made(&state->method)) return 0;
    for (size_t i = 0; i < state->method.count; i++) {
        if (!state->method.parts[i].rank) continue;
        const struct low_rank shape = shape_of(state, i);
        flops += rows[state->method.init].qr
                     ? 2.0 * (double)shape.rank * (double)shape.rows * (double)shape.columns
                     : low_rank_flops(&shape);
    }
    return flops;
}
