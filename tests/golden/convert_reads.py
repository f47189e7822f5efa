#!/usr/bin/env python3
"""What `hone convert` writes, as others read it: llama.cpp, the gguf package, transformers, bitsandbytes and MLX.

    convert_reads.py HONE        needs torch, transformers, gguf, llama-cpp-python and mlx (any of the last two may be
                                 absent: its cases are then named as skipped)

The tiny models of data/ go to GGUF and back; logits must be those that transformers computed from the model as it
was, ids those of its tokenizer. Shapes of random weights are written as both, from one seed."""
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = pathlib.Path(__file__).resolve().parent / "data"
MODELS = ("llama-tied", "llama-untied", "llama-scaled", "llama-bias", "llama-mlp-bias", "qwen2")
# Rows of 256 numbers, so that every block type has whole blocks.
SHAPE = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=256, intermediate_size=512, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, vocab_size=320, max_position_embeddings=256, rms_norm_eps=1e-5,
             initializer_range=0.05, rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
TYPES = ("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4")
failed = 0


def check(what, worst, most):
    global failed
    ok = worst <= most
    failed += not ok
    print("ok  " if ok else "FAIL", what, f"{worst:.2g}, at most {most:.2g}")


def convert(*arguments):
    done = subprocess.run([hone, "convert", *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stdout[-600:]}"
    return json.loads(done.stdout)


def transformers_logits(directory, sequences):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in sequences]


def llama_logits(path, sequences):
    """None where llama.cpp is not installed. The cache is f32, as everything else."""
    if not importlib.util.find_spec("llama_cpp"):
        return None
    import llama_cpp
    defaults = llama_cpp.llama_cpp.llama_model_default_params()
    defaults.use_extra_bufts = False  # repacked weights use AMX, which some containers forbid: llama.cpp crashes there
    llama_cpp.llama_cpp.llama_model_default_params = lambda: defaults
    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    out = []
    for ids in sequences:
        model.reset()
        model.eval(ids)
        out.append(np.array(model.scores[: len(ids)], dtype=np.float32))
    return out


def llama_ids(path, text):
    import llama_cpp
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return model.tokenize(text.encode(), add_bos=False, special=True)


def worst(got, want):
    return max(float(np.abs(a - b).max()) for a, b in zip(got, want))


def off(got, want):
    """The root of the squared difference over that of the squares."""
    return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(got, want)) / sum((b**2).sum() for b in want)))


def tiny(name, work):
    golden = json.loads((DATA / name / "golden.json").read_text())
    stored = load_file(DATA / name / "golden.safetensors")
    sequences = [s for i, s in enumerate(golden["sequences"]) if f"base_logits.{i}" in stored]
    want = [stored[f"base_logits.{i}"] for i in range(len(sequences))]
    gguf, back, mlx = work / f"{name}.gguf", work / f"{name}-back", work / f"{name}-mlx"
    convert("--model", DATA / name, "--type", "f32", "--output", gguf)
    convert("--model", gguf, "--to", "safetensors", "--output", back)
    convert("--model", gguf, "--to", "mlx", "--type", "f32", "--output", mlx)
    check(f"{name}: safetensors of the GGUF, logits in transformers", worst(transformers_logits(back, sequences), want), 2e-5)
    check(f"{name}: mlx of the GGUF, logits in transformers", worst(transformers_logits(mlx, sequences), want), 2e-5)
    got = llama_logits(gguf, sequences)
    if got:
        check(f"{name}: GGUF, logits in llama.cpp", worst(got, want), 1e-3)
    tokenizer, differ = AutoTokenizer.from_pretrained(back), 0
    for example in golden["examples"]:
        text = AutoTokenizer.from_pretrained(DATA / name).decode(example["ids"])
        differ += tokenizer(text, add_special_tokens=False)["input_ids"] != example["ids"]
        differ += got is not None and llama_ids(gguf, text) != example["ids"]
    check(f"{name}: texts with other ids", differ, 0)
    source = load_file(DATA / name / "model.safetensors")
    for directory in (back, mlx):
        same = load_file(directory / "model.safetensors")
        check(f"{name}: {directory.name}, numbers", max(float(np.abs(same[k] - source[k]).max()) for k in source) + (set(same) != set(source)), 0)
    if importlib.util.find_spec("mlx"):
        import mlx.core as mx
        arrays = mx.load(str(mlx / "model.safetensors"))
        check(f"{name}: mlx reads other numbers", max(float(np.abs(np.array(v) - source[k]).max()) for k, v in arrays.items()), 0)


