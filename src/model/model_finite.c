/* Whether a model's weights are numbers. */
#include <string.h>

#include "base/mem.h"
#include "model/layout.h"
#include "model/model.h"
#include "tensor/stored.h"

bool model_row_is_finite(const float *row, int64_t count) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000u;
}

bool model_refuse_not_finite(const struct model *model, const char *name, struct error *err) {
    error_set(err, ERROR_INPUT, "model", "%s: the tensor %s holds NaN or infinity", model->path, name);
    return error_fix(err, "The model is damaged or its training diverged; take another copy.");
}

static int64_t columns_of(const struct tensor *tensor) {
    return tensor->rank ? tensor->dim[tensor->rank - 1] : 0;
}

static bool is_finite(const struct tensor *tensor, float *row) {
    struct stored stored = stored_of(tensor);
    int64_t rows = tensor->rank > 1 ? tensor->dim[0] : 1;
    for (int64_t r = 0; r < rows; r++) {
        stored_decode(&stored, r, 0, columns_of(tensor), row);
        if (!model_row_is_finite(row, columns_of(tensor))) return false;
    }
    return true;
}

bool model_check_finite(const struct model *model, struct error *err) {
    size_t count = layout_count(&model->config);
    int64_t longest = 1;
    for (size_t i = 0; i < count; i++)
        if (columns_of(&model->weights[i]) > longest) longest = columns_of(&model->weights[i]);
    float *row = mem_array((size_t)longest, sizeof *row);
    bool ok = row || error_no_memory(err, "model", (uint64_t)longest * sizeof *row);
    for (size_t i = 0; ok && i < count; i++) {
        const struct tensor *tensor = &model->weights[i];
        ok = !tensor->rank || !tensor->data || is_finite(tensor, row) ||
             model_refuse_not_finite(model, tensor->name, err);
    }
    mem_free(row);
    return ok;
}
