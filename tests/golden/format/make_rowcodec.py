#!/usr/bin/env python3
"""Writes rowcodec.bin beside this file: what the `gguf` package encodes and decodes (pip install gguf numpy).

Layout, little endian, once per case: name (8 bytes, NUL-padded) | elements u32 | stored bytes u32 |
source f32[elements] | stored | decoded f32[elements]. `stored` is the package's encoding of `source`; for
names that end in "*" it is arbitrary bytes instead, `source` is zeros, and only decoding is compared."""
import pathlib
import struct

import gguf
import numpy as np

rng = np.random.default_rng(20)
T = gguf.GGMLQuantizationType
types = {"f32": T.F32, "f16": T.F16, "bf16": T.BF16, "q4_0": T.Q4_0, "q4_1": T.Q4_1, "q5_0": T.Q5_0,
         "q5_1": T.Q5_1, "q8_0": T.Q8_0}

blocks = [rng.normal(size=32), rng.normal(size=32) * 1e-3, rng.normal(size=32) * 1e4, np.zeros(32), np.ones(32),
          -np.ones(32), np.linspace(-1, 1, 32), np.linspace(0, 31, 32), np.linspace(-16, 15, 32) * 0.5,
          np.arange(32) % 2 - 0.5, np.full(32, 1e-7), rng.uniform(-6e-8, 6e-8, 32),
          np.r_[127, np.arange(31) - 15.5]]  # halves: q8_0 rounds them away from zero
source = np.concatenate(blocks).astype(np.float32)

out = b""
for name, kind in types.items():
    stored = np.ascontiguousarray(gguf.quantize(source.reshape(1, -1), kind)).view(np.uint8).reshape(-1)
    decoded = gguf.dequantize(stored.reshape(1, -1), kind).astype(np.float32).reshape(-1)
    out += struct.pack("<8sII", name.encode(), source.size, stored.size)
    out += source.tobytes() + stored.tobytes() + decoded.tobytes()
    if name[0] != "q":
        continue
    size, block_bytes = 8 * 32, gguf.GGML_QUANT_SIZES[kind][1]
    stored = rng.integers(0, 256, (8, block_bytes), dtype=np.uint8)
    for at in (1, 3) if name.endswith("_1") else (1,):  # exponents of d and m below infinity
        stored[:, at] &= 0xBF
    stored = stored.reshape(-1)
    decoded = gguf.dequantize(stored.reshape(1, -1), kind).astype(np.float32).reshape(-1)
    out += struct.pack("<8sII", (name + "*").encode(), size, stored.size)
    out += np.zeros(size, np.float32).tobytes() + stored.tobytes() + decoded.tobytes()

# Types that the package only decodes, or encodes with less care than hone: arbitrary bytes, f16 fields below infinity.
halves = {"q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq4_nl": (0,), "iq4_xs": (0,),
          "mxfp4": ()}
for name, fields in halves.items():
    kind = T[name.upper()]
    elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    count = 2 if elements == 256 else 8
    stored = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for at in fields:
        stored[:, at + 1] &= 0xBF
    if name == "mxfp4":
        stored[:, 0] = 0, 1, 2, 3, 100, 127, 200, 250  # subnormal scales too
    decoded = gguf.dequantize(stored, kind).astype(np.float32).reshape(-1)
    out += struct.pack("<8sII", (name + "*").encode(), decoded.size, stored.size)
    out += np.zeros(decoded.size, np.float32).tobytes() + stored.tobytes() + decoded.tobytes()

pathlib.Path(__file__).with_name("rowcodec.bin").write_bytes(out)
