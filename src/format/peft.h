/* LoRA and DoRA adapters in Hugging Face PEFT's layout: adapter_config.json + adapter_model.safetensors, with
 * tensor names "base_model.model.<module path>.lora_A.weight" [r, in], "….lora_B.weight" [out, r], and with
 * DoRA "….lora_magnitude_vector" [out]; of an embedding "….lora_embedding_A" and "….lora_embedding_B";
 * "base_model.model.<module path>.weight" and ".bias" of modules that are trained whole. */
#ifndef HONE_FORMAT_PEFT_H
#define HONE_FORMAT_PEFT_H

#include "base/error.h"
#include "base/json.h"
#include "tensor/tensor.h"

/* An entry of rank_pattern or alpha_pattern: the key is a regular expression that matches the end of a
 * module's path, from its beginning or after a dot. The first that matches counts. */
struct peft_pattern {
    const char *key;
    double value;
};

struct peft_config {
    int64_t rank;
    double alpha;
    double dropout;
    bool rslora; /* the scale is alpha / √r */
    bool dora;   /* every pair has a magnitude; else none has */
    bool gaussian;
    const char **targets; /* module names, e.g. "q_proj" */
    size_t target_count;
    bool target_patterns;                /* written: the targets are regular expressions, not names */
    bool everywhere;                     /* read: what the targets name is adapted in every layer */
    struct peft_pattern *ranks, *alphas; /* of modules that differ */
    size_t rank_count, alpha_count;
    int64_t from_layer, layers; /* written: of so many layers, those from this one on are adapted; 0: all */
    const char **saved;         /* modules_to_save: ends of the paths of modules that are trained whole */
    size_t saved_count;
    const char *base_type; /* what the base's linears were quantised to while the adapter was trained, by its
                              type's name; NULL: nothing */
    const char *base_weights; /* tells the base's weights from others of the same shapes; NULL: not known */
    char *base_model;         /* base_model_name_or_path, may be NULL; never an absolute path when written */
};

struct peft_pair {           /* the tensors of one adapted module */
    const char *module;      /* "model.layers.0.self_attn.q_proj" */
    struct tensor a, b;      /* f32, f16 or bf16 */
    struct tensor magnitude; /* the same; rank 0: none */
    bool embedding; /* of an embedding: "….lora_embedding_A" [r, tokens], "….lora_embedding_B" [out, r] */
};

/* A weight that is trained whole (modules_to_save), under its name in the model: "model.norm.weight". */
struct peft_weight {
    const char *name;
    struct tensor tensor; /* f32, f16 or bf16 */
};

struct peft;

bool peft_open(struct peft **out, const char *directory,
               struct error *err); /* ERROR_INPUT: what this reader does not support, by name */
void peft_close(struct peft **peft);
const struct peft_config *peft_config(const struct peft *peft);
size_t peft_pair_count(const struct peft *peft);
const struct peft_pair *peft_pair(const struct peft *peft, size_t index);
size_t peft_weight_count(const struct peft *peft);
const struct peft_weight *peft_weight(const struct peft *peft, size_t index);
const struct peft_pair *peft_find(const struct peft *peft, const char *module);

/* The ranks of the tensors are what counts; where the configuration has no rank_pattern, they are its r.
 *
 * Base type and base weights stand in adapter_model.safetensors' metadata, since PEFT refuses fields that it
 * does not know.
 *
 * Writes both files into an existing directory (f32 pairs and weights), and README.md, a short model card
 * made from the config and `card` (an object of facts: model, data set name, steps, losses; may be NULL). */
struct peft_content {
    const struct peft_pair *pairs;
    size_t count;
    const struct peft_weight *weights;
    size_t weight_count;
};
bool peft_write(const char *directory, const struct peft_config *config, const struct peft_content *content,
                const json_t *card, struct error *err);

#endif
