#!/usr/bin/env python3
"""Writes quantise.bin beside this file: what llama.cpp's quantisers make of some numbers (pip install
llama-cpp-python gguf numpy), so that the error of hone's can be compared with theirs.

Layout, little endian: elements u32 | source f32[elements], then once per type: name (8 bytes, NUL-padded) |
stored bytes u32 | stored."""
import ctypes
import pathlib
import struct

import gguf
import llama_cpp
import numpy as np

ggml = ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                     ctypes.c_int64, ctypes.c_void_p]

rng = np.random.default_rng(21)
source = np.concatenate([rng.normal(size=768) * 0.02, rng.laplace(size=768) * 0.05, rng.uniform(-1, 1, 512),
                         rng.normal(size=256) * 0.02 + 0.03,
                         rng.normal(size=256) * np.repeat([1e-3, 1, 0.1, 10], 64)]).astype(np.float32)
out = struct.pack("<I", source.size) + source.tobytes()
for name in "q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs mxfp4".split():
    kind = gguf.GGMLQuantizationType[name.upper()]
    elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    stored = np.zeros(source.size // elements * block_bytes, np.uint8)
    ggml.ggml_quantize_chunk(int(kind), source.ctypes.data, stored.ctypes.data, 0, 1, source.size, None)
    out += struct.pack("<8sI", name.encode(), stored.size) + stored.tobytes()
pathlib.Path(__file__).with_name("quantise.bin").write_bytes(out)
