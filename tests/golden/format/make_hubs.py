#!/usr/bin/env python3
"""Writes hubs/<kind>/: config.json and model.safetensors of a few matrices as bitsandbytes and MLX store them in model directories, and
expected.safetensors, what the two decode them to. Read by tests/unit/test_format_hub_quantised.c.

    python3 tests/golden/format/make_hubs.py [OUTPUT]

Needs what make_stored.py needs."""
import json
import pathlib
import sys

import mlx.core as mx
import numpy as np
import torch
from bitsandbytes import functional
from safetensors.torch import save_file

rng = np.random.default_rng(5)
out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "hubs"


def matrix(rows, columns):
    return torch.from_numpy((rng.standard_normal((rows, columns)) * 0.05).astype(np.float32))


def nf4(name, source, nested):
    codes, state = functional.quantize_4bit(source, compress_statistics=nested, quant_type="nf4")
    stored = {f"{name}.weight": codes} | {f"{name}.weight.{k}": v for k, v in state.as_dict(packed=True).items()}
    state.shape = torch.Size([source.numel()])  # make_stored.py says why
    return stored, {f"{name}.weight": functional.dequantize_4bit(codes, state).reshape(source.shape)}


def int8(name, source):
    codes, scales, _ = functional.int8_vectorwise_quant(source.half())
    stored = {f"{name}.weight": codes, f"{name}.SCB": scales, f"{name}.weight_format": torch.tensor(0, dtype=torch.uint8)}
    return stored, {f"{name}.weight": functional.int8_vectorwise_dequant(codes, scales)}


def affine(name, source, bits, group, dtype):
    def tensor(array):
        if array.dtype == mx.uint32:
            return torch.from_numpy(np.array(array).view(np.uint32).copy())
        return torch.from_numpy(np.array(array.astype(mx.float32))).to({mx.bfloat16: torch.bfloat16, mx.float16: torch.float16}[dtype])

    codes, scales, offsets = mx.quantize(mx.array(source.numpy()).astype(dtype), group_size=group, bits=bits)
    decoded = mx.dequantize(codes, scales.astype(mx.float32), offsets.astype(mx.float32), group_size=group, bits=bits)
    stored = {f"{name}.weight": tensor(codes), f"{name}.scales": tensor(scales), f"{name}.biases": tensor(offsets)}
    return stored, {f"{name}.weight": torch.from_numpy(np.array(decoded))}


def micro(name, source):
    codes, scales = mx.quantize(mx.array(source.numpy()), group_size=32, bits=4, mode="mxfp4")
    decoded = mx.dequantize(codes, scales, group_size=32, bits=4, mode="mxfp4", dtype=mx.float32)
    stored = {f"{name}.weight": torch.from_numpy(np.array(codes)), f"{name}.scales": torch.from_numpy(np.array(scales))}
    return stored, {f"{name}.weight": torch.from_numpy(np.array(decoded))}


def plain(name, source):
    return {f"{name}.weight": source}, {f"{name}.weight": source}


def write(kind, config, parts):
    directory = out / kind
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for number, name in enumerate(("model", "expected")):
        save_file({k: v.contiguous().clone() for part in parts for k, v in part[number].items()}, directory / f"{name}.safetensors")


write("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
      [nf4("a", matrix(20, 96), True), nf4("b", matrix(3, 64), False), int8("c", matrix(5, 50)), plain("d", matrix(2, 6))])
groups = {"group_size": 64, "bits": 4, "mode": "affine", "b": {"group_size": 32, "bits": 6}, "c": False}
write("mlx", {"quantization": groups, "quantization_config": groups},
      [affine("a", matrix(4, 128), 4, 64, mx.bfloat16), affine("b", matrix(3, 96), 6, 32, mx.float16), plain("c", matrix(2, 6))])
micros = {"group_size": 32, "bits": 4, "mode": "mxfp4", "b": {"group_size": 64, "bits": 4}, "c": False}  # without a mode it is affine
write("mlx-mxfp4", {"quantization": micros, "quantization_config": micros},
      [micro("a", matrix(5, 96)), affine("b", matrix(4, 128), 4, 64, mx.bfloat16), plain("c", matrix(2, 6))])
