#!/usr/bin/env python3
"""hone and its peers on one GPU in one run, a table in Markdown.

    side_by_side.py HONE FOLDER OUTPUT.md [GROUP…] [--only SYSTEM,…] [--floor SECONDS]

FOLDER: where models with random weights are made (tests/gpu/make_model.py; 16 GB for the 8B shape). GROUP: a row of GROUPS,
all of them where none is named. A step is ROWS rows of 2,048 tokens, all trained, LoRA r16 on all seven linears, AdamW, gradients
clipped; the median of the later steps, hone's from the time between its events, so that what it does between steps counts.
Memory: `own` is the allocator's peak (hone: the plan without the driver's context), `whole` the GPU's as nvidia-smi sees it.
Model flops are 4 N a token (N: parameters of linears and head), their peak 989 TFLOP/s in bf16, 1,979 in fp8."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "gpu"))
from make_model import SHAPES

GIB, LENGTH, STEPS = 2**30, 2048, 12
NF4 = "--method qlora --base-type nf4 "
# name: shape, rows, kind of products for floor and peak, systems with the words for each; hone's are those of no more memory than the peer's
GROUPS = {
    "1b": ("llama3.2-1b", 8, "bf16", [
        ("hone", "--recompute selective"), ("unsloth", "lora none"), ("hone", "--recompute none"), ("liger", "lora none"),
        ("peft", "lora none --compile"), ("hone", "--recompute selective")]),
    "1b-fp8": ("llama3.2-1b", 8, "fp8", [("hone", "--recompute none --compute fp8")]),
    "8b": ("llama3.1-8b", 4, "bf16", [("hone", "--recompute selective"), ("unsloth", "lora none")]),
    "8b-recompute": ("llama3.1-8b", 4, "bf16", [("hone", "--recompute offload --recompute-layers 30"), ("unsloth", "lora block")]),
    "8b-nf4": ("llama3.1-8b", 4, "bf16", [("hone", NF4 + "--recompute selective"), ("unsloth", "qlora none")]),
    "8b-nf4-small": ("llama3.1-8b", 4, "bf16", [("hone", NF4 + "--recompute offload --offload-optimizer"), ("unsloth", "qlora offload")]),
    "8b-fp8": ("llama3.1-8b", 4, "fp8", [("hone", "--recompute none --compute fp8"), ("hone", "--recompute selective --compute fp8")]),
}
PEAK = {"bf16": 989e12, "fp8": 1979e12}  # NVIDIA's data sheet of H100 SXM, dense


class WholeMemory:
    """The highest use of the GPU while it is open, as nvidia-smi tells it, in bytes."""

    def __enter__(self):
        self.peak = 0
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            self.peak = max(self.peak, int(line.split()[0]) << 20)

    def __exit__(self, *_):
        self.process.terminate()
        self.reader.join()


def parameters(c):
    """Of the linears and the head."""
    d, f, kv = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * c["head_dim"]
    q = c["num_attention_heads"] * c["head_dim"]
    return c["num_hidden_layers"] * (d * (2 * q + 2 * kv) + 3 * d * f) + c["vocab_size"] * d


def run_hone(options, model, rows, words):
    output = options.folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    flags = words.split()
    if "--micro-batch-tokens" not in flags:
        flags += ["--micro-batch-tokens", str(rows * LENGTH)]
    subprocess.run([options.hone, "train", "--device", "cuda", "--model", model, "--data", model / "rows.jsonl", "--max-length", str(LENGTH),
                    "--batch-size", str(rows), "--frozen-weights", "stored", "--lora-rank", "16", "--learning-rate", "1e-4",
                    "--max-steps", str(STEPS), "--save-every", str(STEPS), "--output", output, *flags],
                   check=True, stdout=subprocess.DEVNULL, timeout=options.limit)
    events = [json.loads(line) for line in open(output / "events.jsonl")]
    steps = [e for e in events if e["event"] == "step"]
    plan = next(e for e in events if e["event"] == "plan")
    between = [b["time"] - a["time"] for a, b in zip(steps, steps[1:])][STEPS // 2:]
    return dict(tokens_per_second=rows * LENGTH / statistics.median(between), first_loss=steps[0]["loss"], last_loss=steps[-1]["loss"],
                allocator_bytes=plan["peak_bytes"] - plan.get("context_bytes", 0), first_step_seconds=steps[0]["seconds"])


def run_peer(options, model, rows, system, words):
    command = [sys.executable, HERE / "peer.py", system, model, str(rows), *words.split()]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=options.limit).stdout
    return json.loads(text.splitlines()[-1])


def measure(options, model, rows, system, words):
    """One row of the table; what fails is a row too."""
    begin = time.monotonic()
    result = dict(system=system, words=words)
    try:
        with WholeMemory() as memory:
            result.update(run_hone(options, model, rows, words) if system == "hone" else run_peer(options, model, rows, system, words))
        result["whole_bytes"] = memory.peak
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError, json.JSONDecodeError) as cause:
        result["failed"] = str(cause)[-200:]
    result["system"], result["seconds"] = system, time.monotonic() - begin
    print(json.dumps(result), flush=True)
    return result


def floor_of(options, shape, rows, kind):
    if not options.floor:
        return None
    text = subprocess.run([sys.executable, HERE / "floor.py", shape, str(rows), kind, str(options.floor)], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    print(text, end="", flush=True)
    return json.loads(text.splitlines()[-1])["tokens_per_second"]


def table(name, shape, rows, kind, results, floor):
    peer = next((r["tokens_per_second"] for r in results if r["system"] == "unsloth" and "failed" not in r), None)
    flops = 4 * parameters(SHAPES[shape])
    yield f"\n{name}: {shape}, {rows} rows of {LENGTH:,} tokens" + (f"; floor {floor:,.0f} tokens/s" if floor else "") + "\n"
    yield "| | tokens/s | of Unsloth | own GiB | whole GiB | model TFLOP/s | of the peak | of the floor | first and last loss |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in results:
        title = f"{r['system']} {r['words']}"
        if "failed" in r:
            yield f"| {title} | failed: {r['failed'].splitlines()[-1][:80]} | | | | | | | |"
            continue
        rate = r["tokens_per_second"]
        yield (f"| {title} | {rate:,.0f} | {f'{rate / peer:.2f}' if peer else ''} | {r['allocator_bytes'] / GIB:.1f} | "
               f"{r['whole_bytes'] / GIB:.1f} | {rate * flops / 1e12:.0f} | {rate * flops / PEAK[kind]:.0%} | "
               f"{f'{rate / floor:.0%}' if floor else ''} | {r['first_loss']:.3f}, {r['last_loss']:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hone", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--only", default="hone,unsloth,liger,peft")
    parser.add_argument("--floor", type=float, default=0, metavar="SECONDS", help="measure the floor too")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="for one system")
    options = parser.parse_args()
    if set(options.groups) - set(GROUPS):
        parser.error("groups are " + ", ".join(GROUPS))
    lines = []
    for name in options.groups or GROUPS:
        shape, rows, kind, systems = GROUPS[name]
        model = options.folder / shape
        if not (model / "rows.jsonl").exists():
            subprocess.run([sys.executable, HERE.parent.parent / "gpu" / "make_model.py", shape, model, "200"], check=True)
        floor = floor_of(options, shape, rows, kind)
        results = [measure(options, model, rows, *s) for s in systems if s[0] in options.only.split(",")]
        lines += table(name, shape, rows, kind, results, floor)
        options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


main()
