#include "model/sketch.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/layout.h"
#include "model/model_internal.h"

enum { largest_config = 16 << 20, least_vocabulary = 257 };

/* ---- the shape ---- */

static bool name_weights(struct model *model, struct error *err) {
    const struct model_config *config = &model->config;
    size_t count = layout_count(config);
    model->weights = mem_calloc(count, sizeof *model->weights);
    if (!model->weights) return error_no_memory(err, "model", count * sizeof *model->weights);
    for (size_t i = 0; i < count; i++) {
        enum weight_role role = layout_role(config, i);
        const struct weight_name *row = layout_row(model->family, role);
        struct tensor *weight = &model->weights[i];
        if (!row || !row->hub || !layout_present(config, row) || (role == WEIGHT_HEAD && config->tied))
            continue;
        weight->name = row->hub; /* a pattern: whoever writes it names the layer */
        weight->dtype = DTYPE_F32;
        weight->rank = layout_shape(config, role, weight->dim);
        if (!tensor_set_bytes(weight))
            return error_set(err, ERROR_INPUT, "model", "%s: the weights are too large", model->path);
    }
    return true;
}

static bool check_vocabulary(const struct model *model, struct error *err) {
    if (model->config.vocabulary >= least_vocabulary) return true;
    return error_set(err, ERROR_INPUT, "model",
                     "%s: vocab_size is %lld, 256 bytes and an end of text need %d", model->path,
                     (long long)model->config.vocabulary, least_vocabulary);
}

bool sketch_open(struct model **out, const char *config_path, struct error *err) {
    struct model *model = *out = mem_calloc(1, sizeof *model);
    if (!model) return error_no_memory(err, "model", sizeof *model);
    model->path = mem_strdup(config_path);
    bool ok = (model->path || error_no_memory(err, "model", strlen(config_path))) &&
              json_read_file(&model->sketched, config_path, largest_config, err) &&
              model_config_hub(model, model->sketched, err) && model_config_check(model, err) &&
              check_vocabulary(model, err) && name_weights(model, err) &&
              tokenizer_open_bytes(&model->tokenizer, (size_t)model->config.vocabulary, err);
    if (!ok) model_close(out);
    return ok;
}

/* ---- the numbers ---- */

bool sketch_init(struct sketch *out, const struct model *model, uint64_t seed, struct error *err) {
    const json_t *range = json_object_get(model->sketched, "initializer_range");
    *out = (struct sketch){.model = model, .seed = seed, .deviation = 0.02};
    if (!range || json_is_null(range)) return true;
    out->deviation = json_number_value(range);
    if (json_is_number(range) && out->deviation >= 0 && out->deviation <= 1000) return true;
    return error_set(err, ERROR_INPUT, "model", "%s: initializer_range is not a number from 0 to 1000",
                     model->path);
}

static void draw_row(const struct sketch *sketch, size_t index, int64_t row, int64_t columns, float *out) {
    for (int64_t at = 0; at < columns; at += 4) {
        uint32_t counter[4] = {(uint32_t)(at / 4), (uint32_t)row, (uint32_t)index, 0xfffffff0u}, words[4];
        double normal[4];
        philox(sketch->seed, counter, words);
        normal_pair(words, normal);
        normal_pair(words + 2, normal + 2);
        for (int64_t i = 0; i < 4 && at + i < columns; i++)
            out[at + i] = (float)(sketch->deviation * normal[i]);
    }
}

void sketch_row(const struct sketch *sketch, size_t index, int64_t row, float *out) {
    const struct model *model = sketch->model;
    enum weight_role role = layout_role(&model->config, index);
    const struct tensor *weight = &model->weights[index];
    bool norm = role == WEIGHT_ATTENTION_NORM || role == WEIGHT_FFN_NORM || role == WEIGHT_OUTPUT_NORM;
    if (weight->rank == 2)
        draw_row(sketch, index, row, weight->dim[1], out);
    else
        for (int64_t i = 0; i < weight->dim[0]; i++) out[i] = norm ? 1.0f : 0.0f;
}
