/* LoRA adapters in Hugging Face PEFT's layout: adapter_config.json + adapter_model.safetensors, with
 * tensor names "base_model.model.<module path>.lora_A.weight" [r, in] and "….lora_B.weight" [out, r]. */
#ifndef HONE_FORMAT_PEFT_H
#define HONE_FORMAT_PEFT_H

#include "base/error.h"
#include "base/json.h"
#include "tensor/tensor.h"

struct peft_config {
    int64_t rank;
    double alpha;
    double dropout;
    char **targets; /* module names, e.g. "q_proj" */
    size_t target_count;
    char *base_model; /* base_model_name_or_path, may be NULL; never an absolute path when written */
};

struct peft_pair {      /* the two tensors of one adapted module */
    const char *module; /* "model.layers.0.self_attn.q_proj" */
    struct tensor a, b; /* f32, f16 or bf16 */
};

struct peft;

bool peft_open(struct peft **out, const char *directory,
               struct error *err); /* ERROR_INPUT: what this reader does not support, by name */
void peft_close(struct peft **peft);
const struct peft_config *peft_config(const struct peft *peft);
size_t peft_pair_count(const struct peft *peft);
const struct peft_pair *peft_pair(const struct peft *peft, size_t index);
const struct peft_pair *peft_find(const struct peft *peft, const char *module);

/* Writes both files into an existing directory (f32 pairs), and README.md, a short model card made
 * from the config and `card` (an object of facts: model, data set name, steps, losses; may be NULL). */
bool peft_write(const char *directory, const struct peft_config *config, const struct peft_pair *pairs,
                size_t count, const json_t *card, struct error *err);

#endif
