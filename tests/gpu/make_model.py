#!/usr/bin/env python3
"""make_model.py SHAPE DIRECTORY [ROWS [LEAST]]: a model of a real shape with random weights, in Hugging Face's layout,
and ROWS rows (rows.jsonl), for measuring: what a step costs does not depend on what the weights are. A row has 2,048
tokens, or with LEAST some number of them from that to 20 times as many.
The tokenizer has one token for each byte, and fillers up to the vocabulary. Needs numpy."""
import concurrent.futures
import json
import math
import os
import pathlib
import random
import struct
import sys

SHAPES = {
    "llama3.2-1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                        num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "smollm2-135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, head_dim=64, vocab_size=49152, tie_word_embeddings=True),
    "llama3.1-8b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                        num_key_value_heads=8, head_dim=128, vocab_size=128256, tie_word_embeddings=False),
    "smollm2-135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, head_dim=64, vocab_size=49152, tie_word_embeddings=True),
    "tiny": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=64, vocab_size=1024, tie_word_embeddings=True),
}

SPECIAL = ["<|finetune_right_pad_id|>", "<|endoftext|>"]  # padding is not the end of a text: some programs insist


def byte_letters():
    """The letters that byte-level tokenizers write bytes with (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 0
    for byte in range(256):
        letters[byte] = chr(byte if byte in plain else 256 + extra)
        extra += byte not in plain
    return letters


def tokenizer(vocabulary):
    words = {letter: byte for byte, letter in byte_letters().items()}
    for i in range(256, vocabulary - len(SPECIAL)):
        words[f"<filler {i}>"] = i
    special = [dict(id=vocabulary - len(SPECIAL) + i, content=content, single_word=False, lstrip=False, rstrip=False,
                    normalized=False, special=True) for i, content in enumerate(SPECIAL)]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=None, pre_tokenizer=level,
                post_processor=None, decoder=level,
                model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                           end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False,
                           vocab=words, merges=[]))


def tensors(c):
    d, f, kv = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * c["head_dim"]
    q = c["num_attention_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", (c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", (q, d)), ("self_attn.k_proj", (kv, d)), ("self_attn.v_proj", (kv, d)),
                            ("self_attn.o_proj", (d, q)), ("mlp.gate_proj", (f, d)), ("mlp.up_proj", (f, d)),
                            ("mlp.down_proj", (d, f))):
            yield at + name + ".weight", shape
        yield at + "input_layernorm.weight", (d,)
        yield at + "post_attention_layernorm.weight", (d,)
    yield "model.norm.weight", (d,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], d)


def write_tensor(file, block, at, shape):
    """bf16: normal with deviation 0.02, norms 1. Large ones repeat a block of random numbers."""
    if len(shape) == 1:
        os.pwrite(file, b"\x80\x3f" * shape[0], at)
        return
    size, block = 2 * shape[0] * shape[1], memoryview(block).cast("B")
    for begin in range(0, size, len(block)):
        os.pwrite(file, block[: min(len(block), size - begin)], at + begin)


def write_weights(path, c):
    import numpy  # not at the head: the shapes are read where it is missing
    header, at = {}, 0
    for name, shape in tensors(c):
        size = 2 * math.prod(shape)
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = numpy.random.default_rng(0).standard_normal(1 << 22, numpy.float32) * 0.02
    block = (block.view(numpy.uint32) >> 16).astype(numpy.uint16)
    with open(path, "wb", buffering=0) as file, concurrent.futures.ThreadPoolExecutor() as threads:
        file.write(struct.pack("<Q", len(text)) + text)
        for done in [threads.submit(write_tensor, file.fileno(), block, 8 + len(text) + entry["data_offsets"][0], entry["shape"])
                     for entry in header.values()]:
            done.result()


def main():
    shape, out = SHAPES[sys.argv[1]], pathlib.Path(sys.argv[2])
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 64
    least = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    out.mkdir(parents=True, exist_ok=True)
    end = shape["vocab_size"] - 1
    config = dict(shape, model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu",
                  max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=None,
                  attention_bias=False, mlp_bias=False, bos_token_id=end, eos_token_id=end, torch_dtype="bfloat16")
    (out / "config.json").write_text(json.dumps(config))
    (out / "tokenizer.json").write_text(json.dumps(tokenizer(shape["vocab_size"])))
    (out / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast",
                                                               bos_token=SPECIAL[1], eos_token=SPECIAL[1], pad_token=SPECIAL[0])))
    write_weights(out / "model.safetensors", shape)
    random.seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz "
    with open(out / "rows.jsonl", "w") as file:
        for _ in range(rows):
            length = random.randint(least, 20 * least) if least else 2048
            file.write(json.dumps(dict(text="".join(random.choices(letters, k=length - 1)))) + "\n")


if __name__ == "__main__":
    main()