def types(work):
    """The gguf package reads of each type what hone does (its own bf16 of it), and llama.cpp computes with it."""
    config = work / "config.json"
    config.write_text(json.dumps(SHAPE))
    sequences = [list(range(40, 60)), [256, 65, 66, 67]]
    exact = None
    for type_name in TYPES:
        path, back = work / f"{type_name}.gguf", work / f"{type_name}-back"
        report = convert("--config", config, "--random-weights", "--seed", 3, "--type", type_name, "--output", path)
        convert("--model", path, "--to", "safetensors", "--type", "f32", "--output", back)
        decoded, read = load_file(back / "model.safetensors"), {t.name: t for t in GGUFReader(path).tensors}
        pair = read["blk.1.ffn_down.weight"], decoded["model.layers.1.mlp.down_proj.weight"]
        check(f"{type_name}: the gguf package reads other numbers", float(np.abs(dequantize(pair[0].data, pair[0].tensor_type) - pair[1]).max()), 0)
        want = transformers_logits(back, sequences)
        exact = exact or want
        got = llama_logits(path, sequences)
        if got:
            # Beside quantised weights llama.cpp rounds blocks of up to 256 activations to 8 bits: the largest of 256 normal numbers is
            # 2.8 deviations, so one is off by 2.8 / 127 / √12 = 0.0064 of a deviation, and 9 products lie in a row: 0.019. What a gated
            # unit yields has larger extremes: twice that.
            check(f"{type_name}: logits in llama.cpp against transformers", off(got, want), 1e-5 if type_name == "f32" else 0.04)
        print(f"      {type_name}: {report['bits_per_weight']:.2f} bits, relative error {report['relative_error']:.4f}, logits off by {worst(want, exact):.3f}")


def apart(work):
    """Types whose scales lie apart: MLX's own reading of its types, and bitsandbytes' layers out of transformers."""
    config, name = work / "config.json", "model.layers.1.mlp.down_proj"
    drawn = load_file(work / "f32-back/model.safetensors")[f"{name}.weight"]
    norm = float(np.linalg.norm(drawn))
    for bits, most in ((2, 0.5), (3, 0.2), (4, 0.1), (5, 0.05), (6, 0.03), (8, 0.01)):
        if not importlib.util.find_spec("mlx"):
            break
        import mlx.core as mx
        convert("--config", config, "--random-weights", "--seed", 3, "--to", "mlx", "--type", f"mlx-{bits}bit", "--output", work / f"mlx-{bits}bit")
        arrays = mx.load(str(work / f"mlx-{bits}bit/model.safetensors"))
        read = mx.dequantize(arrays[f"{name}.weight"], arrays[f"{name}.scales"], arrays[f"{name}.biases"], group_size=64, bits=bits)
        check(f"mlx-{bits}bit: error of what MLX reads", float(np.linalg.norm(np.array(read.astype(mx.float32)) - drawn)) / norm, most)
    if importlib.util.find_spec("mlx"):
        convert("--config", config, "--random-weights", "--seed", 3, "--to", "mlx", "--type", "mxfp4", "--output", work / "mxfp4")
        arrays, settings = mx.load(str(work / "mxfp4/model.safetensors")), json.loads((work / "mxfp4/config.json").read_text())["quantization"]
        read = mx.dequantize(arrays[f"{name}.weight"], arrays[f"{name}.scales"], **settings)
        check("mxfp4: error of what MLX reads", float(np.linalg.norm(np.array(read.astype(mx.float32)) - drawn)) / norm, 0.13)
    for kind, most in (("nf4", 0.1), ("int8", 0.01)):
        if not importlib.util.find_spec("bitsandbytes"):
            break
        convert("--config", config, "--random-weights", "--seed", 3, "--to", "safetensors", "--type", kind, "--output", work / kind)
        layer = AutoModelForCausalLM.from_pretrained(work / kind, device_map="cpu").model.layers[1].mlp.down_proj
        with torch.no_grad():
            read = layer(torch.eye(drawn.shape[1], dtype=torch.bfloat16)).float().T.numpy()
        check(f"{kind}: error of what bitsandbytes computes with ({type(layer).__name__})", float(np.linalg.norm(read - drawn)) / norm, most)


def random(work):
    config = work / "config.json"
    convert("--config", config, "--random-weights", "--seed", 3, "--to", "safetensors", "--type", "f32", "--output", work / "random")
    text = "".join(chr(c) for c in range(32, 127))
    ids = AutoTokenizer.from_pretrained(work / "random")(text)["input_ids"]
    check("random: bytes that are not one token each", abs(len(ids) - len(text)), 0)
    if importlib.util.find_spec("llama_cpp"):
        check("random: llama.cpp cuts otherwise", llama_ids(work / "f32.gguf", text) != ids, 0)
    one, two = load_file(work / "random/model.safetensors"), load_file(work / "f32-back/model.safetensors")
    check("random: GGUF and safetensors of one seed differ", max(float(np.abs(one[k] - two[k]).max()) for k in one), 0)
    weights = one["model.layers.0.mlp.up_proj.weight"]
    check("random: deviation beside initializer_range", abs(float(weights.std()) / SHAPE["initializer_range"] - 1), 0.02)
    check("random: mean", abs(float(weights.mean())), 4 * SHAPE["initializer_range"] / weights.size**0.5)
    check("random: norms", float(np.abs(one["model.norm.weight"] - 1).max()), 0)


hone = pathlib.Path(sys.argv[1]).resolve()
for module in ("llama_cpp", "mlx", "bitsandbytes"):
    if not importlib.util.find_spec(module):
        print("skip", module, "is not installed")
with tempfile.TemporaryDirectory() as directory:
    for model in MODELS:
        tiny(model, pathlib.Path(directory))
    types(pathlib.Path(directory))
    apart(pathlib.Path(directory))
    random(pathlib.Path(directory))
print(f"{failed} failed")
sys.exit(failed != 0)
