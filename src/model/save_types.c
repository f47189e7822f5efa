/* Which types can be written where, and the type that each weight gets. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "model/layout.h"
#include "model/save_internal.h"

enum {
    GGUF = 1 << CONTAINER_GGUF,
    EVERYWHERE = GGUF | 1 << CONTAINER_SAFETENSORS | 1 << CONTAINER_MLX,
};

/* Heads: llama.cpp's quantiser gives them q6_k, or q8_0 beside types of whole blocks of 8 bits and MXFP4. */
const struct save_type save_types[] = {
    {DTYPE_F32, EVERYWHERE, 0, DTYPE_F32, DTYPE_F32},     {DTYPE_F16, EVERYWHERE, 1, DTYPE_F16, DTYPE_F16},
    {DTYPE_BF16, EVERYWHERE, 32, DTYPE_BF16, DTYPE_BF16}, {DTYPE_Q4_0, GGUF, 2, DTYPE_F16, DTYPE_Q6_K},
    {DTYPE_Q4_1, GGUF, 3, DTYPE_F16, DTYPE_Q6_K},         {DTYPE_Q5_0, GGUF, 8, DTYPE_F16, DTYPE_Q6_K},
    {DTYPE_Q5_1, GGUF, 9, DTYPE_F16, DTYPE_Q6_K},         {DTYPE_Q8_0, GGUF, 7, DTYPE_F16, DTYPE_Q8_0},
    {DTYPE_Q2_K, GGUF, 10, DTYPE_IQ4_NL, DTYPE_Q6_K},     {DTYPE_Q3_K, GGUF, 11, DTYPE_IQ4_NL, DTYPE_Q6_K},
    {DTYPE_Q4_K, GGUF, 14, DTYPE_Q5_0, DTYPE_Q6_K},       {DTYPE_Q5_K, GGUF, 16, DTYPE_Q5_1, DTYPE_Q6_K},
    {DTYPE_Q6_K, GGUF, 18, DTYPE_Q8_0, DTYPE_Q6_K},       {DTYPE_IQ4_NL, GGUF, 25, DTYPE_F16, DTYPE_Q6_K},
    {DTYPE_IQ4_XS, GGUF, 30, DTYPE_IQ4_NL, DTYPE_Q6_K},   {DTYPE_MXFP4, GGUF, 38, DTYPE_F16, DTYPE_Q8_0},
};
const size_t save_type_count = sizeof save_types / sizeof *save_types;

const char *container_name(enum container container) {
    static const char *const names[CONTAINER_COUNT] = {"gguf", "safetensors", "mlx"};
    return names[container];
}

static const struct save_type *row_of(enum dtype dtype) {
    for (size_t i = 0; i < save_type_count; i++)
        if (save_types[i].dtype == dtype) return &save_types[i];
    return NULL;
}

static bool holds(const struct save_type *row, enum container to) { return row && row->containers >> to & 1; }

bool save_type_find(const char *name, enum container to, const struct save_type **out, struct error *err) {
    struct buf list = {0};
    enum dtype dtype;
    *out = dtype_from_name(name, &dtype) ? row_of(dtype) : NULL;
    if (holds(*out, to)) return true;
    for (size_t i = 0; i < save_type_count; i++)
        if (holds(&save_types[i], to))
            buf_printf(&list, "%s%s", i ? ", " : "", dtype_row(save_types[i].dtype)->name);
    if (*out)
        error_set(err, ERROR_USAGE, "convert", "type: %s does not go to %s", name, container_name(to));
    else
        error_set(err, ERROR_USAGE, "convert", "type: \"%.40s\" is no type that can be written", name);
    error_fix(err, "%s takes %s.", container_name(to), list.data ? list.data : "");
    buf_release(&list);
    return false;
}

static bool whole_blocks(enum dtype dtype, int64_t columns) {
    return columns % (int64_t)dtype_row(dtype)->block == 0;
}

/* Norms and biases are few and act on whole rows: they are never narrowed. GGUF's readers want f32; MLX
 * computes activations in the type of the norms, which would be f32's slow one. */
static enum dtype vector_type(const struct save *save, enum dtype stored, enum dtype named) {
    if (save->to == CONTAINER_GGUF) return DTYPE_F32;
    if (save->to == CONTAINER_MLX || stored == named) return named;
    return DTYPE_F32;
}

