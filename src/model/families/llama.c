/* Llama 1 to 3, SmolLM, Mistral without a sliding window, and others of this shape; with attention_bias q, k,
 * v and o have biases, with mlp_bias gate, up and down. */
#include "model/family.h"

static const struct weight_name llama_weights[] = {
    {WEIGHT_ATTENTION_NORM, WEIGHT_NEEDED, "blk.%d.attn_norm.weight",
     "model.layers.%d.input_layernorm.weight"},
    {WEIGHT_Q, WEIGHT_NEEDED, "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight"},
    {WEIGHT_K, WEIGHT_NEEDED, "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight"},
    {WEIGHT_V, WEIGHT_NEEDED, "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight"},
    {WEIGHT_O, WEIGHT_NEEDED, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight"},
    {WEIGHT_Q_BIAS, WEIGHT_WITH_ATTENTION_BIAS, "blk.%d.attn_q.bias",
     "model.layers.%d.self_attn.q_proj.bias"},
    {WEIGHT_K_BIAS, WEIGHT_WITH_ATTENTION_BIAS, "blk.%d.attn_k.bias",
     "model.layers.%d.self_attn.k_proj.bias"},
    {WEIGHT_V_BIAS, WEIGHT_WITH_ATTENTION_BIAS, "blk.%d.attn_v.bias",
     "model.layers.%d.self_attn.v_proj.bias"},
    {WEIGHT_O_BIAS, WEIGHT_WITH_ATTENTION_BIAS, "blk.%d.attn_output.bias",
     "model.layers.%d.self_attn.o_proj.bias"},
    {WEIGHT_FFN_NORM, WEIGHT_NEEDED, "blk.%d.ffn_norm.weight",
     "model.layers.%d.post_attention_layernorm.weight"},
    {WEIGHT_GATE, WEIGHT_NEEDED, "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight"},
    {WEIGHT_UP, WEIGHT_NEEDED, "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight"},
    {WEIGHT_DOWN, WEIGHT_NEEDED, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight"},
    {WEIGHT_GATE_BIAS, WEIGHT_WITH_MLP_BIAS, "blk.%d.ffn_gate.bias", "model.layers.%d.mlp.gate_proj.bias"},
    {WEIGHT_UP_BIAS, WEIGHT_WITH_MLP_BIAS, "blk.%d.ffn_up.bias", "model.layers.%d.mlp.up_proj.bias"},
    {WEIGHT_DOWN_BIAS, WEIGHT_WITH_MLP_BIAS, "blk.%d.ffn_down.bias", "model.layers.%d.mlp.down_proj.bias"},
    {WEIGHT_EMBEDDING, WEIGHT_NEEDED, "token_embd.weight", "model.embed_tokens.weight"},
    {WEIGHT_OUTPUT_NORM, WEIGHT_NEEDED, "output_norm.weight", "model.norm.weight"},
    {WEIGHT_HEAD, WEIGHT_OPTIONAL, "output.weight", "lm_head.weight"},
    {WEIGHT_ROPE_FACTORS, WEIGHT_OPTIONAL, "rope_freqs.weight", NULL},
};

const struct family family_llama = {
    .architecture = "llama",
    .hub_class = "LlamaForCausalLM",
    .weights = llama_weights,
    .weight_count = sizeof llama_weights / sizeof *llama_weights,
    .gguf_permuted = true,
};
