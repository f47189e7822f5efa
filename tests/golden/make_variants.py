#!/usr/bin/env python3
"""Writes variants/<name>/: adapters of other forms than plain LoRA, as PEFT itself writes them, on the tiny models of
data/, and what PEFT computes with them. Needs what make_models.py needs; what the files hold stands in README.md.

    python3 tests/golden/make_variants.py [OTHER [NAME…]]"""
import json
import os
import pathlib
import sys

import numpy as np
import torch
from bitsandbytes import functional
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import make_models

DATA = pathlib.Path(__file__).parent / "data"
# Each differs from the others in what a reader could get wrong: which pattern counts, how the scale follows from
# a rank of its own, layers that have no adapter.
VARIANTS = {
    "patterns": ("llama-untied", dict(r=4, lora_alpha=8, target_modules=make_models.TARGETS,
                                      rank_pattern={"q_proj": 2, r"layers\.1\.self_attn\.[kv]_proj": 6, "0.mlp.down_proj": 3},
                                      alpha_pattern={"layers.0.mlp.up_proj": 3, "v_proj": 16})),
    "rslora": ("qwen2", dict(r=4, lora_alpha=2, use_rslora=True, target_modules=["q_proj", "o_proj", "up_proj"],
                             rank_pattern={"o_proj": 9})),
    "some-layers": ("llama-tied", dict(r=3, lora_alpha=6, target_modules=["k_proj", "down_proj"], layers_to_transform=[1],
                                       init_lora_weights="gaussian")),
    "some-paths": ("llama-scaled", dict(r=2, lora_alpha=2, target_modules=r".*layers\.(0\.self_attn\.[qk]_proj|1\.mlp\.[gu].*)")),
    "nf4": ("llama-tied", dict(r=4, lora_alpha=8, target_modules=make_models.TARGETS)),
    "int8": ("qwen2", dict(r=4, lora_alpha=8, target_modules=make_models.TARGETS)),
    "dora": ("llama-untied", dict(r=4, lora_alpha=8, use_dora=True, target_modules=make_models.TARGETS)),
    # Outside the layers: the embedding's pair has names of its own, and PEFT writes the base's weights beside it.
    "outer": ("llama-untied", dict(r=4, lora_alpha=8, target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "outer-tied": ("llama-tied", dict(r=3, lora_alpha=6, use_rslora=True, target_modules=["embed_tokens", "lm_head", "down_proj"],
                                      rank_pattern={"lm_head": 5})),
    # Modules that are trained whole beside the adapter; of a tied model each is tied to nothing.
    "saved": ("llama-untied", dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head", "model.norm"])),
    "saved-embedding": ("llama-tied", dict(r=2, lora_alpha=4, target_modules=["v_proj", "up_proj"], modules_to_save=["embed_tokens"])),
    "saved-head": ("llama-tied", dict(r=2, lora_alpha=4, use_dora=True, target_modules=["v_proj", "up_proj"], modules_to_save=["lm_head", "input_layernorm"])),
    # Biases, which are not rescaled; a scale that is no whole number; modules of its own rank, and without adapter.
    "dora-patterns": ("qwen2", dict(r=4, lora_alpha=3, use_dora=True, use_rslora=True, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 7},
                                    target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"])),
}
DROPOUT, WITH_DROPOUT = 0.3, ("dora", "rslora")


def nf4(weight):
    """With scales as bitsandbytes quantises them but in its kernel for f32 on a CPU, which takes some that are not the nearest; in f64
    it goes another way. Flat, for the reason in format/make_stored.py."""
    codes, state = functional.quantize_4bit(weight.contiguous(), quant_type="nf4")
    offset, levels = state.absmax.mean(), functional.create_dynamic_map()
    scales, factors = torch.ops.bitsandbytes.quantize_blockwise((state.absmax - offset).double(), levels, 256)
    state.absmax = functional.dequantize_blockwise(scales, absmax=factors, code=levels, blocksize=256) + offset
    state.shape = torch.Size([weight.numel()])
    return functional.dequantize_4bit(codes, state).reshape(weight.shape)


def int8(weight):
    codes, scales, _ = functional.int8_vectorwise_quant(weight.half().contiguous())
    return functional.int8_vectorwise_dequant(codes, scales)


# The base's linears as bitsandbytes rounds them, in f32: what its layers compute, without their own rounding of inputs.
ROUNDED = {"nf4": nf4, "int8": int8}


def note_base(directory, base_type):
    """hone keeps the base type of an adapter in the metadata of its tensors."""
    path = directory / "adapter_model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "base_type": base_type})


def make_adapter(directory, base, settings, rng):
    model = get_peft_model(make_models.load_base(base), LoraConfig(lora_dropout=0.0, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            if "lora_embedding_A" in key:
                value = 0.3 * rng.standard_normal(p.shape)
            elif "lora_embedding_B" in key:
                value = 0.1 * rng.standard_normal(p.shape)
            elif "lora_A" in key:
                value = rng.standard_normal(p.shape) / np.sqrt(p.shape[1])
            elif "lora_B" in key:
                value = rng.standard_normal(p.shape) * 0.1
            elif "lora_magnitude" in key:
                value = p.numpy() * (1 + 0.1 * rng.standard_normal(p.shape))
            elif "modules_to_save" in key:
                value = p.numpy() + 0.05 * rng.standard_normal(p.shape)
            else:
                continue
            p.copy_(torch.from_numpy(value.astype(np.float32)))
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(directory, save_embedding_layers=False if base.name == "llama-tied" else "auto")
    (directory / "README.md").unlink()


def keep_small(directory):
    """Whole matrices among the gradients: without the longest sequence's logits, and without where the run ends."""
    path = directory / "golden.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "logits.3" and not k.startswith("after.")}, path)


def philox(counter, rounds=10):
    """Philox4x32-10 with key 0 (base/rng.h). counter: four arrays of one shape; so is what is returned."""
    c, key = [np.broadcast_to(np.asarray(x, np.uint64), np.broadcast_shapes(*map(np.shape, counter))) for x in counter], [0, 0]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


class Dropped(torch.nn.Module):
    """Dropout with the mask that hone draws: seed 0, epoch 0; `example` is set before each row."""
    example = 0

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        _, tokens, width = x.shape
        words = philox([np.arange((width + 3) // 4)[None, :], np.arange(tokens)[:, None], Dropped.example, self.module])
        words = np.stack(words, axis=-1).reshape(tokens, -1)[:, :width]
        kept = torch.from_numpy((words >= np.uint64(int(DROPOUT * 2**32))).astype(np.float32))
        return x * kept / (1 - DROPOUT)


def add_dropout(base, directory):
    """The loss and the gradients of all rows once more, with dropout before the adapters."""
    model = make_models.load_adapter(base, directory / "adapter")
    for key, module in model.named_modules():
        if hasattr(module, "lora_dropout"):
            layer = int(key.split("layers.")[1].split(".")[0])
            module.lora_dropout["default"] = Dropped(layer * 16 + make_models.TARGETS.index(key.rsplit(".", 1)[-1]))
    facts, tensors = json.loads((directory / "golden.json").read_text()), load_file(directory / "golden.safetensors")
    logp = []
    for i, example in enumerate(facts["examples"]):
        Dropped.example = i
        logp.append(make_models.log_probabilities(model, example))
    loss = -torch.cat(logp).sum() / facts["supervised_tokens"]
    loss.backward()
    facts["dropout"] = dict(probability=DROPOUT, loss=loss.item())
    tensors.update({f"dropped_gradient.{k}": p.grad.clone() for k, p in make_models.trained_parameters(model).items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "golden.safetensors")
    make_models.write_json(directory / "golden.json", facts, indent=None)


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "variants"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for number, (name, (base, settings)) in enumerate(VARIANTS.items()):
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        rng = np.random.default_rng(2000 + number)
        directory = out / name
        directory.mkdir(parents=True, exist_ok=True)
        examples = json.loads((DATA / base / "golden.json").read_text())["examples"]
        make_adapter(directory / "adapter", DATA / base, settings, rng)
        rounded = ROUNDED.get(name)
        make_models.compute(DATA / base, directory, base, examples, rng, rounded, **({"base_type": name} if rounded else {}))
        if rounded:
            note_base(directory / "adapter", name)
        if name.startswith(("saved", "outer")):
            keep_small(directory)
        if name.startswith(WITH_DROPOUT):
            add_dropout(DATA / base, directory)
        facts = json.loads((directory / "golden.json").read_text())
        print(name, "on", base, "loss", facts["loss"], "norm", facts["gradient_norm"])


if __name__ == "__main__":
    main()
