#!/usr/bin/env python3
"""Writes data/llama-mxfp4/: a tiny model as MLX quantises it (mxfp4, one linear affine, one left as it is), with an adapter and what PEFT
computes on the numbers that MLX decodes. Needs what make_models.py needs, and mlx 0.32.4 with mlx-cpu.

    python3 tests/golden/make_mlx.py [OTHER]"""
import os
import pathlib
import sys
import tempfile

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import make_models

NAME = "llama-mxfp4"
# Rows of whole blocks of 32.
CONFIG = dict(make_models.LLAMA, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              tie_word_embeddings=False, rope_theta=10000.0, rope_scaling=None)
MICRO, AFFINE = dict(group_size=32, bits=4, mode="mxfp4"), dict(group_size=32, bits=4)  # without a mode it is affine, in MXFP4's company too
OTHERS = {"model.layers.1.mlp.down_proj": AFFINE, "model.layers.0.self_attn.v_proj": None}


def to_torch(array):
    return torch.from_numpy(np.array(array))


def quantise(tensors):
    """The tensors as MLX lays them out, and as it decodes them."""
    stored, decoded = {}, {}
    for name, value in tensors.items():
        module = name.removesuffix(".weight")
        settings = OTHERS.get(module, MICRO) if value.ndim == 2 else None
        if not settings:
            stored[name] = decoded[name] = value
            continue
        parts = mx.quantize(mx.array(value.numpy()), **settings)
        stored |= {f"{module}.{suffix}": to_torch(part) for suffix, part in zip(("weight", "scales", "biases"), parts)}
        decoded[name] = to_torch(mx.dequantize(*parts, **settings, dtype=mx.float32))
    return stored, decoded


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "data") / NAME
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(3000)
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    tokenizer = make_models.make_tokenizer(out, False)
    examples = make_models.make_rows(out, tokenizer, False)
    with tempfile.TemporaryDirectory() as directory:
        base = pathlib.Path(directory)
        model = make_models.make_model(base, NAME, CONFIG, rng)
        stored, decoded = quantise(load_file(base / "model.safetensors"))
        save_file(decoded, base / "model.safetensors", metadata={"format": "pt"})
        make_models.make_adapter(out / "adapter", model, NAME, rng)
        make_models.compute(base, out, NAME, examples, rng)
    save_file({k: v.contiguous() for k, v in stored.items()}, out / "model.safetensors", metadata={"format": "mlx"})
    groups = {**MICRO, **{module: settings or False for module, settings in OTHERS.items()}}
    make_models.write_json(out / "config.json", {**CONFIG, "quantization": groups, "quantization_config": groups})


main()
