#!/usr/bin/env python3
"""Writes starts/<name>/: adapters as PEFT makes them of the weights they stand beside (PiSSA, OLoRA, LoftQ) on the tiny models of
data/, and the losses of ten steps from there. Needs what make_models.py needs, and bitsandbytes; what the files hold stands in README.md.

    python3 tests/golden/make_starts.py [OTHER [NAME…]]"""
import json
import os
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import loftq_utils
from safetensors.torch import save_file

import make_models
import make_variants

DATA = pathlib.Path(__file__).parent / "data"
# flags: the same for hone. A scale other than 1 shows whether the start divides by it.
STARTS = {
    "pissa": ("llama-untied", dict(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=make_models.TARGETS),
              "--lora-rank 4 --lora-alpha 8 --lora-init pissa"),
    "pissa-rslora": ("llama-tied", dict(r=4, lora_alpha=3, use_rslora=True, init_lora_weights="pissa", target_modules=["q_proj", "o_proj", "down_proj"],
                                        rank_pattern={"o_proj": 7}),
                     "--lora-rank 4 --lora-alpha 3 --lora-rslora --lora-init pissa --lora-targets q_proj,o_proj,down_proj --lora-rank-pattern o_proj=7"),
    "olora": ("qwen2", dict(r=4, lora_alpha=6, init_lora_weights="olora", target_modules=make_models.TARGETS),
              "--lora-rank 4 --lora-alpha 6 --lora-init olora"),
    # PEFT leaves the scale out of LoftQ, so it is 1 here.
    "loftq": ("llama-scaled", dict(r=4, lora_alpha=4, target_modules=make_models.TARGETS),
              "--lora-rank 4 --lora-init loftq --base-type nf4"),
}
STEPS, BATCH, RATE = 10, 4, 1e-3


def loftq(model, base):
    """PEFT's decomposition of what quantising takes. Its own quantising has scales in f32; these are codes themselves, as hone's."""
    exact = dict(make_models.load_base(base).named_modules())
    for key, module in model.base_model.model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        weight = exact[key].weight.data
        rounded = make_variants.nf4(weight)
        factors = loftq_utils._low_rank_decomposition(weight - rounded, reduced_rank=module.r["default"])
        module.base_layer.weight.data = rounded
        module.lora_A["default"].weight.data, module.lora_B["default"].weight.data = factors["R"], factors["L"]


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "starts"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, (base, settings, flags) in STARTS.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        examples = json.loads((DATA / base / "golden.json").read_text())["examples"]
        model = get_peft_model(make_models.load_base(DATA / base), LoraConfig(lora_dropout=0.0, task_type="CAUSAL_LM", **settings)).train()
        if name == "loftq":
            with torch.no_grad():
                loftq(model, DATA / base)
        parameters = make_models.trained_parameters(model)
        first = {k: p.detach().clone().contiguous() for k, p in parameters.items()}
        optimizer, losses = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.0), []
        for s in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss, _ = make_models.step_loss(model, [examples[(s * BATCH + j) % len(examples)] for j in range(BATCH)])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), make_models.CLIP)
            optimizer.step()
            losses.append(loss.item())
        (out / name).mkdir(parents=True, exist_ok=True)
        save_file(first, out / name / "start.safetensors")
        make_models.write_json(out / name / "golden.json", dict(model=base, flags=flags, learning_rate=RATE, batch_size=BATCH, losses=losses), indent=None)
        print(name, "on", base, losses[0], losses[-1])


main()
