#!/usr/bin/env python3
"""hone beside torch, PEFT and llama.cpp on one machine in one run, alternating; prints tables and writes Markdown.

    bench.py HONE MODEL.gguf DATA_DIRECTORY OUTPUT.md [--quick] [--skip products|training|roofline|generation]"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SHAPES = [(512, 576, 576), (512, 192, 576), (512, 1536, 576), (512, 576, 1536), (512, 49152, 576)]
BATCH = 8
lines = []


def say(text=""):
    print(text, flush=True)
    lines.append(text)


def table(head, rows):
    say("| " + " | ".join(head) + " |")
    say("|" + "---|" * len(head))
    for row in rows:
        say("| " + " | ".join(str(c) for c in row) + " |")
    say()


def found(value, key):
    """The first value under `key` anywhere in a JSON value."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            result = found(item, key)
            if result is not None:
                return result
    return None


class Bench:
    def __init__(self, options, work):
        self.options, self.work = options, work
        self.hone_path, self.model, self.data = options.hone.resolve(), options.model.resolve(), options.data.resolve()
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.environment = {**os.environ, "HONE_HOME": str(work / "home")}
        self.rounds = 1 if options.quick else 2
        self.best_rate = 0.0

    def hone(self, *arguments):
        done = subprocess.run([self.hone_path, *map(str, arguments), "--json"], env=self.environment, stdout=subprocess.PIPE, text=True,
                              check=True, stdin=subprocess.DEVNULL)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def python(self, *arguments):
        done = subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def products(self):
        """The rate of f32 products of the model's own shapes, m x n x k, 512 tokens at once."""
        shapes = ",".join("x".join(map(str, s)) for s in SHAPES)
        mine, torchs = {}, {}
        for _ in range(self.rounds + 1):
            for p in found(self.hone("doctor", "--measure", "--shapes", shapes), "products"):
                if p["compute"] == "f32":
                    rate = p.get("flops_per_second", p.get("rate"))
                    mine[p["m"], p["n"], p["k"]] = max(rate, mine.get((p["m"], p["n"], p["k"]), 0))
            for shape, rate in self.python(HERE / "products.py", self.threads, shapes).items():
                key = tuple(map(int, shape.split("x")))
                torchs[key] = max(rate, torchs.get(key, 0))
        say("## Products, f32")
        say()
        table(["m x n x k", "hone GFLOP/s", "torch GFLOP/s", "ratio"],
              [["x".join(map(str, s)), f"{mine[s] / 1e9:.0f}", f"{torchs[s] / 1e9:.0f}", f"{mine[s] / torchs[s]:.2f}"] for s in SHAPES])
        self.best_rate = max([*mine.values(), *torchs.values()])

    def train_hone(self, name, data, steps, *flags):
        events = self.hone("train", "--model", self.model, "--data", data, "--output", self.work / name, "--no-shuffle", "--batch-size", BATCH,
                           "--max-steps", steps, "--learning-rate", "2e-4", "--eval-every", steps, "--save-every", steps, *flags)
        run = [e for e in events if e["event"] == "step"]
        plan = [e for e in events if e["event"] == "plan"][-1]
        return dict(tokens=sum(e["tokens"] for e in run), seconds=sum(e["seconds"] for e in run), memory=max(e["memory_bytes"] for e in run),
                    plan=plan, losses=[e["loss"] for e in run])

    def training(self):
        steps = 4 if self.options.quick else 16
        mine, peft = [], {"float32": [], "bfloat16": []}
        for i in range(self.rounds):
            mine.append(self.train_hone(f"train-{i}", self.data / "train.jsonl", steps))
            for dtype in peft:
                if dtype == "float32" or i == 0:
                    peft[dtype].append(self.python(HERE / "peft_job.py", self.model, self.data / "train.jsonl", "--steps", steps, "--batch", BATCH,
                                                   "--dtype", dtype, "--threads", self.threads))
        rate = statistics.median(r["tokens"] / r["seconds"] for r in mine)
        best = max(statistics.median(r["tokens_per_second"] for r in runs) for runs in peft.values())
        say(f"## Training, the same file, {steps} steps of {BATCH} examples, LoRA rank 16 on all linears")
        say()
        rows = [["hone", f"{rate:.0f}", f"{rate / best:.2f}", f"{max(r['memory'] for r in mine) / 2**30:.2f}", f"{mine[0]['losses'][0]:.4f}"]]
        for dtype, runs in peft.items():
            speed = statistics.median(r["tokens_per_second"] for r in runs)
            rows.append([f"PEFT {dtype} (torch {runs[0]['torch']})", f"{speed:.0f}", f"{speed / best:.2f}", f"{max(r['peak_bytes'] for r in runs) / 2**30:.2f}",
                         f"{runs[0]['losses'][0]:.4f}"])
        table(["program", "real tokens/s", "ratio to PEFT's best", "GiB at most", "loss of step 1"], rows)
        plan = mine[0]["plan"]
        say(f"hone's memory: planned {plan['peak_bytes'] / 2**20:.0f} MiB, measured {mine[0]['memory'] / 2**20:.0f} MiB "
            f"({mine[0]['memory'] / plan['peak_bytes']:.3f} of the plan).")
        say()

    def roofline(self):
        text = " ".join(json.loads(l)["messages"][-1]["content"] for l in open(self.data / "train.jsonl", encoding="utf-8"))
        words, steps = text.split(), 3 if self.options.quick else 6
        with open(self.work / "full.jsonl", "w", encoding="utf-8") as out:
            for i in range(BATCH * steps):
                begin = i * 701 % (len(words) - 1000)
                out.write(json.dumps(dict(text=" ".join(words[begin:begin + 1000]))) + "\n")
        flags = ["--max-length", 512]
        run = self.train_hone("full", self.work / "full.jsonl", steps, *flags)
        plan = run["plan"]
        used = plan["flops"] / run["seconds"]  # the plan's figure is of the whole run
        say(f"## Training on full micro-batches ({BATCH} rows of 512 tokens)")
        say()
        table(["tokens/s", "flops of the run", "GFLOP/s", "of the best product rate"],
              [[f"{run['tokens'] / run['seconds']:.0f}", f"{plan['flops']:.3g}", f"{used / 1e9:.0f}",
                f"{used / self.best_rate:.0%}" if self.best_rate else "not measured"]])

    def generation(self):
        mine = {"prefill": [], "decode": []}
        peers = {"prefill": [], "decode": []}
        share = []
        for _ in range(self.rounds):
            answer = self.hone("bench", "--model", self.model, "--prompt-tokens", 512, "--max-tokens", 128)[-1]
            run = answer["generation"]
            for part in mine:
                mine[part].append(run[f"{part}_tokens_per_second"])
            share.append(run["decode_bytes_per_second"] / answer["rates"]["read_bytes_per_second"])
            peer = self.python(HERE / "llama_job.py", self.model, self.threads, 512)
            for part in peers:
                peers[part].append(peer[part])
        say("## Generation, 512 tokens of prompt, 128 of answer")
        say()
        rows = []
        for part in mine:
            a, b = statistics.median(mine[part]), statistics.median(peers[part])
            rows.append([part, f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}"])
        table(["", "hone tokens/s", "llama.cpp tokens/s", "ratio"], rows)
        say(f"Decode moves {statistics.median(share):.0%} of the bytes a second that memory gives here.")
        say()

    def start(self):
        times = []
        for _ in range(10):
            begin = time.perf_counter()
            subprocess.run([self.hone_path, "--help"], stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - begin)
        say(f"`hone --help` takes {statistics.median(times) * 1000:.1f} ms.")
        say()


def processor():
    try:
        return next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hone", "model", "data", "output"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--skip", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hone-bench-") as work:
        bench = Bench(options, pathlib.Path(work))
        flags = next((l for l in open("/proc/cpuinfo") if l.startswith("flags")), "") if os.path.exists("/proc/cpuinfo") else ""
        sets = [s for s in ("avx2", "avx512f", "avx512_bf16") if f" {s}" in flags]
        say("# Results")
        say()
        say(f"Written by `./bench` on {time.strftime('%Y-%m-%d')}: {processor()}, {bench.threads} threads, {' '.join(sets)}. "
            "SmolLM2-135M-Instruct (Q4_1), the Devil's Dictionary. Programs alternate in one run.")
        say()
        for part in ("start", "products", "training", "roofline", "generation"):
            if part in options.skip:
                continue
            try:
                getattr(bench, part)()
            except (subprocess.CalledProcessError, KeyError, TypeError, IndexError) as error:
                say(f"{part}: not measured ({type(error).__name__}: {str(error)[:200]})")
                say()
    options.output.write_text("\n".join(lines) + "\n")


main()
