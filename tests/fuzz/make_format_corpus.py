#!/usr/bin/env python3
"""Writes the seeds of the GGUF, safetensors and PEFT fuzz targets beside this file, without any package."""
import json
import pathlib
import struct

here = pathlib.Path(__file__).parent / "corpus"
U8, U32, I32, F32, BOOL, TEXT, ARRAY, U64, F64 = 0, 4, 5, 6, 7, 8, 9, 10, 12


def text(value):
    return struct.pack("<Q", len(value)) + value


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(kind, count, values):
    return struct.pack("<IQ", kind, count) + values


def tensor(name, dims, kind, offset):
    return text(name) + struct.pack("<I", len(dims)) + struct.pack("<%dQ" % len(dims), *dims) + struct.pack("<IQ", kind, offset)


def gguf(version, keys, tensors, data, alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys + tensors)
    return head + bytes(-len(head) % alignment) + bytes(i % 251 for i in range(data))


keys = [
    key(b"general.architecture", TEXT, text(b"llama")),
    key(b"llama.block_count", U32, struct.pack("<I", 2)),
    key(b"llama.rope.freq_base", F32, struct.pack("<f", 1e4)),
    key(b"flag", BOOL, b"\1"),
    key(b"wide", U64, struct.pack("<Q", 1 << 40)),
    key(b"tokens", ARRAY, array(TEXT, 3, text(b"<s>") + text(b"") + text(b"a"))),
    key(b"scores", ARRAY, array(F32, 2, struct.pack("<2f", 1, 2))),
    key(b"types", ARRAY, array(I32, 2, struct.pack("<2i", 1, -1))),
    key(b"bytes", ARRAY, array(U8, 3, b"abc")),
    key(b"reals", ARRAY, array(F64, 1, struct.pack("<d", 0.5))),
]
tensors = [tensor(b"token_embd.weight", [32, 2], 8, 0), tensor(b"blk.0.attn_q.weight", [32, 1], 3, 96),
           tensor(b"output_norm.weight", [4], 0, 128), tensor(b"half", [3], 1, 160)]
seeds = {
    "whole": gguf(3, keys, tensors, 192),
    "version_2": gguf(2, keys[:2], tensors[:1], 96),
    "no_tensors": gguf(3, keys, [], 0),
    "alignment_64": gguf(3, [key(b"general.alignment", U32, struct.pack("<I", 64))], tensors[:1], 128, 64),
    "empty": b"",
    "header": gguf(3, [], [], 0),
}


def safetensors(header, data):
    head = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(head)) + head + bytes(data)


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


safe = {
    "two": safetensors({"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 1], 0, 8), "b": entry("BF16", [1], 8, 10)}, 10),
    "scalar": safetensors({"a": entry("I32", [], 0, 4)}, 4),
    "swapped": safetensors({"b": entry("F16", [1], 2, 4), "a": entry("F16", [1], 0, 2)}, 4),
    "none": safetensors({}, 0),
    "spaces": safetensors(b"{}      ", 0),
    "twice": safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', 4),
}

config = {"base_model_name_or_path": "org/model", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
          "init_lora_weights": True, "lora_alpha": 16, "lora_dropout": 0.05, "modules_to_save": None,
          "peft_type": "LORA", "r": 8, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": ["q_proj"],
          "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False}
peft = {
    "lora": json.dumps(config).encode(),
    "rslora": json.dumps({**config, "use_rslora": True}).encode(),
    "dora": json.dumps({**config, "use_dora": True}).encode(),
    "pissa": json.dumps({**config, "init_lora_weights": "pissa"}).encode(),
    "list": b"[]",
}

for folder, files in (("gguf", seeds), ("safetensors", safe), ("peft", peft)):
    (here / folder).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (here / folder / name).write_bytes(data)
