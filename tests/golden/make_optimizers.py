#!/usr/bin/env python3
"""Ten steps of each optimizer as torch and transformers take them, from the same start and gradients.

    python3 make_optimizers.py [OUTPUT.json]        (torch, transformers, peft; see README.md)

Lion is in neither: it is written down here as its paper does (Chen et al. 2023, algorithm 2)."""
import json
import pathlib
import sys

import torch
from peft.optimizers import create_loraplus_optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers.optimization import Adafactor

SHAPES, STEPS, MOST = [(5, 7), (16, 3), (9,)], 10, 1.5
NAMES = ["layers.0.q_proj.lora_A", "layers.0.q_proj.lora_B", "layers.0.q_proj.lora_magnitude_vector"]


class Lion(torch.optim.Optimizer):
    def __init__(self, parameters, lr, betas, weight_decay):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (one, two), lr = group["betas"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * torch.sign(one * m + (1 - one) * p.grad))
                m.mul_(two).add_(p.grad, alpha=1 - two)


CASES = [
    ("adamw", {"rate": 1e-2, "decay": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
     lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=False)),
    ("sgd", {"rate": 0.1, "decay": 0.05, "momentum": 0.9},
     lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05, foreach=False)),
    ("sgd", {"rate": 0.1, "momentum": 0.8, "nesterov": 1},
     lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, foreach=False)),
    ("sgd", {"rate": 0.1, "momentum": 0.8, "dampening": 0.3},
     lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.3, foreach=False)),
    ("sgd", {"rate": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1, foreach=False)),
    ("lion", {"rate": 1e-2, "decay": 0.1, "beta1": 0.9, "beta2": 0.99}, lambda p: Lion(p, 1e-2, (0.9, 0.99), 0.1)),
    ("adafactor", {"rate": 1e-2, "decay": 0.1, "decay_rate": 0.8, "clip": 1},
     lambda p: Adafactor(p, lr=1e-2, weight_decay=0.1, scale_parameter=False, relative_step=False)),
    ("adafactor", {"rate": 1e-2, "decay_rate": 0.7, "clip": 0.5, "scale": 1},
     lambda p: Adafactor(p, lr=1e-2, decay_rate=-0.7, clip_threshold=0.5, scale_parameter=True, relative_step=False)),
]


class Adapter(torch.nn.Module):
    """The three tensors under PEFT's names."""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in zip(NAMES, tensors):
            owner = self
            for word in name.split(".") + ["default"]:
                if not hasattr(owner, word):
                    owner.add_module(word, torch.nn.Module())
                owner = getattr(owner, word)
            owner.weight = torch.nn.Parameter(tensor.clone())


def groups_case(start, gradients):
    """LoRA+ as PEFT groups the parameters, with the average of swa_utils beside it."""
    model = Adapter(start)
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8, loraplus_weight_decay=0.1, foreach=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    parameters = list(model.parameters())
    for step in gradients:
        for p, g in zip(parameters, step):
            p.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(parameters, MOST)
        optimizer.step()
        average.update_parameters(model)
    return {"optimizer": "adamw", "hyper": {"rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "max_norm": MOST, "average": 0.7},
            "names": NAMES, "b_ratio": 8, "decay": 0.1, "after": flat(parameters), "average_after": flat(average.module.parameters())}


def flat(tensors):
    return [x for t in tensors for x in t.detach().flatten().tolist()]


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "optimizers.json"
    torch.manual_seed(4)
    start = [torch.randn(s) * 0.5 for s in SHAPES]
    gradients = [[torch.randn(s) * 10 ** (i % 3 - 2) for s in SHAPES] for i in range(STEPS)]
    cases = []
    for name, hyper, make in CASES:
        parameters = [torch.nn.Parameter(t.clone()) for t in start]
        optimizer = make(parameters)
        for step in gradients:
            for p, g in zip(parameters, step):
                p.grad = g.clone()
            torch.nn.utils.clip_grad_norm_(parameters, MOST)
            optimizer.step()
        cases.append({"optimizer": name, "hyper": {**hyper, "max_norm": MOST}, "after": flat(parameters)})
    cases.append(groups_case(start, gradients))
    facts = {"shapes": [[s[0], s[1] if len(s) > 1 else 1] for s in SHAPES], "start": flat(start),
             "gradients": [flat(g) for g in gradients], "cases": cases}
    out.write_text(json.dumps(facts) + "\n")


main()
