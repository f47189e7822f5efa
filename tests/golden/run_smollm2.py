#!/usr/bin/env python3
"""SmolLM2-135M-Instruct in hone against transformers and PEFT, with the weights decoded the same way, f32.

    run_smollm2.py BUILD MODEL.gguf DATA_DIRECTORY [--epoch [--peft FILE]] [--only PART]

BUILD holds hone and tests/golden_driver; DATA_DIRECTORY holds train.jsonl and valid.jsonl of examples/devil.
Needs torch, transformers, peft, gguf, jinja2. --epoch also trains a whole epoch in both (PEFT: 10 to 20 minutes).

    logits      several texts, base and adapter              max abs difference <= 1e-3
    gradients   every adapter tensor                         |hone - PEFT| / |PEFT| <= 1e-4
    losses      10 steps from one adapter, constant rate     1e-4 relative
    adapter_in_peft  the run's directory in PEFT: loss 1e-4, ids equal
    answers     greedy answers with that directory           equal; one of eight may part where two tokens are all but as likely
    epoch       held-out loss of the demo's epoch            0.5 %"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import smollm2

RANK, ALPHA, RATE, BATCH, STEPS = 16, 16, 2e-4, 8, 10
TEXTS = ["The capital of France is Paris.", "<|im_start|>user\nDefine year.<|im_end|>\n<|im_start|>assistant\n", "x",
         "def add(a, b):\n    return a + b\n\n" * 6, "Die Straße führt über 1234 Brücken; 日本語、emoji 🦊 und ñandú.",
         "In the beginning the Universe was created. This has made a lot of people very angry. " * 12]
PARTS = ["logits", "gradients", "losses", "adapter_in_peft", "answers", "epoch"]
ANSWER_TOKENS = 32
outcome = []


def report(name, value, bound):
    outcome.append(value <= bound)
    print(f"{'ok  ' if value <= bound else 'FAIL'}  {name}: {value:.3g} (at most {bound:g})", flush=True)


def write_adapter(directory, model, b_scale):
    """A PEFT adapter with A as PEFT draws it and, for b_scale 0, B = 0 as PEFT begins."""
    directory.mkdir()
    rng = np.random.default_rng(5)
    tensors = {}
    for key, module in sorted(model.named_modules()):
        if key.rsplit(".", 1)[-1] in smollm2.TARGETS:
            out, inner = module.weight.shape
            a = rng.uniform(-1, 1, (RANK, inner)) / np.sqrt(inner)
            b = rng.standard_normal((out, RANK)) * b_scale
            tensors[f"base_model.model.{key}.lora_A.weight"] = torch.from_numpy(a.astype(np.float32))
            tensors[f"base_model.model.{key}.lora_B.weight"] = torch.from_numpy(b.astype(np.float32))
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(dict(
        base_model_name_or_path="smollm2", bias="none", fan_in_fan_out=False, inference_mode=True, init_lora_weights=True, lora_alpha=ALPHA,
        lora_dropout=0.0, modules_to_save=None, peft_type="LORA", r=RANK, target_modules=smollm2.TARGETS, task_type="CAUSAL_LM",
        use_dora=False, use_rslora=False)))
    return directory


class Comparison:
    def __init__(self, options, work):
        self.options, self.work = options, work
        self.build, self.gguf = options.build.resolve(), options.model.resolve()
        self.file = smollm2.File(self.gguf)
        self.train = self.file.examples(options.data / "train.jsonl")
        self.valid = self.file.examples(options.data / "valid.jsonl")
        self.environment = {**os.environ, "HONE_HOME": str(work / "home")}
        base = self.file.model()
        self.adapter = write_adapter(work / "adapter", base, 0.02)
        self.start = write_adapter(work / "start", base, 0.0)

    def driver(self, request):
        (self.work / "request.json").write_text(json.dumps(request))
        subprocess.run([self.build / "tests/golden_driver", self.gguf, self.adapter, self.work / "request.json",
                        self.work / "answer.safetensors"], check=True, env=self.environment)
        return load_file(self.work / "answer.safetensors")

    def hone(self, *arguments):
        done = subprocess.run([self.build / "hone", *map(str, arguments), "--json"], env=self.environment, stdout=subprocess.PIPE,
                              text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def logits(self):
        tokenizer = self.file.tokenizer()
        sequences = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
        got = self.driver(dict(mode="logits", sequences=sequences))
        model = smollm2.with_adapter(self.file.model(), self.adapter)
        with torch.no_grad():
            for i, ids in enumerate(sequences):
                want = model(input_ids=torch.tensor([ids])).logits[0]
                report(f"logits of text {i} ({len(ids)} tokens), adapter", (got[f"logits.{i}"] - want).abs().max().item(), 1e-3)
                with model.disable_adapter():
                    want = model(input_ids=torch.tensor([ids])).logits[0]
                report(f"logits of text {i} ({len(ids)} tokens), base", (got[f"base_logits.{i}"] - want).abs().max().item(), 1e-3)

    def gradients(self):
        examples = self.train[:8]
        got = self.driver(dict(mode="gradients", examples=examples))
        model = smollm2.with_adapter(self.file.model(), self.adapter)
        count = sum(sum(e["trained"][1:]) for e in examples)
        for e in examples:
            (smollm2.loss_sum(model, [e])[0] / count).backward()
        errors = {k: ((got[f"gradient.{k}"] - p.grad).norm() / p.grad.norm()).item() for k, p in smollm2.trained_parameters(model).items()}
        worst = max(errors, key=errors.get)
        print(f"      {len(errors)} gradients, median relative error {sorted(errors.values())[len(errors) // 2]:.3g}, worst {worst}")
        report("worst relative error of a gradient", errors[worst], 1e-4)

    def run_of_hone(self, name, adapter, *flags):
        events = self.hone("train", "--model", self.gguf, "--data", self.options.data / "train.jsonl", "--valid",
                           self.options.data / "valid.jsonl", "--adapter", adapter, "--no-shuffle", "--compute", "f32", "--output", self.work / name, *flags)
        return [e for e in events if e["event"] == "step"], [e for e in events if e["event"] == "eval"]

    def losses(self):
        steps, _ = self.run_of_hone("losses", self.adapter, "--schedule", "constant", "--warmup-ratio", 0, "--learning-rate", RATE,
                                    "--batch-size", BATCH, "--max-steps", STEPS, "--eval-every", STEPS, "--save-every", STEPS)
        model = smollm2.with_adapter(self.file.model(), self.adapter)
        parameters = list(smollm2.trained_parameters(model).values())
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
        for s, step in enumerate(steps):
            want, norm = smollm2.train_step(model, parameters, optimizer, self.train[s * BATCH:(s + 1) * BATCH], RATE)
            report(f"loss of step {s + 1} ({want:.6f}, hone {step['loss']:.6f}; norm {norm:.4f}, hone {step['gradient_norm']:.4f})",
                   abs(step["loss"] - want) / want, 1e-4)
        outcome.append(len(steps) == STEPS)

    def adapter_of_run(self):
        if not (self.work / "losses").exists():
            self.losses()
        return self.work / "losses" / "adapter"

    def adapter_in_peft(self):
        """The adapter directory that a run leaves, as transformers and PEFT load it."""
        run = self.adapter_of_run().parent
        tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
        same = sum(tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=True, return_dict=False) == e["ids"]
                   for line, e in zip(open(self.options.data / "valid.jsonl", encoding="utf-8"), self.valid))
        report("rows that the adapter's tokenizer and template render otherwise", len(self.valid) - same, 0)
        model = smollm2.with_adapter(self.file.model(attention="sdpa"), run / "adapter").eval()
        few = self.work / "few.jsonl"
        few.write_text("".join(open(self.options.data / "valid.jsonl", encoding="utf-8").readlines()[:16]), encoding="utf-8")
        want = smollm2.held_out_loss(model, self.valid[:16])
        got = self.hone("eval", "--model", self.gguf, "--adapter", run / "adapter", "--data", few, "--compute", "f32")[-1]["loss"]
        report(f"held-out loss of the adapter in PEFT ({want:.6f}) and hone ({got:.6f}), relative", abs(got - want) / want, 1e-4)

    def answers(self):
        adapter = self.adapter_of_run()
        tokenizer = AutoTokenizer.from_pretrained(adapter)
        model, parted = smollm2.with_adapter(self.file.model(attention="sdpa"), adapter).eval(), 0
        for line in open(self.options.data / "valid.jsonl", encoding="utf-8").readlines()[:8]:
            question = json.loads(line)["messages"][0]
            ids = tokenizer.apply_chat_template([question], add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
            with torch.no_grad():
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER_TOKENS, do_sample=False,
                                     eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)[0, ids.shape[1]:]
            want = tokenizer.decode([i for i in out.tolist() if i != tokenizer.eos_token_id])
            got = self.hone("generate", "--model", self.gguf, "--adapter", adapter, "--prompt", question["content"], "--max-tokens", ANSWER_TOKENS,
                            "--temperature", 0, "--compute", "f32")[-1]
            if got["text"] != want:
                print(f"      {question['content']}\n      PEFT {want!r}\n      hone {got['text']!r}")
            parted += got["text"] != want
            outcome.append(got["prompt_tokens"] == ids.shape[1])
        report("greedy answers that part from PEFT's, of 8", parted, 1)

    def epoch_of_peft(self):
        """The demo's settings, written out: 16 examples a step, AdamW, 3 % warm-up, cosine to 0, clip 1."""
        model = smollm2.with_adapter(self.file.model(attention="sdpa"), self.start)
        parameters = list(smollm2.trained_parameters(model).values())
        optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)
        peak, total = 5e-4 * (2000 / 576) ** 0.781, math.ceil(len(self.train) / 16)
        warm, begin, losses = math.ceil(0.03 * total), time.time(), []
        for s in range(1, total + 1):
            rate = peak * s / warm if s <= warm else peak * 0.5 * (1 + math.cos(math.pi * (s - 1 - warm) / (total - warm)))
            losses.append(smollm2.train_step(model, parameters, optimizer, self.train[(s - 1) * 16:s * 16], rate)[0])
            print(f"      PEFT step {s}: {losses[-1]:.5f}, {time.time() - begin:.0f} s", flush=True)
        return dict(losses=losses, held_out=smollm2.held_out_loss(model, self.valid), seconds=time.time() - begin)

    def epoch(self):
        stored = self.options.peft
        if stored and stored.exists():
            peft = json.loads(stored.read_text())
        else:
            peft = self.epoch_of_peft()
            if stored:
                stored.write_text(json.dumps(peft))
        steps, evals = self.run_of_hone("epoch", self.start, "--epochs", 1)
        for step, want in zip(steps, peft["losses"]):
            print(f"      step {step['step']}: PEFT {want:.5f}, hone {step['loss']:.5f}")
        outcome.append(len(steps) == len(peft["losses"]))
        print(f"      held-out loss: PEFT {peft['held_out']:.5f} ({peft['seconds']:.0f} s), hone {evals[-1]['loss']:.5f} "
              f"({sum(s['seconds'] for s in steps):.0f} s)")
        report("held-out loss of an epoch, relative", abs(evals[-1]["loss"] - peft["held_out"]) / peft["held_out"], 5e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--epoch", action="store_true")
    parser.add_argument("--peft", type=pathlib.Path, metavar="FILE", help="keep PEFT's epoch here, and take it from here when it is there")
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="hone-golden-") as work:
        comparison = Comparison(options, pathlib.Path(work))
        for part in [options.only] if options.only else PARTS[:-1] + ["epoch"] * options.epoch:
            getattr(comparison, part)()
    print(f"{sum(outcome)} passed, {len(outcome) - sum(outcome)} failed")
    return not all(outcome)


sys.exit(main())
