/* Families: what differs between model architectures, as tables.
 *
 * A family names its weights in GGUF files and in Hugging Face directories, and says how its
 * configuration is read. The forward pass itself is written once, in build.c, and reads these tables.
 * Adding a family is: a file in families/, its row in family.c. */
#ifndef HONE_MODEL_FAMILY_H
#define HONE_MODEL_FAMILY_H

#include "base/json.h"
#include "format/gguf.h"
#include "format/hub.h"

/* Weights by what they do. Those with a layer number come first in a layer's order. */
enum weight_role {
    WEIGHT_ATTENTION_NORM,
    WEIGHT_Q,
    WEIGHT_K,
    WEIGHT_V,
    WEIGHT_O,
    WEIGHT_Q_BIAS,
    WEIGHT_K_BIAS,
    WEIGHT_V_BIAS,
    WEIGHT_O_BIAS,
    WEIGHT_FFN_NORM,
    WEIGHT_GATE,
    WEIGHT_UP,
    WEIGHT_DOWN,
    WEIGHT_GATE_BIAS,
    WEIGHT_UP_BIAS,
    WEIGHT_DOWN_BIAS,
    WEIGHT_LAYER_ROLES, /* roles from here on stand once in a model */
    WEIGHT_EMBEDDING = WEIGHT_LAYER_ROLES,
    WEIGHT_OUTPUT_NORM,
    WEIGHT_HEAD,
    WEIGHT_ROPE_FACTORS,
    WEIGHT_ROLES
};

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct model_config {
    const char *architecture; /* "llama", "qwen2" */
    int64_t hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary, context;
    double norm_epsilon, rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor, rope_low,
        rope_high;        /* linear: factor; llama3: factor, low_freq_factor, high_freq_factor */
    double rope_original; /* llama3: original_max_position_embeddings */
    bool tied;            /* the head is the embedding */
    bool attention_bias;  /* llama: q, k, v and o have biases */
    bool mlp_bias;        /* llama: gate, up and down have biases */
};

enum weight_presence { WEIGHT_NEEDED, WEIGHT_OPTIONAL, WEIGHT_WITH_ATTENTION_BIAS, WEIGHT_WITH_MLP_BIAS };

struct weight_name {
    enum weight_role role;
    enum weight_presence presence;
    const char *gguf; /* "blk.%d.attn_q.weight" */
    const char *hub;  /* "model.layers.%d.self_attn.q_proj.weight" */
};

struct family {
    const char *architecture; /* general.architecture and config.json's model_type */
    const char *hub_class;    /* architectures[0], for messages and written models */
    const struct weight_name *weights;
    int weight_count;
    bool gguf_permuted; /* q and k rows of a GGUF are interleaved for its rope; undone on load */
    /* Anything of the configuration that this family cannot honour is refused; NULL: it honours all of it. */
    bool (*check)(const struct model_config *config, const json_t *hub_config, struct error *err);
};

extern const struct family family_llama, family_qwen2;

/* NULL with *err naming the families that there are; `path` is the model's, for the message. */
const struct family *family_find(const char *architecture, const char *path, struct error *err);

/* Linear modules that adapters attach to, in a layer's order. The index is part of the random numbers
 * (method.h) and of files: never reorder. */
struct module_name {
    enum weight_role role;
    const char *target; /* "q_proj" */
    const char *path;   /* "model.layers.%d.self_attn.q_proj" */
    const char *low;    /* what an adapter's first matrix makes of the input: "q_proj.lora_A" */
};
enum { module_count = 7 };
/* And the two that stand once, outside the layers. */
enum {
    MODULE_EMBEDDING = module_count,
    MODULE_HEAD,
    module_kinds,
    module_outer = module_kinds - module_count
};
extern const struct module_name modules[module_kinds];

#endif
