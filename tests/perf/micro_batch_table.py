#!/usr/bin/env python3
"""The micro-batch that a plan chooses beside all powers of two that fit the same memory: three shapes, three budgets each; Markdown.

    micro_batch_table.py HONE [SHAPE ...] [--rounds N] [--compute f32|bf16]

Each way to run that some budget allows takes a few steps, in turn with the others, N rounds; its fastest step counts. The choice holds
when it is within 5 % of the fastest of its budget. Budgets: what is free; what leaves 2,048 tokens no room without recomputation; and what
leaves 512 none. Ends with the count; the exit status tells. For a machine that does nothing else."""
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

SHAPES = {  # hidden, ffn, layers, heads, vocabulary
    "256 x 6": (256, 768, 6, 4, 4096),
    "512 x 4": (512, 1536, 4, 8, 8192),
    "768 x 2": (768, 2048, 2, 12, 16384),
}
SIZES = [128, 256, 512, 1024, 2048, 4096]
MiB = 1 << 20


def make(hone, directory, shape, compute):
    hidden, ffn, layers, heads, vocabulary = SHAPES[shape]
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": heads // 2, "vocab_size": vocabulary, "tie_word_embeddings": True, "hidden_act": "silu",
              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    (directory / "config.json").write_text(json.dumps(config))
    subprocess.run([hone, "convert", "--config", directory / "config.json", "--random-weights", "--type", "bf16", "--output", directory / "model"], check=True,
                   capture_output=True)
    draw = random.Random(1)
    (directory / "rows.jsonl").write_text("".join(json.dumps({"text": "".join(draw.choice("etaoin shrdlu") for _ in range(draw.randint(30, 120)))}) + "\n" for _ in range(96)))
    return ["--model", directory / "model", "--data", directory / "rows.jsonl", "--train-on", "all", "--batch-size", "24", "--compute", compute, "--frozen-weights", "stored"]


def plan(hone, flags):
    done = subprocess.run([hone, "plan", *map(str, flags), "--json"], capture_output=True, text=True)
    return json.loads(done.stdout) if not done.returncode else None


def way(planned):
    return planned["recompute"], planned["micro_batch_tokens"]


def budgets(hone, flags):
    """Of each: its bytes (0: what is free), the choice, and the ways that the powers of two are run in it."""
    found = []
    for without in (None, 2048, 512):
        bytes_ = plan(hone, [*flags, "--recompute", "none", "--micro-batch-tokens", without])["peak_bytes"] - MiB if without else 0
        limit = ["--memory", bytes_]
        all_ways = {way(p) for p in (plan(hone, [*flags, *limit, "--micro-batch-tokens", n]) for n in SIZES) if p}
        found.append((bytes_, way(plan(hone, [*flags, *limit])), all_ways))
    return found


def step_seconds(hone, directory, flags, recompute, tokens):
    output = directory / "run"
    shutil.rmtree(output, ignore_errors=True)
    done = subprocess.run([hone, "train", *map(str, flags), "--recompute", recompute, "--micro-batch-tokens", str(tokens), "--max-steps", "4", "--no-shuffle", "--output",
                           output, "--json"], capture_output=True, text=True, check=True)
    steps = [e for e in map(json.loads, done.stdout.splitlines()) if e.get("event") == "step"]
    return min(e["seconds"] / e["tokens"] for e in steps)


def table(hone, shape, rounds, compute):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hone-micro-batch-"))
    flags = make(hone, directory, shape, compute)
    found = budgets(hone, flags)
    fastest = {w: float("inf") for _, chosen, ways in found for w in ways | {chosen}}
    for _ in range(rounds):
        for w in fastest:
            fastest[w] = min(fastest[w], step_seconds(hone, directory, flags, *w))
    shutil.rmtree(directory)
    good = 0
    for bytes_, chosen, ways in found:
        best = min(ways, key=fastest.get)
        behind = fastest[chosen] / fastest[best] - 1
        good += behind <= 0.05
        others = ", ".join(f"{w[1]} {w[0]} {1 / fastest[w]:.0f}" for w in sorted(ways, key=lambda w: w[1]))
        print(f"| {shape} | {f'{bytes_ / MiB:.0f} MiB' if bytes_ else 'free'} | {chosen[1]} {chosen[0]} | {1 / fastest[chosen]:.0f} | {best[1]} {best[0]} | "
              f"{1 / fastest[best]:.0f} | {behind * 100:+.1f} % | {others} |", flush=True)
    return good, len(found)


def main():
    words = sys.argv[1:]
    rounds = int(words[words.index("--rounds") + 1]) if "--rounds" in words else 2
    compute = words[words.index("--compute") + 1] if "--compute" in words else "f32"
    shapes = [w for w in words[1:] if w in SHAPES] or list(SHAPES)
    hone = str(pathlib.Path(words[0]).resolve())
    print("| shape | memory | chosen | tokens/s | fastest power of two | tokens/s | behind | all, tokens/s |\n|---|---|---|---|---|---|---|---|")
    counts = [table(hone, shape, rounds, compute) for shape in shapes]
    good, all_ = (sum(column) for column in zip(*counts))
    print(f"{good} passed, {all_ - good} failed")
    return good < all_


if __name__ == "__main__":
    sys.exit(main())
