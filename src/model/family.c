#include "model/family.h"

#include <string.h>

static const struct family *const families[] = {&family_llama, &family_qwen2};

const struct module_name modules[module_kinds] = {
    {WEIGHT_Q, "q_proj", "model.layers.%d.self_attn.q_proj", "q_proj.lora_A"},
    {WEIGHT_K, "k_proj", "model.layers.%d.self_attn.k_proj", "k_proj.lora_A"},
    {WEIGHT_V, "v_proj", "model.layers.%d.self_attn.v_proj", "v_proj.lora_A"},
    {WEIGHT_O, "o_proj", "model.layers.%d.self_attn.o_proj", "o_proj.lora_A"},
    {WEIGHT_GATE, "gate_proj", "model.layers.%d.mlp.gate_proj", "gate_proj.lora_A"},
    {WEIGHT_UP, "up_proj", "model.layers.%d.mlp.up_proj", "up_proj.lora_A"},
    {WEIGHT_DOWN, "down_proj", "model.layers.%d.mlp.down_proj", "down_proj.lora_A"},
    [MODULE_EMBEDDING] = {WEIGHT_EMBEDDING, "embed_tokens", "model.embed_tokens", "embed_tokens.lora_A"},
    [MODULE_HEAD] = {WEIGHT_HEAD, "lm_head", "lm_head", "lm_head.lora_A"},
};

const struct family *family_find(const char *architecture, const char *path, struct error *err) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i]->architecture, architecture)) return families[i];
    error_set(err, ERROR_INPUT, "model", "%.300s: the architecture \"%.60s\" is not supported", path,
              architecture);
    error_fix(err, "hone reads the architectures llama and qwen2.");
    return NULL;
}
