#!/usr/bin/env python3
"""Writes data/<model>/: tiny random models and what PyTorch, transformers and PEFT compute with them.

    pip install torch transformers peft safetensors numpy
    python3 tests/golden/make_models.py            writes tests/golden/data
    python3 tests/golden/make_models.py OTHER      writes OTHER, to compare with what is committed

README.md beside this file says what each written file holds. Weights, adapters and texts come from
numpy's generator, so they are the same under every version of torch; the computed numbers are f32 on
one thread and may differ in the last bits between versions."""
import json
import os
import pathlib
import sys

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 4, 8
STEPS, BATCH, LEARNING_RATE, CLIP = 10, 4, 1e-3, 1.0
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MERGES = ["Ġ t", "Ġ a", "h e", "i n", "r e", "Ġt he", "o n", "e r", "Ġ s", "a t", "e n", "Ġ o", "in g"]
VOCABULARY = 256 + len(MERGES) + 3

COMMON = dict(hidden_act="silu", vocab_size=VOCABULARY, max_position_embeddings=256, bos_token_id=256 + len(MERGES),
              eos_token_id=256 + len(MERGES), attention_dropout=0.0, initializer_range=0.02, torch_dtype="float32",
              use_cache=True)
LLAMA = dict(COMMON, architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False,
             rms_norm_eps=1e-5)
# Each model differs from the others in what an engine could get wrong: how keys are shared, whether the
# head is the embedding, the head width, the biases, the kind of rope, and how config.json spells it.
MODELS = {
    # 3 query heads to a key head; the head is the embedding; the common spelling of rope_theta.
    "llama-tied": dict(LLAMA, hidden_size=48, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6,
                       num_key_value_heads=2, tie_word_embeddings=True, rope_theta=100000.0, rope_scaling=None),
    # A head of its own; one key head per query head; rope_parameters, as transformers 5 writes it.
    "llama-untied": dict(LLAMA, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=4, tie_word_embeddings=False,
                         rope_parameters=dict(rope_theta=10000.0, rope_type="default")),
    # Llama 3's rope scaling with all three bands in use (wave lengths below 8, between 8 and 32, above 32),
    # and a head width that is not hidden / heads.
    "llama-scaled": dict(LLAMA, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, rope_theta=10000.0,
                         rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                           original_max_position_embeddings=32)),
    # Biases on q, k, v and o, of which llama's GGUF files interleave two.
    "llama-bias": dict(LLAMA, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, tie_word_embeddings=True, rope_theta=10000.0, rope_scaling=None,
                       attention_bias=True),
    # Biases on gate, up and down, none in attention.
    "llama-mlp-bias": dict(LLAMA, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                           num_key_value_heads=2, tie_word_embeddings=True, rope_theta=10000.0, rope_scaling=None,
                           mlp_bias=True),
    # Biases on q, k and v; one key head; a chat template.
    "qwen2": dict(COMMON, architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=48, intermediate_size=128,
                  num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True,
                  rms_norm_eps=1e-6, rope_theta=1000000.0, rope_scaling=None, use_sliding_window=False,
                  sliding_window=None, max_window_layers=2),
}
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
            "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

# (prompt, completion). Lengths differ, one is long, some are not ASCII.
ROWS = [
    ("Define apple.", " noun. The round fruit of a tree."),
    ("What is the sea?", " Salt water, and a great deal of it."),
    ("Say nothing.", " ."),
    ("Count to ten.", " one two three four five six seven eight nine ten"),
    ("Who is the hero of the story?", " The one who tells it."),
    ("Translate: Straße", " street (die Straße, plural Straßen)"),
    ("Define patience.", " noun. A minor form of despair, disguised as a virtue, and therefore in great demand."),
    ("ok", " yes"),
    ("Write a → b.", " a → b → c, then ∞"),
    ("Name three colours.", " red, green, and the colour of the rest"),
    ("Why?", " Because there is no other reason at hand, and on the whole none is needed here."),
    ("Define year, in one line.", " noun. A period of three hundred and sixty-five disappointments."),
]
LENGTHS = [1, 7, 33, 80]  # of the sequences whose logits are stored; the last has no base_logits


