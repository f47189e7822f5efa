/* Which types can be written where, and the type that each weight gets. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "model/layout.h"
#include "model/save_internal.h"

enum {
    GGUF = 1 << CONTAINER_GGUF,
    HUB = 1 << CONTAINER_SAFETENSORS,
    MLX = 1 << CONTAINER_MLX,
    EVERYWHERE = GGUF | HUB | MLX,
};

/* Heads: llama.cpp's quantiser gives them q6_k, or q8_0 beside types of whole blocks of 8 bits and MXFP4. */
const struct save_type save_types[] = {
    {DTYPE_F32, EVERYWHERE, 0, DTYPE_F32, DTYPE_F32, false},
    {DTYPE_F16, EVERYWHERE, 1, DTYPE_F16, DTYPE_F16, false},
    {DTYPE_BF16, EVERYWHERE, 32, DTYPE_BF16, DTYPE_BF16, false},
    {DTYPE_Q4_0, GGUF, 2, DTYPE_F16, DTYPE_Q6_K, false},
    {DTYPE_Q4_1, GGUF, 3, DTYPE_F16, DTYPE_Q6_K, false},
    {DTYPE_Q5_0, GGUF, 8, DTYPE_F16, DTYPE_Q6_K, false},
    {DTYPE_Q5_1, GGUF, 9, DTYPE_F16, DTYPE_Q6_K, false},
    {DTYPE_Q8_0, GGUF, 7, DTYPE_F16, DTYPE_Q8_0, false},
    {DTYPE_Q2_K, GGUF, 10, DTYPE_IQ4_NL, DTYPE_Q6_K, false},
    {DTYPE_Q3_K, GGUF, 11, DTYPE_IQ4_NL, DTYPE_Q6_K, false},
    {DTYPE_Q4_K, GGUF, 14, DTYPE_Q5_0, DTYPE_Q6_K, false},
    {DTYPE_Q5_K, GGUF, 16, DTYPE_Q5_1, DTYPE_Q6_K, false},
    {DTYPE_Q6_K, GGUF, 18, DTYPE_Q8_0, DTYPE_Q6_K, false},
    {DTYPE_IQ4_NL, GGUF, 25, DTYPE_F16, DTYPE_Q6_K, false},
    {DTYPE_IQ4_XS, GGUF, 30, DTYPE_IQ4_NL, DTYPE_Q6_K, false},
    {DTYPE_MXFP4, GGUF, 38, DTYPE_F16, DTYPE_Q8_0, false},
    {DTYPE_NF4, HUB, 0, DTYPE_BF16, DTYPE_BF16, true}, /* the rest as bitsandbytes leaves it */
    {DTYPE_INT8, HUB, 0, DTYPE_BF16, DTYPE_BF16, true},
#define AFFINE(dtype) \
    { dtype, MLX, 0, DTYPE_BF16, dtype, false } /* embedding and head too, as mlx-lm has them */
#define AFFINE_BITS(bits) \
    AFFINE(DTYPE_MLX##bits##_G32), AFFINE(DTYPE_MLX##bits##_G64), AFFINE(DTYPE_MLX##bits##_G128)
    AFFINE_BITS(2),
    AFFINE_BITS(3),
    AFFINE_BITS(4),
    AFFINE_BITS(5),
    AFFINE_BITS(6),
    AFFINE_BITS(8),
#undef AFFINE_BITS
#undef AFFINE
    {DTYPE_MLX_MXFP4, MLX, 0, DTYPE_BF16, DTYPE_MLX_MXFP4, false},
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
    /* One name for two layouts: GGUF's blocks, and codes and scales apart. */
    if (*out && dtype == DTYPE_MXFP4 && to == CONTAINER_MLX) *out = row_of(DTYPE_MLX_MXFP4);
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

enum dtype save_float_type(enum dtype type) { return dtype_row(type)->quantised ? DTYPE_BF16 : type; }

/* Norms and biases are few and act on whole rows: they are never narrowed, where readers allow. GGUF's want
 * f32; MLX, and transformers beside bitsandbytes, compute in the type of the norms, and want one type for
 * all. */
static enum dtype vector_type(const struct save *save, enum dtype stored, enum dtype named) {
    if (save->to == CONTAINER_GGUF) return DTYPE_F32;
    bool one_type = save->to == CONTAINER_MLX || dtype_row(named)->quantised;
    return one_type || stored == named ? save_float_type(named) : DTYPE_F32;
}

enum dtype save_type_of(const struct save *save, size_t weight, enum dtype *wanted) {
    const struct model *model = save->model;
    const struct tensor *tensor = &model->weights[weight];
    enum weight_role role = layout_role(&model->config, weight);
    bool alone = save->type && save->type->linears; /* the embedding is no linear layer */
    bool head = role == WEIGHT_HEAD || (role == WEIGHT_EMBEDDING && (model->config.tied || alone));
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
    int64_t count[DTYPE_COUNT] = {0};
    for (size_t i = 0; i < list->count; i++)
        count[save_float_type(list->items[i].type)] += list->items[i].rows * list->items[i].columns;
    return count[DTYPE_F32] > count[DTYPE_F16] + count[DTYPE_BF16] ? "float32"
           : count[DTYPE_F16] > count[DTYPE_BF16]                  ? "float16"
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

static bool add_tensor(struct save_list *list, const struct save_item *item, const struct tensor *tensor,
                       const char *name, struct error *err) {
    struct tensor *added = &list->tensors[list->count];
    *added = *tensor;
    added->name = arena_strdup(&list->arena, name);
    if (!added->name) return error_no_memory(err, "model", strlen(name));
    if (!tensor_set_bytes(added) || !checked_add(list->bytes, added->bytes, &list->bytes))
        return error_set(err, ERROR_INPUT, "model", "the tensor %s is too large", name);
    list->items[list->count++] = *item;
    return true;
}

/* The pieces of a weight, one tensor after the other. */
static bool add_pieces(struct save_list *list, struct save_item item, const struct tensor *stored,
                       const char *weight, struct error *err) {
    char name[tensor_max_name];
    struct tensor tensor;
    for (int i = 0; save_piece_of(&item, i, stored, weight, &item.piece, name, &tensor); i++)
        if (!add_tensor(list, &item, &tensor, name, err)) return false;
    return true;
}

static bool add_weight(struct save_list *list, const struct save *save, size_t weight, struct error *err) {
    const struct model *model = save->model;
    const struct model_config *config = &model->config;
    enum weight_role role = layout_role(config, weight);
    const struct weight_name *row = layout_row(model->family, role);
    const struct tensor *stored = &model->weights[weight];
    struct save_item item = {.weight = weight, .wanted = DTYPE_F32};
    struct tensor tensor = {0};
    char name[tensor_max_name];
    bool gguf = save->to == CONTAINER_GGUF;
    if (!is_written(save, weight, row) || !layout_name(row, gguf, layout_layer(config, weight), name))
        return true;
    item.interleaved = gguf && model->family->gguf_permuted && layout_interleaved(role);
    tensor.rank = layout_shape(config, role, tensor.dim);
    item.rows = tensor.rank == 2 ? tensor.dim[0] : 1;
    item.columns = tensor.dim[tensor.rank - 1];
    item.type = tensor.dtype = stored->rank ? save_type_of(save, weight, &item.wanted) : DTYPE_F32;
    item.copied = stored->rank && stored->data && stored->dtype == item.type &&
                  (tensor.rank == 2 || !layout_interleaved(role));
    if (dtype_row(item.type)->form != FORM_BLOCK) return add_pieces(list, item, stored, name, err);
    return add_tensor(list, &item, &tensor, name, err);
}

bool save_list_build(struct save_list *out, const struct save *save, struct error *err) {
    enum { most_pieces = 8 };
    size_t weights = layout_count(&save->model->config), count = weights * most_pieces;
    memset(out, 0, sizeof *out);
    out->items = arena_array(&out->arena, count, sizeof *out->items);
    out->tensors = arena_array(&out->arena, count, sizeof *out->tensors);
    bool ok = (out->items && out->tensors) || error_no_memory(err, "model", count * sizeof *out->tensors);
    for (size_t i = 0; ok && i < weights; i++) ok = add_weight(out, save, i, err);
    if (!ok) save_list_release(out);
    return ok;
}

void save_list_release(struct save_list *list) { arena_release(&list->arena); }
