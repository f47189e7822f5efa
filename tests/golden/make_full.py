#!/usr/bin/env python3
"""Writes full/<model>/: what transformers computes when every weight of the tiny models of data/ is trained. Needs what
make_models.py needs; what the files hold stands in README.md.

    python3 tests/golden/make_full.py [OTHER]"""
import json
import os
import pathlib
import sys

import torch
from safetensors.torch import save_file

import make_models

DATA = pathlib.Path(__file__).parent / "data"
# A head of its own, a head that is the embedding, biases.
BASES = ["llama-untied", "llama-tied", "llama-bias", "llama-mlp-bias", "qwen2"]


def compute(base, directory, examples):
    facts, tensors = dict(model=base.name, examples=examples), {}
    model = make_models.load_base(base).train()  # nothing drops out
    parameters = dict(model.named_parameters())  # tied weights once
    loss, facts["supervised_tokens"] = make_models.step_loss(model, examples)
    loss.backward()
    facts["loss"] = loss.item()
    for key, p in parameters.items():
        tensors[f"gradient.{key}"] = p.grad.clone()
    optimizer = torch.optim.AdamW(parameters.values(), lr=make_models.LEARNING_RATE, weight_decay=0.0)
    steps = []
    for s in range(make_models.STEPS):
        rows = [(s * make_models.BATCH + j) % len(examples) for j in range(make_models.BATCH)]
        optimizer.zero_grad(set_to_none=True)
        loss, count = make_models.step_loss(model, [examples[r] for r in rows])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), make_models.CLIP)
        optimizer.step()
        steps.append(dict(rows=rows, loss=loss.item(), gradient_norm=norm.item(), supervised_tokens=count))
    facts["run"] = dict(optimizer=dict(name="adamw", learning_rate=make_models.LEARNING_RATE), steps=steps)
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "golden.safetensors")
    make_models.write_json(directory / "golden.json", facts, indent=None)
    return facts


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "full"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for base in BASES:
        directory = out / base
        directory.mkdir(parents=True, exist_ok=True)
        facts = compute(DATA / base, directory, json.loads((DATA / base / "golden.json").read_text())["examples"])
        print(base, "loss", facts["loss"], "run", [round(s["loss"], 4) for s in facts["run"]["steps"]])


main()
