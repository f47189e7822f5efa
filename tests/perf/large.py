#!/usr/bin/env python3
"""QLoRA steps of 2,048 tokens on large random models: memory in all, time of a step, share of the product roofline.

    large.py HONE FOLDER [--shape 1b|7b] [--type q4_k|nf4] [--steps 2] [--keep]

For each shape and type: `hone convert --random-weights` into FOLDER (7b takes some 4 GB there), then `hone train --method qlora` on rows of 512 tokens,
while RssAnon, RssShmem and RssFile of the process are read every 0.2 s. One table row each, in Markdown; exits with 1 when a limit is passed.
The roofline is of hone's own products, measured just before the run at the shapes of the model."""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROW, EXAMPLES = 512, 4
SHAPES = {  # as the configurations of Llama-3.2-1B and Llama-2-7B; `limit`: bytes in all, `memory`: what hone is told
    "1b": dict(limit=2.0e9, hidden_size=2048, num_hidden_layers=16, intermediate_size=8192, vocab_size=128256, num_attention_heads=32,
               num_key_value_heads=8, head_dim=64, tie_word_embeddings=True, rope_theta=500000.0, rms_norm_eps=1e-5),
    "7b": dict(limit=8.0e9, hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, vocab_size=32000, num_attention_heads=32,
               num_key_value_heads=32, head_dim=128, tie_word_embeddings=False, rope_theta=10000.0, rms_norm_eps=1e-5),
}


def run(*arguments, **more):
    return subprocess.run([str(a) for a in arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **more).stdout


def products(shape):
    """n x k of a token's products in one layer, and how many layers have it; the head is passed once."""
    d, f, kv = shape["hidden_size"], shape["intermediate_size"], shape["num_key_value_heads"] * shape["head_dim"]
    layer = [(d, d), (d, d), (kv, d), (kv, d), (f, d), (f, d), (d, f)]
    return [(n, k, shape["num_hidden_layers"]) for n, k in layer] + [(shape["vocab_size"], d, 1)]


def roof(hone, shape, compute):
    """Flops per second of a step whose products each run at the rate that hone has at its shape."""
    work = products(shape)
    named = sorted({f"{ROW}x{n}x{k}" for n, k, _ in work})
    rates = {}

    def look(value):
        if isinstance(value, dict):
            if "flops_per_second" in value and value.get("compute") == compute and "m" in value:
                rates[value["n"], value["k"]] = value["flops_per_second"]
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            look(item)
    look(json.loads(run(hone, "doctor", "--measure", "--shapes", ",".join(named), "--json")))
    return sum(n * k * c for n, k, c in work) / sum(n * k * c / rates[n, k] for n, k, c in work)


def memory_of(process):
    """Bytes of anonymous, shared and mapped file pages now."""
    fields = {}
    try:
        for line in open(f"/proc/{process}/status"):
            name, _, rest = line.partition(":")
            if name in ("RssAnon", "RssShmem", "RssFile"):
                fields[name] = int(rest.split()[0]) * 1024
    except OSError:
        pass
    return [fields.get(name, 0) for name in ("RssAnon", "RssShmem", "RssFile")]


def train(hone, model, shape, folder, steps):
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(dict(text="".join(chr(97 + (i * 7 + j * j) % 26) for j in range(ROW - 1)))) + "\n"
                            for i in range(EXAMPLES * steps)))
    mapped = sum(f.stat().st_size for f in ([model] if model.is_file() else model.glob("*.safetensors")))
    command = [hone, "train", "--method", "qlora", "--model", model, "--data", rows, "--output", folder / "run", "--max-length", ROW, "--batch-size", EXAMPLES,
               "--epochs", 1, "--no-shuffle", "--memory", int(shape["limit"] * 0.985 - mapped), "--save-every", steps, "--eval-every", steps, "--json"]
    with open(folder / "events", "w") as out:
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out)
        highest, all_of_it = 0, [0, 0, 0]
        while process.poll() is None:
            now = memory_of(process.pid)
            if sum(now) > highest:
                highest, all_of_it = sum(now), now
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"hone train ended with {process.returncode}")
    return highest, all_of_it, [json.loads(l) for l in open(folder / "events")]


def measure(hone, name, kind, options):
    shape, folder = SHAPES[name], pathlib.Path(tempfile.mkdtemp(prefix=f"hone-{name}-{kind}-", dir=options.folder))
    model = folder / ("model" if kind == "nf4" else "model.gguf")
    config = {k: v for k, v in shape.items() if k != "limit"}
    config |= dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", initializer_range=0.02, max_position_embeddings=4096)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        run(hone, "convert", "--config", folder / "config.json", "--random-weights", "--to", "safetensors" if kind == "nf4" else "gguf",
            "--type", kind, "--output", model, "--json")
        highest, parts, events = train(hone, model, shape, folder, options.steps)
        plan = [e for e in events if e["event"] == "plan"][-1]
        took = [e["seconds"] for e in events if e["event"] == "step"]
        best = roof(hone, shape, plan["compute"])
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    rate = plan["flops"] / len(took) / min(took)
    fits = highest <= shape["limit"]
    print(f"| {name} | {kind} | {highest / 1e9:.2f} of {shape['limit'] / 1e9:.1f}{'' if fits else ', too much'} | " +
          " + ".join(f"{p / 1e9:.2f}" for p in parts) +
          f" | {plan['recompute']}, {plan['micro_batch_tokens']} | {min(took):.1f} | {rate / 1e9:.0f} | {rate / best:.0%} of {best / 1e9:.0f} |", flush=True)
    return fits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hone", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--type", choices=("q4_k", "nf4"), action="append")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="leave model and run in FOLDER")
    options = parser.parse_args()
    hone = options.hone.resolve()
    os.environ["HONE_HOME"] = str(options.folder.resolve() / "home")
    print("| shape | type | GB in all | anonymous + shared + file | recompute, tokens at a time | s/step | GFLOP/s | share of the products' rate |\n" + "|---" * 8 + "|", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    fits = [measure(hone, name, kind, options) for name in options.shape or SHAPES for kind in options.type or ("q4_k", "nf4")]
    return 0 if all(fits) else 1


sys.exit(main())
