#!/usr/bin/env python3
"""Writes stored.safetensors: matrices as bitsandbytes (its CPU build) and MLX (mlx-cpu) quantise them, and what the two make of them
again in f32. Read by tests/unit/test_tensor_stored.c.

    python3 tests/golden/format/make_stored.py [OUTPUT]

Of each case: NAME.source f32 [rows, columns], NAME.codes, the parts by their names in tensor/stored.h, NAME.decoded. Needs
bitsandbytes 0.50.2 and mlx 0.32.4 with mlx-cpu."""
import pathlib
import sys

import mlx.core as mx
import numpy as np
import torch
from bitsandbytes import functional
from safetensors.torch import save_file

rng = np.random.default_rng(4)


def matrix(rows, columns):
    """Rows of several sizes, one of zeros, and a far outlier."""
    values = rng.standard_normal((rows, columns)).astype(np.float32) * (0.02 * 4.0 ** (np.arange(rows)[:, None] % 3))
    values[1] = 0
    values[0, 3] = 1.5
    return values.astype(np.float32)


def nf4(name, rows, columns, nested=True):
    source = torch.from_numpy(matrix(rows, columns))
    codes, state = functional.quantize_4bit(source, compress_statistics=nested, quant_type="nf4")
    # Flat, as the blocks are: the CPU build takes a matrix for rows of blocks and reads other scales where 64 does not divide a row.
    state.shape = torch.Size([rows * columns])
    decoded = functional.dequantize_4bit(codes, state).reshape(rows, columns)
    out = {"source": source, "codes": codes.reshape(-1), "scales": state.absmax, "decoded": decoded}
    if nested:
        out |= {"levels": state.state2.code, "factors": state.state2.absmax, "offsets": state.offset.reshape(1)}
    return {f"{name}.{k}": v.contiguous().clone() for k, v in out.items()}


def int8(name, rows, columns):
    source = torch.from_numpy(matrix(rows, columns))
    source[1, 0] = 1e-3  # bitsandbytes divides by zero in a row of zeros
    codes, scales, _ = functional.int8_vectorwise_quant(source.half())
    decoded = functional.int8_vectorwise_dequant(codes, scales)
    return {f"{name}.source": source, f"{name}.codes": codes, f"{name}.scales": scales, f"{name}.decoded": decoded}


def to_torch(array):
    if array.dtype in (mx.uint32, mx.uint8):
        return torch.from_numpy(np.array(array).view(np.int32 if array.dtype == mx.uint32 else np.uint8).copy())
    return torch.from_numpy(np.array(array.astype(mx.float32))).to({mx.bfloat16: torch.bfloat16, mx.float16: torch.float16}.get(array.dtype, torch.float32))


def affine(name, rows, columns, bits, group, dtype=mx.float32):
    source = mx.array(matrix(rows, columns)).astype(dtype)
    codes, scales, offsets = mx.quantize(source, group_size=group, bits=bits)
    decoded = mx.dequantize(codes, scales.astype(mx.float32), offsets.astype(mx.float32), group_size=group, bits=bits)
    out = {"source": source.astype(mx.float32), "codes": codes, "scales": scales, "offsets": offsets, "decoded": decoded}
    return {f"{name}.{k}": to_torch(v) for k, v in out.items()}


def micro(name, rows, columns, dtype=mx.float32):
    """A row of numbers in the middle between two levels, and rows around the numbers where the next power of two is taken, of every size."""
    values = matrix(rows, columns)
    values[2, :16] = [6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -0.75, -1.25, -1.75, -2.5, -3.5, -5, -0.1]
    edges = (6 * 2.0 ** np.linspace(-120, 120, 4 * columns // 32).round()).astype(np.float32)
    values[4:8] *= np.float32(1e-38)
    values[4:8, ::32] = (edges.view(np.int32) + np.arange(len(edges), dtype=np.int32) % 3 - 1).view(np.float32).reshape(4, -1)
    source = mx.array(values).astype(dtype)
    codes, scales = mx.quantize(source, group_size=32, bits=4, mode="mxfp4")
    decoded = mx.dequantize(codes, scales, group_size=32, bits=4, mode="mxfp4", dtype=mx.float32)
    out = {"source": source.astype(mx.float32), "codes": codes, "scales": scales, "decoded": decoded}
    return {f"{name}.{k}": to_torch(v) for k, v in out.items()}


tensors = nf4("nf4", 40, 96) | nf4("nf4 outer", 68, 248) | nf4("nf4 short", 5, 50) | nf4("nf4 plain", 3, 128, nested=False) | int8("int8", 5, 50)
for bits in (2, 3, 4, 5, 6, 8):
    tensors |= affine(f"mlx-{bits}bit", 3, 128, bits, 64)
tensors |= affine("mlx-3bit-g32", 3, 96, 3, 32) | affine("mlx-4bit-g128", 3, 256, 4, 128)
tensors |= affine("mlx-4bit bf16", 3, 128, 4, 64, mx.bfloat16) | affine("mlx-4bit f16", 3, 128, 4, 64, mx.float16)
tensors |= micro("mlx-mxfp4", 9, 192) | micro("mlx-mxfp4 bf16", 9, 96, mx.bfloat16)
out = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "stored.safetensors"
save_file(tensors, out)
for name, value in tensors.items():
    if name.endswith(".decoded"):
        print(name, tuple(value.shape), "largest error", (value - tensors[name.replace("decoded", "source")]).abs().max().item())
