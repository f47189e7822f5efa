#!/usr/bin/env python3
"""What runs are planned to take of the memory beside what they take: every method with every way to recompute in every compute type, on
models of several shapes; prints a line for each and writes a Markdown table.

    memory_table.py HONE [OUTPUT.md] [--shapes 60M,135M,...] [--methods lora,...] [--recompute none,...] [--compute f32,...] [--directory DIR]

Each run takes two steps with an evaluation and a checkpoint and writes its result. Measured is the most of RssAnon + RssShmem that
/proc shows of the process from its start to its end, looked at every 2 ms: loading, steps, evaluation and saving. A plan holds when
that is within 2 % of its peak or 16 MiB, whichever is larger. Ends with the count of those that hold; the exit status tells."""
import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

MiB = 1 << 20
SHAPES = {  # hidden, ffn, layers, heads, kv heads, vocabulary, tied; parameters
    "tiny": (64, 192, 2, 4, 2, 512, True),
    "60M": (512, 1536, 8, 8, 4, 32000, False),
    "135M": (576, 1536, 30, 9, 3, 49152, True),
    "206M": (1024, 2816, 12, 16, 8, 32000, False),
    "wide": (1536, 4096, 2, 12, 4, 2000, True),
}
METHODS = {  # flags, and how the model's weights are stored
    "lora": (["--method", "lora"], "bf16"),
    "qlora nf4": (["--method", "qlora", "--base-type", "nf4"], "bf16"),  # quantised while it is loaded
    "qlora q4_k": (["--method", "qlora"], "q4_k"),
    "qlora int8": (["--method", "qlora", "--base-type", "int8"], "bf16"),
    "dora": (["--method", "dora"], "bf16"),
    "dora --ema-decay": (["--method", "dora", "--lora-rank", "64", "--ema-decay", "0.9"], "bf16"),
    "pissa": (["--lora-init", "pissa", "--lora-rank", "64"], "bf16"),  # decomposed at the start, saved at twice the rank
    "loftq nf4": (["--lora-init", "loftq", "--base-type", "nf4"], "bf16"),
    "full": (["--method", "full"], "bf16"),
    "full --offload-optimizer": (["--method", "full", "--offload-optimizer"], "bf16"),
}
RECOMPUTE = ["none", "block", "selective", "auto", "offload"]
COMPUTE = ["f32", "bf16", "f16"]
TOLERANCE, LEAST = 0.02, 16 * MiB


def make_model(hone, directory, shape, stored):
    hidden, ffn, layers, heads, kv, vocabulary, tied = SHAPES[shape]
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary,
              "tie_word_embeddings": tied, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}
    path = directory / f"{shape}.json"
    path.write_text(json.dumps(config))
    model = directory / f"model-{shape}-{stored}{'.gguf' if stored == 'q4_k' else ''}"
    if not model.exists():
        subprocess.run([hone, "convert", "--config", path, "--random-weights", "--type", stored, "--output", model], check=True, capture_output=True)
    return model


def make_rows(path, count, longest):
    draw = random.Random(count)
    path.write_text("".join(json.dumps({"text": "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(longest // 2, longest - 1)))}) + "\n"
                            for _ in range(count)))


class Watch(threading.Thread):
    """The highest figure of a process, and how far its events were then."""

    def __init__(self, pid):
        super().__init__()
        self.pid, self.highest, self.stage, self.at, self.done = pid, 0, "start", "", False

    def run(self):
        while not self.done:
            try:
                text = open(f"/proc/{self.pid}/status").read()
            except OSError:
                return
            held = sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(("RssAnon", "RssShmem")))
            if held > self.highest:
                self.highest, self.at = held, self.stage
            time.sleep(0.002)


def measure(hone, arguments):
    """The plan event, what the run itself told as its peak, what was seen from outside and when."""
    process = subprocess.Popen([hone, "train", *map(str, arguments), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    plan, told = None, 0
    for line in process.stdout:
        event = json.loads(line)
        name = event.get("event", "result")
        watch.stage = f"{name} {event.get('step', '')}".strip()
        plan = event if name == "plan" else plan
        told = max(told, event.get("memory_bytes") or 0)
    complaint = process.stderr.read()
    process.wait()
    watch.done = True
    watch.join()
    if process.returncode or not plan:
        raise RuntimeError(f"exit status {process.returncode}: {complaint.strip()[-400:]}")
    return plan, told, watch.highest, watch.at


def holds(planned, measured):
    return abs(measured - planned) <= max(TOLERANCE * planned, LEAST)


def measure_row(hone, directory, shape, method, recompute, compute):
    """One run of the table, in `directory`, where its model and data are made and stay."""
    directory.mkdir(exist_ok=True)
    make_rows(directory / "train.jsonl", 4, 48)
    make_rows(directory / "valid.jsonl", 2, 48)
    flags, stored = METHODS[method]
    model = make_model(hone, directory, shape, stored)
    output = directory / "run"
    shutil.rmtree(output, ignore_errors=True)
    begin = time.time()
    plan, told, seen, at = measure(hone, ["--model", model, "--data", directory / "train.jsonl", "--valid", directory / "valid.jsonl", "--train-on", "all",
                                          "--batch-size", 2, "--micro-batch-tokens", 512, "--max-steps", 2, "--eval-every", 1, "--save-every", 2,
                                          "--keep", 1, *flags, "--recompute", recompute, "--compute", compute, "--output", output])
    shutil.rmtree(output)
    return {"shape": shape, "method": method, "recompute": recompute, "compute": compute, "plan": plan, "told": told, "seen": seen, "at": at,
            "seconds": time.time() - begin}


def mib(bytes_):
    return f"{bytes_ / MiB:.1f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("hone")
    parser.add_argument("output", nargs="?")
    for name, known, usual in (("shapes", list(SHAPES), ["60M", "135M", "206M"]), ("methods", list(METHODS), list(METHODS)),
                               ("recompute", RECOMPUTE, RECOMPUTE), ("compute", COMPUTE, COMPUTE)):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=usual, help=",".join(known))
    parser.add_argument("--directory")
    choice = parser.parse_args()
    directory = pathlib.Path(choice.directory or tempfile.mkdtemp(prefix="hone-memory-table-"))
    hone = str(pathlib.Path(choice.hone).resolve())
    good, lines = 0, []
    for shape, method, recompute, compute in itertools.product(choice.shapes, choice.methods, choice.recompute, choice.compute):
        row = measure_row(hone, directory, shape, method, recompute, compute)
        planned, seen = row["plan"]["peak_bytes"], row["seen"]
        well = holds(planned, seen) and holds(planned, row["told"])
        good += well
        cells = [row["shape"], row["method"], row["recompute"], row["compute"], mib(planned), mib(row["told"]), mib(seen), f"{(seen - planned) / MiB:+.1f}",
                 f"{(seen / planned - 1) * 100:+.1f} %", "yes" if well else "no"]
        lines.append("| " + " | ".join(cells) + " |")
        print(f"{'ok  ' if well else 'OFF '} {' '.join(f'{c:>10}' for c in cells[:-1])}  highest after {row['at']}, {row['seconds']:.1f} s", flush=True)
    if not choice.directory:
        shutil.rmtree(directory)
    if choice.output:
        head = ["model", "method", "recompute", "compute", "planned", "told by the run", "seen in /proc", "MiB off", "off", "within"]
        pathlib.Path(choice.output).write_text("\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines]) + "\n")
    print(f"{good} passed, {len(lines) - good} failed")
    return good < len(lines)


if __name__ == "__main__":
    sys.exit(main())
