/* Llama 1 to 3, SmolLM, Mistral without a sliding window, and others of this shape. */
#include "model/family.h"

static const struct weight_name llama_weights[] = {
    {WEIGHT_ATTENTION_NORM, false, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight"},
    {WEIGHT_Q, false, "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight"},
    {WEIGHT_K, false, "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight"},
    {WEIGHT_V, false, "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight"},
    {WEIGHT_O, false, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight"},
    {WEIGHT_FFN_NORM, false, "blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight"},
    {WEIGHT_GATE, false, "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight"},
    {WEIGHT_UP, false, "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight"},
    {WEIGHT_DOWN, false, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight"},
    {WEIGHT_EMBEDDING, false, "token_embd.weight", "model.embed_tokens.weight"},
    {WEIGHT_OUTPUT_NORM, false, "output_norm.weight", "model.norm.weight"},
    {WEIGHT_HEAD, true, "output.weight", "lm_head.weight"},
    {WEIGHT_ROPE_FACTORS, true, "rope_freqs.weight", NULL},
};

static bool llama_check(const struct model_config *config, const json_t *hub_config, struct error *err) {
    (void)config;
    const char *key = json_is_true(json_object_get(hub_config, "attention_bias")) ? "attention_bias"
                      : json_is_true(json_object_get(hub_config, "mlp_bias"))     ? "mlp_bias"
                                                                                  : NULL;
    if (!key) return true;
    error_set(err, ERROR_INPUT, "model", "config.json: the field %s is not supported for llama when true",
              key);
    return error_fix(
        err, "Models of this architecture are read where their linear layers have no biases; name another.");
}

const struct family family_llama = {
    .architecture = "llama",
    .hub_class = "LlamaForCausalLM",
    .weights = llama_weights,
    .weight_count = sizeof llama_weights / sizeof *llama_weights,
    .gguf_permuted = true,
    .check = llama_check,
};