enum dtype save_type_of(const struct save *save, size_t weight, enum dtype *wanted) {
    const struct model *model = save->model;
    const struct tensor *tensor = &model->weights[weight];
    enum weight_role role = layout_role(&model->config, weight);
    bool head = role == WEIGHT_HEAD || (role == WEIGHT_EMBEDDING && model->config.tied);
    int64_t columns = tensor->rank == 2 ? tensor->dim[1] : 0;
    enum dtype type;
    if (save->types) return *wanted = save->types[weight];
    if (!save->type)
        type = holds(row_of(tensor->dtype), save->to) ? tensor->dtype : DTYPE_BF16;
    else
        type = head ? save->type->head : save->type->dtype;
    if (tensor->rank < 2) return *wanted = vector_type(save, tensor->dtype, type);
    *wanted = type;
    if (!whole_blocks(type, columns)) type = row_of(type)->fallback;
    return whole_blocks(type, columns) ? type : DTYPE_F16;
}

const char *save_torch_type(const struct save_list *list) {
    uint64_t bytes[DTYPE_COUNT] = {0};
    for (size_t i = 0; i < list->count; i++) bytes[list->tensors[i].dtype] += list->tensors[i].bytes;
    return bytes[DTYPE_F32] > bytes[DTYPE_F16] + bytes[DTYPE_BF16] ? "float32"
           : bytes[DTYPE_F16] > bytes[DTYPE_BF16]                  ? "float16"
                                                                   : "bfloat16";
}

/* ---- the list of tensors ---- */

/* A head that is the embedding stands once; factors that a configuration holds are written as a tensor only
 * where they differ from pair to pair. */
static bool is_written(const struct save *save, size_t weight, const struct weight_name *row) {
    const struct model *model = save->model;
    enum weight_role role = layout_role(&model->config, weight);
    if (!row || (role == WEIGHT_HEAD && model->config.tied)) return false;
    if (role == WEIGHT_ROPE_FACTORS && model->config.rope_scaling == ROPE_LLAMA3) return true;
    return model->weights[weight].rank != 0;
}

static bool add_item(struct save_list *list, const struct save *save, size_t weight, struct error *err) {
    const struct model *model = save->model;
    const struct model_config *config = &model->config;
    enum weight_role role = layout_role(config, weight);
    const struct weight_name *row = layout_row(model->family, role);
    const struct tensor *stored = &model->weights[weight];
    struct save_item *item = &list->items[list->count];
    struct tensor *tensor = &list->tensors[list->count];
    char name[tensor_max_name];
    bool gguf = save->to == CONTAINER_GGUF;
    if (!is_written(save, weight, row) || !layout_name(row, gguf, layout_layer(config, weight), name))
        return true;
    item->weight = weight;
    item->interleaved = gguf && model->family->gguf_permuted && (role == WEIGHT_Q || role == WEIGHT_K);
    tensor->name = arena_strdup(&list->arena, name);
    if (!tensor->name) return error_no_memory(err, "model", strlen(name));
    tensor->rank = layout_shape(config, role, tensor->dim);
    tensor->dtype = stored->rank ? save_type_of(save, weight, &item->wanted) : DTYPE_F32;
    if (!stored->rank) item->wanted = DTYPE_F32;
    item->copied = stored->rank && stored->data && stored->dtype == tensor->dtype;
    if (!tensor_set_bytes(tensor) || !checked_add(list->bytes, tensor->bytes, &list->bytes))
        return error_set(err, ERROR_INPUT, "model", "the tensor %s is too large", name);
    list->count++;
    return true;
}

bool save_list_build(struct save_list *out, const struct save *save, struct error *err) {
    size_t count = layout_count(&save->model->config);
    memset(out, 0, sizeof *out);
    out->items = arena_array(&out->arena, count, sizeof *out->items);
    out->tensors = arena_array(&out->arena, count, sizeof *out->tensors);
    bool ok = (out->items && out->tensors) || error_no_memory(err, "model", count * sizeof *out->tensors);
    for (size_t i = 0; ok && i < count; i++) ok = add_item(out, save, i, err);
    if (!ok) save_list_release(out);
    return ok;
}

void save_list_release(struct save_list *list) { arena_release(&list->arena); }
