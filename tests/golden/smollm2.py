"""A llama GGUF with a byte-level tokenizer as transformers and PEFT objects, made from the file's own
bytes: what run_smollm2.py and tests/perf/peft_job.py compare hone with.

The weights are decoded to f32 by the gguf package. llama.cpp's converter interleaves the rows of q and k
for its own rope: a head's rows are [2, d/2] in Hugging Face's order and [d/2, 2] in the file."""
import json

import jinja2.sandbox
import numpy as np
import torch
from gguf import GGUFReader, dequantize
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


class File:
    """The GGUF: its metadata, its model, its tokenizer and template."""

    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.meta = {k: f.contents() for k, f in self.reader.fields.items()}

    def model(self, dtype=torch.float32, attention="eager"):
        of = lambda key: self.meta["llama." + key]
        heads, kv = of("attention.head_count"), of("attention.head_count_kv")
        tied = not any(t.name == "output.weight" for t in self.reader.tensors)
        config = LlamaConfig(
            vocab_size=len(self.meta["tokenizer.ggml.tokens"]), hidden_size=of("embedding_length"),
            intermediate_size=of("feed_forward_length"), num_hidden_layers=of("block_count"), num_attention_heads=heads,
            num_key_value_heads=kv, max_position_embeddings=of("context_length"), rms_norm_eps=of("attention.layer_norm_rms_epsilon"),
            rope_parameters=dict(rope_theta=of("rope.freq_base"), rope_type="default"), tie_word_embeddings=tied,
            bos_token_id=1, eos_token_id=2, use_cache=False)
        config._attn_implementation = attention
        model = LlamaForCausalLM(config)
        state = {}
        for t in self.reader.tensors:
            value = np.asarray(dequantize(t.data, t.tensor_type), np.float32)
            part = t.name.split(".")
            if part[0] == "blk":
                if part[2] in ("attn_q", "attn_k"):
                    n = heads if part[2] == "attn_q" else kv
                    value = value.reshape(n, value.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
                key = f"model.layers.{part[1]}.{NAMES[part[2]]}.weight"
            else:
                key = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[part[0]] + ".weight"
            state[key] = torch.from_numpy(np.array(value, np.float32))
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        return model.to(dtype).eval()

    def tokenizer(self):
        of = lambda key: self.meta["tokenizer.ggml." + key]
        assert of("pre") == "smollm", of("pre")
        t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(of("tokens"))}, merges=[tuple(m.split(" ")) for m in of("merges")]))
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        t.decoder = decoders.ByteLevel()
        t.add_special_tokens([AddedToken(s, normalized=False) for s, k in zip(of("tokens"), of("token_type")) if k == 3])
        return t

    def examples(self, path, max_length=2048):
        """Chat rows as {ids, trained}: rendered and tokenised once; what an assistant turn adds is trained."""
        tokenizer = self.tokenizer()
        template = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.meta["tokenizer.chat_template"])
        rows = []
        for line in open(path, encoding="utf-8"):
            messages = json.loads(line)["messages"]
            text = template.render(messages=messages)
            spans = [(len(template.render(messages=messages[:i], add_generation_prompt=True).encode()),
                      len(template.render(messages=messages[:i + 1]).encode()))
                     for i, m in enumerate(messages) if m["role"] == "assistant"]
            ids, trained, at = tokenizer.encode(text, add_special_tokens=False).ids, [], 0
            for i in ids:
                trained.append(int(any(a <= at < b for a, b in spans)))
                at += len(tokenizer.id_to_token(i))  # a character of a byte-level piece is one byte
            assert at == len(text.encode())
            rows.append(dict(ids=ids[:max_length], trained=trained[:max_length]))
        return [r for r in rows if any(r["trained"][1:])]


def with_adapter(model, directory):
    return PeftModel.from_pretrained(model, directory, is_trainable=True)


def new_adapter(model, rank, alpha):
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGETS))


def trained_parameters(model):
    return {k.replace(".default", ""): p for k, p in model.named_parameters() if p.requires_grad}


def padded(examples):
    """ids, labels [rows, longest]; -100 where nothing is trained. Padding on the right of a causal model changes nothing to its left."""
    longest = max(len(e["ids"]) for e in examples)
    ids, labels = torch.zeros(len(examples), longest, dtype=torch.long), torch.full((len(examples), longest), -100)
    for i, e in enumerate(examples):
        n = len(e["ids"])
        ids[i, :n] = torch.tensor(e["ids"])
        labels[i, 1:n] = torch.where(torch.tensor(e["trained"][1:]) == 1, torch.tensor(e["ids"][1:]), -100)
    return ids, labels


def loss_sum(model, examples):
    """Sum of -log p over the trained tokens of a few examples, and their number."""
    ids, labels = padded(examples)
    wanted = labels[:, 1:] != -100
    logits = model(input_ids=ids).logits[:, :-1][wanted].float()
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][wanted], reduction="sum"), int(wanted.sum())


def grouped(examples, size):
    """The examples in groups of similar length, so that little is padded."""
    order = sorted(examples, key=lambda e: len(e["ids"]))
    return [order[i:i + size] for i in range(0, len(order), size)]


def held_out_loss(model, examples):
    total = count = 0
    with torch.no_grad():
        for group in grouped(examples, 8):
            s, n = loss_sum(model, group)
            total, count = total + s.item(), count + n
    return total / count


def train_step(model, parameters, optimizer, examples, rate, clip=1.0, group=4):
    """One step over the examples, in groups; the loss is over all supervised tokens of the step."""
    count = sum(sum(e["trained"][1:]) for e in examples)
    for g in optimizer.param_groups:
        g["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part in grouped(examples, group):
        s, _ = loss_sum(model, part)
        (s / count).backward()
        total += s.item()
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip).item()
    optimizer.step()
    return total / count, norm
