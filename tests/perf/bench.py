#!/usr/bin/env python3
"""hone beside torch, PEFT and llama.cpp on one machine in one run, alternating; prints tables and writes Markdown.

    bench.py HONE MODEL.gguf DATA_DIRECTORY OUTPUT.md [PART…] [--quick] [--skip PART]

Parts: start, products, training, roofline, methods, generation; without one all of them. OUTPUT.md keeps what it has of the other
parts. roofline is also measured with fewer instruction sets than the processor has. Where --llama-avx2 names a Python whose
llama-cpp-python is built for AVX2 alone, generation compares it with hone's AVX2 kernels too."""
import argparse
import collections
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
# m x n x k of the model's products, and how many of each a token passes: 30 layers with q and o, k and v, gate and up, down; the head.
SHAPES = {(512, 576, 576): 60, (512, 192, 576): 60, (512, 1536, 576): 60, (512, 576, 1536): 30, (512, 49152, 576): 1}
BATCH = 8
PARTS = ("start", "products", "training", "roofline", "methods", "generation")
# Instruction sets: all that there are; fewer where the processor `needs` these for it to be fewer.
Sets = collections.namedtuple("Sets", "name needs flags torch")
SETS = (Sets("", (), (), {}),
        Sets("AVX-512 without BF16", ("avx512bf16",), ("--mask", "avx512bf16"), dict(ONEDNN_MAX_CPU_ISA="AVX512_CORE")),
        Sets("AVX2 alone", ("avx512",), ("--mask", "avx512"),
             dict(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2")))
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


def measured(value):
    """Every product with a rate anywhere in a JSON value: (compute, m, n, k) -> flops per second."""
    rates = {}
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        rates.update(measured(item))
    if isinstance(value, dict) and "flops_per_second" in value and "m" in value:
        rates[value["compute"], value["m"], value["n"], value["k"]] = value["flops_per_second"]
    return rates


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
        self.best, self.mine, self.torchs = {}, {}, {}

    def hone(self, *arguments):
        done = subprocess.run([self.hone_path, *map(str, arguments), "--json"], env=self.environment, stdout=subprocess.PIPE, text=True,
                              check=True, stdin=subprocess.DEVNULL)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def python(self, *arguments, **environment):
        done = subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **environment})
        return json.loads(done.stdout.splitlines()[-1])

    def rates_now(self, computes=("f32", "bf16"), sets=SETS[0]):
        """hone's and torch's rates of the products of the model's own shapes, m x n x k, 512 tokens at once; each the best of a few."""
        shapes = ",".join("x".join(map(str, s)) for s in SHAPES)
        torchs = {}
        for compute in computes:
            for shape, rate in self.python(HERE / "products.py", self.threads, shapes, compute, **sets.torch).items():
                torchs[(compute, *map(int, shape.split("x")))] = rate
        return measured(self.hone("doctor", "--measure", "--shapes", shapes, *sets.flags)), torchs

    def product_rates(self):
        """The best of several rounds; measured once."""
        if self.torchs:
            return
        for _ in range(self.rounds + 1):
            for best, now in zip((self.mine, self.torchs), self.rates_now()):
                best.update({k: max(rate, best.get(k, 0)) for k, rate in now.items()})
        self.best = {k: max(self.mine.get(k, 0), rate) for k, rate in self.torchs.items()}

    def products(self):
        self.product_rates()
        mine, torchs = self.mine, self.torchs
        say("## Products")
        say()
        table(["m x n x k", "type", "hone GFLOP/s", "torch GFLOP/s", "ratio"],
              [["x".join(map(str, k[1:])), k[0], f"{mine[k] / 1e9:.0f}", f"{torchs[k] / 1e9:.0f}", f"{mine[k] / torchs[k]:.2f}"]
               for k in sorted(torchs, key=lambda k: k[0], reverse=True)])

    @staticmethod
    def roof_of(rates, compute):
        """The rate of a step in which each product runs at the rate of its shape."""
        work = {s: count * s[1] * s[2] for s, count in SHAPES.items()}
        return sum(work.values()) / sum(w / rates[(compute, *s)] for s, w in work.items())

    def roof(self, compute):
        """Each product as fast as hone's or torch's at its shape."""
        self.product_rates()
        return self.roof_of(self.best, compute)

    def train_hone(self, name, data, steps, *flags, model=None, batch=BATCH):
        events = self.hone("train", "--model", model or self.model, "--data", data, "--output", self.work / name, "--no-shuffle", "--batch-size", batch,
                           "--max-steps", steps, "--learning-rate", "2e-4", "--eval-every", steps, "--save-every", steps, *flags)
        run = [e for e in events if e["event"] == "step"]
        plan = [e for e in events if e["event"] == "plan"][-1]
        return dict(tokens=sum(e["tokens"] for e in run), seconds=sum(e["seconds"] for e in run), memory=max(e["memory_bytes"] for e in run),
                    plan=plan, losses=[e["loss"] for e in run], each=[e["seconds"] for e in run], least=min(e["seconds"] for e in run))

    def training(self):
        steps = 4 if self.options.quick else 16
        self.product_rates()
        # Where torch's bf16 products are far slower than its f32 ones, as on AVX2, PEFT in bf16 would only take an hour to lose.
        rate_of = {c: max((r for (compute, *_), r in self.torchs.items() if compute == c), default=0) for c in ("f32", "bf16")}
        peft = {"float32": [], "bfloat16": []} if rate_of["bf16"] >= 0.4 * rate_of["f32"] else {"float32": []}
        mine = []
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
        if "bfloat16" not in peft:
            say(f"PEFT in bf16 is left out: torch multiplies bf16 at {rate_of['bf16'] / max(rate_of['f32'], 1):.0%} of its rate in f32 here.")
            say()
        say(f"hone's memory: planned {plan['peak_bytes'] / 2**20:.0f} MiB, measured {mine[0]['memory'] / 2**20:.0f} MiB "
            f"({mine[0]['memory'] / plan['peak_bytes']:.3f} of the plan).")
        say()

    def full_rows(self, steps):
        """A file of rows that fill 512 tokens each, as many as `steps` take."""
        text = " ".join(json.loads(l)["messages"][-1]["content"] for l in open(self.data / "train.jsonl", encoding="utf-8"))
        words, path = text.split(), self.work / f"full-{steps}.jsonl"
        with open(path, "w", encoding="utf-8") as out:
            for i in range(BATCH * steps):
                begin = i * 701 % (len(words) - 1000)
                out.write(json.dumps(dict(text=" ".join(words[begin:begin + 1000]))) + "\n")
        return path

    def computed_in(self, name):
        return next(l.split()[1] for l in (self.work / name / "recipe.yaml").read_text().splitlines() if l.startswith("compute:"))

    def roofline(self):
        """With every instruction set that this processor has, and with fewer: as on processors that lack the others."""
        features = found(self.hone("doctor"), "features").split(", ")
        for sets in SETS:
            if all(name in features for name in sets.needs):
                self.roofline_of(sets)

    def roofline_of(self, sets):
        """Steps of one full micro-batch, between rounds of products: what other programs take of the machine changes both alike."""
        rows, steps, rounds = 2, 3, 3 if self.options.quick else 7
        data, rates, seconds, roofs, shares, best = self.full_rows(steps), [], [], [], [], {}
        for i in range(rounds):
            name = f"full-{sets.name.replace(' ', '-')}-{i}"
            run = self.train_hone(name, data, steps, "--max-length", 512, *sets.flags, batch=rows)
            compute = self.computed_in(name)
            mine, torchs = self.rates_now((compute,), sets)
            now = {k: max(rate, mine.get(k, 0)) for k, rate in torchs.items()}
            best.update({k: max(rate, best.get(k, 0)) for k, rate in now.items()})
            flops = run["plan"]["flops"] / steps  # the plan's figure is of the whole run
            seconds += run["each"]
            rates += [flops / s for s in run["each"]]
            roofs.append(self.roof_of(now, compute))
            shares.append(statistics.median(flops / s for s in run["each"]) / roofs[-1])
        say(f"## Training on full micro-batches{sets.name and ', ' + sets.name} ({rows} rows of 512 tokens), {rounds} runs of {steps} steps, products between them")
        say()
        tokens = rows * 512
        table(["", "tokens/s", "GFLOP/s", f"{compute} products, GFLOP/s", "share"],
              [["the fastest step, the fastest products", f"{tokens / min(seconds):.0f}", f"{max(rates) / 1e9:.0f}", f"{self.roof_of(best, compute) / 1e9:.0f}",
                f"{max(rates) / self.roof_of(best, compute):.0%}"],
               ["medians", f"{tokens / statistics.median(seconds):.0f}", f"{statistics.median(rates) / 1e9:.0f}", f"{statistics.median(roofs) / 1e9:.0f}",
                f"{statistics.median(shares):.0%}"]])
        say("Shares of single runs, by the products beside each: " + ", ".join(f"{share:.0%}" for share in sorted(shares)) + ".")
        say()

    def methods(self):
        """LoRA, QLoRA, DoRA and full fine-tuning of the model in bf16, and what recomputation costs: the least time of a step of several alternating runs."""
        steps, model = 2, self.work / "bf16"
        self.hone("convert", "--model", self.model, "--to", "safetensors", "--type", "bf16", "--output", model)
        same = ["--recompute", "none", "--micro-batch-tokens", 2048]
        block = ["--recompute", "block", "--micro-batch-tokens", 2048]
        ways = {"lora": same, "qlora": ["--base-type", "nf4", *same], "dora": same, "lora, block": block, "full": [], "full, none": same, "full, block": block}
        least, plans = {}, {}
        for i in range(1 if self.options.quick else 3):
            for way, flags in ways.items():
                name = f"methods-{i}-{way.replace(', ', '-')}"
                run = self.train_hone(name, self.full_rows(steps), steps, "--max-length", 512, "--method", way.split(",")[0], *flags, model=model)
                least[way], plans[way] = min(least.get(way, 1e30), run["least"]), run["plan"]
        say(f"## Methods: SmolLM2 in bf16, {BATCH} rows of 512 tokens a step, the least time of a step")
        say()
        table(["", "s/step", "tokens/s", "GFLOP/s", "recompute, tokens at a time", "planned peak, MiB"],
              [[way, f"{s:.2f}", f"{BATCH * 512 / s:.0f}", f"{plans[way]['flops'] / steps / s / 1e9:.0f}",
                f"{plans[way]['recompute']}, {plans[way]['micro_batch_tokens']}", f"{plans[way]['peak_bytes'] / 2**20:.0f}"] for way, s in least.items()])
        roof = self.roof(plans["full"]["compute"])
        share = f"{plans['full']['flops'] / steps / least['full'] / roof:.0%} of the best products ({roof / 1e9:.0f} GFLOP/s)"
        say(f"Full fine-tuning: {share}. QLoRA in nf4: {least['lora'] / least['qlora']:.0%} of LoRA's tokens/s, DoRA {least['lora'] / least['dora']:.0%}. "
            f"`--recompute block` takes {least['lora, block'] / least['lora'] - 1:.0%} more time with LoRA, {least['full, block'] / least['full, none'] - 1:.0%} with full.")
        say()

    def answer_rates(self, flags, llama, mine, peers):
        """One round of hone with `flags`, and of the llama.cpp of the Python `llama`, added to both."""
        long = self.hone("bench", "--model", self.model, "--prompt-tokens", 512, "--max-tokens", 2, *flags)[-1]
        short = self.hone("bench", "--model", self.model, "--prompt-tokens", 32, "--max-tokens", 128, *flags)[-1]
        work = 2.0 * sum(count * n * k for (_, n, k), count in SHAPES.items() if n < 49152)  # a token; the head sees one alone
        best = max(rate for (compute, *_), rate in measured(long).items() if compute == "f32")  # as sessions compute
        mine["prefill"].append(long["generation"]["prefill_tokens_per_second"])
        mine["decode"].append(short["generation"]["decode_tokens_per_second"])
        mine["prefill share"].append(mine["prefill"][-1] * work / best)
        mine["decode share"].append(short["generation"]["decode_bytes_per_second"] / short["rates"]["read_bytes_per_second"])
        peer = json.loads(subprocess.run([llama, HERE / "llama_job.py", self.model, str(self.threads), "512"], stdout=subprocess.PIPE,
                                         text=True, check=True).stdout.splitlines()[-1])
        for part in peer:
            peers[part].append(peer[part])

    def generation(self):
        pairs = {"": ((), self.options.llama or sys.executable)}
        if self.options.llama_avx2:
            pairs["AVX2 alone: "] = (("--mask", "avx512"), self.options.llama_avx2)
        results = {name: (collections.defaultdict(list), collections.defaultdict(list)) for name in pairs}
        for _ in range(self.rounds + 1):
            for name, (flags, llama) in pairs.items():
                self.answer_rates(flags, llama, *results[name])
        say("## Generation: a prompt of 512 tokens; 128 tokens after a prompt of 32")
        say()
        rows = []
        for name, (mine, peers) in results.items():
            for part, of in ("prefill", "of the best product rate"), ("decode", "of the bytes a second that memory gives"):
                a, b = statistics.median(mine[part]), statistics.median(peers[part])
                rows.append([name + part, f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}", f"{statistics.median(mine[part + ' share']):.0%} {of}"])
        table(["", "hone tokens/s", "llama.cpp tokens/s", "ratio", "hone's share"], rows)

    def start(self):
        say("## Start")
        say()
        times = []
        for _ in range(10):
            begin = time.perf_counter()
            subprocess.run([self.hone_path, "--help"], stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - begin)
        say(f"`hone --help` takes {statistics.median(times) * 1000:.1f} ms.")
        say()


def processor():
    """Its name; vendors give one to many generations, so family and model too."""
    try:
        facts = [l.split(":")[1].strip() for key in ("model name", "cpu family", "model\t") for l in open("/proc/cpuinfo") if l.startswith(key)]
        each = len(facts) // 3
        return f"{facts[0]} (family {facts[each]}, model {facts[2 * each]})"
    except (OSError, IndexError):
        return platform.processor()


def machine(bench):
    flags = next((l for l in open("/proc/cpuinfo") if l.startswith("flags")), "") if os.path.exists("/proc/cpuinfo") else ""
    sets = [s for s in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {s}" in flags]
    return f"{processor()}, {bench.threads} threads, {' '.join(sets)}"


def written(output):
    """The text of each part in the file that there is."""
    texts, part = {}, None
    for line in output.read_text().splitlines() if output.exists() else ():
        if line.startswith("<!-- "):
            part = line.split()[1]
        elif part:
            texts.setdefault(part, []).append(line)
    return texts


def measure(bench, part):
    lines.clear()
    try:
        getattr(bench, part)()
    except (subprocess.CalledProcessError, KeyError, TypeError, IndexError) as error:
        say(f"{part}: not measured ({type(error).__name__}: {str(error)[:200]})")
        say()
    say(f"`./bench {part}{' --quick' if bench.options.quick else ''}` on {time.strftime('%Y-%m-%d')}: {machine(bench)}.")
    say()
    return list(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hone", "model", "data", "output"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--skip", action="append", default=[], choices=PARTS)
    parser.add_argument("--llama", metavar="PYTHON", help="has llama-cpp-python built for this processor [the one that runs this]")
    parser.add_argument("--llama-avx2", metavar="PYTHON", help="has one built for AVX2 alone")
    options = parser.parse_intermixed_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}; parts are {', '.join(PARTS)}")
    texts = written(options.output)
    with tempfile.TemporaryDirectory(prefix="hone-bench-") as work:
        bench = Bench(options, pathlib.Path(work))
        for part in PARTS:
            if part in (options.parts or PARTS) and part not in options.skip:
                texts[part] = measure(bench, part)
    head = ["# Results", "", "Written by `./bench` with SmolLM2-135M-Instruct (Q4_1) and the Devil's Dictionary. Programs alternate in one run; what was run, "
            "and where, stands below each part.", ""]
    body = [line for part in PARTS if part in texts for line in (f"<!-- {part} -->", *texts[part])]
    options.output.write_text("\n".join(head + body).rstrip("\n") + "\n")


main()
