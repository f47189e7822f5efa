#include "model/layout.h"

#include <stdio.h>
#include <string.h>

size_t layout_count(const struct model_config *config) {
    return (size_t)config->layers * WEIGHT_LAYER_ROLES + (WEIGHT_ROLES - WEIGHT_LAYER_ROLES);
}

size_t layout_index(const struct model_config *config, enum weight_role role, int64_t layer) {
    if (role < WEIGHT_LAYER_ROLES) return (size_t)layer * WEIGHT_LAYER_ROLES + (size_t)role;
    return (size_t)config->layers * WEIGHT_LAYER_ROLES + (size_t)(role - WEIGHT_LAYER_ROLES);
}

enum weight_role layout_role(const struct model_config *config, size_t index) {
    size_t in_layers = (size_t)config->layers * WEIGHT_LAYER_ROLES;
    return index < in_layers ? (enum weight_role)(index % WEIGHT_LAYER_ROLES)
                             : (enum weight_role)(WEIGHT_LAYER_ROLES + index - in_layers);
}

int64_t layout_layer(const struct model_config *config, size_t index) {
    return layout_role(config, index) < WEIGHT_LAYER_ROLES ? (int64_t)(index / WEIGHT_LAYER_ROLES) : 0;
}

int layout_shape(const struct model_config *c, enum weight_role role, int64_t dim[2]) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shapes[WEIGHT_ROLES][2] = {
        [WEIGHT_ATTENTION_NORM] = {c->hidden, 0},
        [WEIGHT_Q] = {q, c->hidden},
        [WEIGHT_K] = {kv, c->hidden},
        [WEIGHT_V] = {kv, c->hidden},
        [WEIGHT_O] = {c->hidden, q},
        [WEIGHT_Q_BIAS] = {q, 0},
        [WEIGHT_K_BIAS] = {kv, 0},
        [WEIGHT_V_BIAS] = {kv, 0},
        [WEIGHT_O_BIAS] = {c->hidden, 0},
        [WEIGHT_FFN_NORM] = {c->hidden, 0},
        [WEIGHT_GATE] = {c->ffn, c->hidden},
        [WEIGHT_UP] = {c->ffn, c->hidden},
        [WEIGHT_DOWN] = {c->hidden, c->ffn},
        [WEIGHT_GATE_BIAS] = {c->ffn, 0},
        [WEIGHT_UP_BIAS] = {c->ffn, 0},
        [WEIGHT_DOWN_BIAS] = {c->hidden, 0},
        [WEIGHT_EMBEDDING] = {c->vocabulary, c->hidden},
        [WEIGHT_OUTPUT_NORM] = {c->hidden, 0},
        [WEIGHT_HEAD] = {c->vocabulary, c->hidden},
        [WEIGHT_ROPE_FACTORS] = {c->head_dim / 2, 0},
    };
    dim[0] = shapes[role][0];
    dim[1] = shapes[role][1];
    return dim[1] ? 2 : 1;
}

const struct weight_name *layout_row(const struct family *family, enum weight_role role) {
    for (int i = 0; i < family->weight_count; i++)
        if (family->weights[i].role == role) return &family->weights[i];
    return NULL;
}

bool layout_present(const struct model_config *config, const struct weight_name *row) {
    return row->presence == WEIGHT_WITH_ATTENTION_BIAS ? config->attention_bias
           : row->presence == WEIGHT_WITH_MLP_BIAS     ? config->mlp_bias
                                                       : true;
}

bool layout_interleaved(enum weight_role role) {
    return role == WEIGHT_Q || role == WEIGHT_K || role == WEIGHT_Q_BIAS || role == WEIGHT_K_BIAS;
}

bool layout_name(const struct weight_name *row, bool gguf, int64_t layer, char name[tensor_max_name]) {
    const char *pattern = gguf ? row->gguf : row->hub;
    if (!pattern) return false;
    const char *mark = row->role < WEIGHT_LAYER_ROLES ? strstr(pattern, "%d") : NULL;
    if (mark)
        snprintf(name, tensor_max_name, "%.*s%lld%s", (int)(mark - pattern), pattern, (long long)layer,
                 mark + 2);
    else
        snprintf(name, tensor_max_name, "%s", pattern);
    return true;
}

int64_t layout_row_to_gguf(int64_t r, int64_t head_dim) {
    int64_t half = head_dim / 2, head = r / head_dim, at = r % head_dim;
    return head * head_dim + 2 * (at % half) + at / half;
}

int64_t layout_row_from_gguf(int64_t r, int64_t head_dim) {
    int64_t half = head_dim / 2, head = r / head_dim, at = r % head_dim;
    return head * head_dim + at % 2 * half + at / 2;
}