def byte_alphabet():
    """GPT-2's map from a byte to a printable character."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(other)}}


def make_tokenizer(directory, chat):
    """Single bytes in the order of their characters, the merges, three special tokens."""
    pieces = sorted(byte_alphabet().values()) + [m.replace(" ", "") for m in MERGES]
    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[tuple(m.split()) for m in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, TURN_START, TURN_END])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=END, eos_token=TURN_END if chat else END,
                  pad_token=END, add_bos_token=False, model_max_length=256, clean_up_tokenization_spaces=False)
    write_json(directory / "tokenizer_config.json", config)
    if chat:
        (directory / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer


def make_rows(directory, tokenizer, chat):
    """rows.jsonl, and for each row its ids and which of them are trained."""
    examples, lines = [], []
    for prompt, completion in ROWS:
        if chat:
            messages = [dict(role="user", content=prompt), dict(role="assistant", content=completion.strip())]
            lines.append(dict(messages=messages))
            head = f"{TURN_START}user\n{prompt}{TURN_END}\n{TURN_START}assistant\n"
            text = head + f"{completion.strip()}{TURN_END}\n"
        else:
            lines.append(dict(prompt=prompt, completion=completion))
            head, text = prompt, prompt + completion + END
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        at, trained = 0, []
        for i in ids:
            piece = tokenizer.id_to_token(i)
            trained.append(int(at >= len(head.encode())))
            at += len(piece)  # a character of a byte-level piece is one byte; special tokens are ASCII
        assert at == len(text.encode())
        examples.append(dict(ids=ids, trained=trained))
    (directory / "rows.jsonl").write_text("".join(json.dumps(l, ensure_ascii=False) + "\n" for l in lines))
    return examples


def make_model(directory, name, config, rng):
    write_json(directory / "config.json", config)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), attn_implementation="eager")
    model = model.to(torch.float32).eval()
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            if key.endswith("norm.weight"):
                value = 1 + 0.2 * rng.standard_normal(p.shape)
            elif key.endswith(".bias"):
                value = 0.5 * rng.standard_normal(p.shape)
            elif "embed" in key or "lm_head" in key:
                value = 0.3 * rng.standard_normal(p.shape)
            else:
                value = rng.standard_normal(p.shape) / np.sqrt(p.shape[1])
            p.copy_(torch.from_numpy(value.astype(np.float32)))
    tensors = {k: v.detach().contiguous() for k, v in model.named_parameters()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return model


def make_adapter(directory, model, name, rng):
    """An adapter that is not the identity: B is random too."""
    write_json(directory / "adapter_config.json", dict(
        base_model_name_or_path=name, bias="none", fan_in_fan_out=False, inference_mode=True, init_lora_weights=True,
        lora_alpha=ALPHA, lora_dropout=0.0, modules_to_save=None, peft_type="LORA", r=RANK, target_modules=TARGETS,
        task_type="CAUSAL_LM", use_dora=False, use_rslora=False))
    tensors = {}
    for key, module in sorted(model.named_modules()):
        if key.rsplit(".", 1)[-1] in TARGETS:
            out, inner = module.weight.shape
            a = rng.standard_normal((RANK, inner)) / np.sqrt(inner)
            b = rng.standard_normal((out, RANK)) * 0.1
            tensors[f"base_model.model.{key}.lora_A.weight"] = torch.from_numpy(a.astype(np.float32))
            tensors[f"base_model.model.{key}.lora_B.weight"] = torch.from_numpy(b.astype(np.float32))
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})


def log_probabilities(model, example):
    """log p of each trained token. [targets]. The first token has no predecessor and is never one."""
    ids = torch.tensor([example["ids"]])
    logits = model(input_ids=ids).logits[0, :-1]
    chosen = [i for i in range(1, len(example["ids"])) if example["trained"][i]]
    logp = torch.log_softmax(logits.float(), dim=-1)
    return logp[[i - 1 for i in chosen], ids[0, chosen]]


def step_loss(model, examples):
    logp = torch.cat([log_probabilities(model, e) for e in examples])
    return -logp.sum() / logp.numel(), logp.numel()


def trained_parameters(model):
    return {k.replace(".modules_to_save.default", "").replace(".default", ""): p for k, p in model.named_parameters() if p.requires_grad}


def load_base(directory, rounded=None):
    """`rounded`: what becomes of the weight of each linear of a layer."""
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for module in model.model.layers.modules() if rounded else ():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(rounded(module.weight))
    return model


def load_adapter(directory, adapter, rounded=None):
    return PeftModel.from_pretrained(load_base(directory, rounded), adapter, is_trainable=True).train()  # nothing drops out


def compute(base, directory, name, examples, rng, rounded=None, **more):
    """What the model in `base` with the adapter in `directory` computes, into `directory`."""
    tensors, facts = {}, dict(model=name, **more)
    sequences = [rng.integers(0, VOCABULARY, n).tolist() for n in LENGTHS]
    facts["sequences"], facts["examples"] = sequences, examples
    model = load_adapter(base, directory / "adapter", rounded)
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            x = torch.tensor([ids])
            tensors[f"logits.{i}"] = model(input_ids=x).logits[0].float().clone()
            if i + 1 < len(sequences):
                with model.disable_adapter():
                    tensors[f"base_logits.{i}"] = model(input_ids=x).logits[0].float().clone()
        for i, e in enumerate(examples):
            tensors[f"logp.{i}"] = log_probabilities(model, e).clone()
    loss, count = step_loss(model, examples)
    loss.backward()
    facts["loss"], facts["supervised_tokens"] = loss.item(), count
    with torch.no_grad(), model.disable_adapter():
        facts["base_loss"] = step_loss(model, examples)[0].item()
    for key, p in trained_parameters(model).items():
        tensors[f"gradient.{key}"] = p.grad.clone()
    facts["gradient_norm"] = float(torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in trained_parameters(model).values()])))

    model = load_adapter(base, directory / "adapter", rounded)
    parameters = trained_parameters(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, weight_decay=0.0)
    steps = []
    for s in range(STEPS):
        rows = [(s * BATCH + j) % len(examples) for j in range(BATCH)]
        optimizer.zero_grad(set_to_none=True)
        loss, count = step_loss(model, [examples[r] for r in rows])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()
        steps.append(dict(rows=rows, loss=loss.item(), gradient_norm=norm.item(), supervised_tokens=count,
                          tokens=sum(len(examples[r]["ids"]) for r in rows)))
    facts["run"] = dict(optimizer=dict(name="adamw", learning_rate=LEARNING_RATE, beta1=0.9, beta2=0.999, epsilon=1e-8,
                                       weight_decay=0.0, max_gradient_norm=CLIP), batch_size=BATCH, steps=steps)
    with torch.no_grad():
        facts["run"]["loss_after"] = step_loss(model, examples)[0].item()
    for key, p in parameters.items():
        tensors[f"after.{key}"] = p.detach().clone()
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "golden.safetensors")
    write_json(directory / "golden.json", facts, indent=None)


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "data"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    numbers = {name: 1000 + n for n, name in enumerate(("llama-tied", "llama-untied", "llama-scaled", "qwen2", "llama-bias", "llama-mlp-bias"))}
    for name, config in MODELS.items():
        rng = np.random.default_rng(numbers[name])
        directory = out / name
        (directory / "adapter").mkdir(parents=True, exist_ok=True)
        tokenizer = make_tokenizer(directory, name == "qwen2")
        examples = make_rows(directory, tokenizer, name == "qwen2")
        model = make_model(directory, name, config, rng)
        make_adapter(directory / "adapter", model, name, rng)
        compute(directory, directory, name, examples, rng)
        facts = json.loads((directory / "golden.json").read_text())
        print(name, "loss", facts["loss"], "norm", facts["gradient_norm"],
              "run", [round(s["loss"], 4) for s in facts["run"]["steps"]])


if __name__ == "__main__":
    main()
