#!/usr/bin/env python3
"""Ten steps of each optimizer as torch and transformers take them, from the same start and gradients.

    python3 make_optimizers.py [OUTPUT.json]        (torch, transformers, peft, bitsandbytes; see README.md)

Lion is in neither: it is written down here as its paper does (Chen et al. 2023, algorithm 2).

Muon is torch.optim.Muon, whose orthogonalisation is told to stay in f32; a vector is AdamW's, as its documentation has it.

AdamW in 8 bits is bitsandbytes' own update for CPUs, but that it rounds with the function that bitsandbytes keeps for devices without kernels of
their own, which takes the nearest level. (Its library for CPUs looks levels up in steps of 2^-15 of the largest magnitude, so that what is smaller,
0 too, becomes 2e-5 of it; CUDA takes the nearest.)"""
import json
import pathlib
import sys

import bitsandbytes
import torch
import torch.optim._muon
from bitsandbytes.backends.cpu import ops as on_cpu
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
    ("muon", {"rate": 1e-2, "decay": 0.1, "momentum": 0.95, "nesterov": 1, "rounds": 5, "adjust": 0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
     lambda p: Muon(p, 1e-2, 0.1, adjust_lr_fn="match_rms_adamw")),
    ("muon", {"rate": 1e-2, "momentum": 0.8, "rounds": 3, "adjust": 1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
     lambda p: Muon(p, 1e-2, 0, momentum=0.8, nesterov=False, ns_steps=3)),
]


class Muon:
    """torch.optim.Muon for matrices and AdamW for vectors, orthogonalised in f32."""

    def __init__(self, parameters, rate, decay, **options):
        self.parts = [torch.optim.Muon([p for p in parameters if p.ndim == 2], lr=rate, weight_decay=decay, **options),
                      torch.optim.AdamW([p for p in parameters if p.ndim != 2], lr=rate, weight_decay=decay, foreach=False)]

    def step(self):
        kept, torch.bfloat16 = torch.bfloat16, torch.float32
        try:
            for part in self.parts:
                part.step()
        finally:
            torch.bfloat16 = kept


def nearest_level(values, levels, largest, codes, block):
    """bitsandbytes.backends.default.ops' quantize_blockwise, to the letter but for torch.compile."""
    blocks = values.flatten().split(block)
    largest.copy_(torch.stack([b.abs().max() for b in blocks]))
    scaled = torch.cat([torch.clamp(b * (1.0 / m.clamp(min=1e-38)), -1, 1) for b, m in zip(blocks, largest)])
    codes.copy_(torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8).reshape(codes.shape))


on_cpu._quant_blockwise_fp32_direct = nearest_level


class AdamW8bit(bitsandbytes.optim.AdamW8bit):
    def to_gpu(self):
        pass


def eight_case():
    """Parts of several blocks and a last short one, of one element less than what is quantised, and a vector. Gradients of many sizes, and a block that
    has none; they follow from a formula, so that they need no room in the file. Numbers are written as the hexadecimal digits of their bytes."""
    shapes, seldom = [(65, 64), (4095,), (9,)], 7
    rate, beta1, beta2, decay = torch.tensor([1e-2, 0.9, 0.999, 0.1]).tolist()  # as f32 holds them: another 1 - beta2 would be other codes

    def numbers(n, step):
        i = torch.arange(n, dtype=torch.int64)
        number = ((i * 2654435761 + step * 40503 * 65537) % 2**32).to(torch.float64) / 2**31 - 1
        return (number * 0.125 ** (i % 7) * (i // 256 % 5 != 3)).to(torch.float32)

    def digits(t):
        return t.detach().flatten().numpy().tobytes().hex()
    parameters = [torch.nn.Parameter(numbers(torch.Size(s).numel(), 90 + k).reshape(s)) for k, s in enumerate(shapes)]
    optimizer = AdamW8bit(parameters, lr=rate, betas=(beta1, beta2), weight_decay=decay)
    for step in range(STEPS):
        for k, p in enumerate(parameters):
            p.grad = numbers(p.numel(), step + 3 * k).reshape(p.shape)
        optimizer.step()
    large, small = (optimizer.state[p] for p in parameters[:2])
    assert small["state1"].dtype == torch.float32
    return {"optimizer": "adamw8bit", "shapes": [[65, 64], [4095, 1], [9, 1]],
            "hyper": {"rate": rate, "decay": decay, "beta1": beta1, "beta2": beta2, "epsilon": 1e-8}, "steps": STEPS, "seldom": seldom,
            "maps": [digits(optimizer.name2qmap[k]) for k in ("dynamic", "udynamic")],
            "codes": [digits(large[k]) for k in ("state1", "state2")], "largest": [digits(large[k]) for k in ("absmax1", "absmax2")],
            "after": [digits(p.flatten()[::1 if k == 0 else seldom]) for k, p in enumerate(parameters)]}


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
    out.with_name("optimizer_8bit.json").write_text(json.dumps(eight_case()) + "\n")


main()
