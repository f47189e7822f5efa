#!/usr/bin/env python3
"""A hundred steps of LoRA by hone and by PEFT on one device from the same adapter, in f32 and in bf16: hone's losses in f32 are
PEFT's to 1e-4, and in bf16 they are no further from f32 than PEFT's are.

    hundred_losses.py HONE MODEL [--device cuda] [--rows 2] [--length 512] [--work FOLDER]

MODEL: tests/gpu/make_model.py's, in Hugging Face's layout, with a token for each byte, so that both see the same tokens. Plain PEFT:
transformers' model in the dtype, adapter and AdamW in f32. Bounds: f32 differs by the order of sums, which a hundred updates
carry on; of bf16 the mean and the largest distance from f32 are compared, hone's with 1.25 times PEFT's, since both are noise."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, RATE, F32_BOUND, NOISE = 100, 1e-3, 1e-4, 1.25
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base(options, dtype):
    return AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa").to(options.device)


def make_adapter(options, path):
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGETS)
    get_peft_model(base(options, torch.bfloat16), config).save_pretrained(path)


def peft_losses(options, texts, adapter, dtype):
    model = PeftModel.from_pretrained(base(options, dtype), adapter, is_trainable=True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    losses = []
    for step in range(STEPS):
        chosen = texts[step * options.rows:(step + 1) * options.rows]
        rows = torch.tensor([tokenizer(t).input_ids + [tokenizer.eos_token_id] for t in chosen], device=options.device)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def hone_losses(options, data, adapter, compute):
    run = options.work / f"run-{compute}"
    shutil.rmtree(run, ignore_errors=True)
    subprocess.run([options.hone, "train", "--device", options.device, "--model", options.model, "--data", data, "--adapter", adapter,
                    "--compute", compute, "--max-length", str(options.length), "--batch-size", str(options.rows), "--no-shuffle",
                    "--schedule", "constant", "--warmup-ratio", "0", "--learning-rate", str(RATE), "--max-steps", str(STEPS),
                    "--save-every", str(STEPS), "--output", run], check=True, stdout=subprocess.DEVNULL)
    return [e["loss"] for e in map(json.loads, open(run / "events.jsonl")) if e["event"] == "step"]


def distance(losses, exact):
    """Mean and largest, relative."""
    away = [abs(a / b - 1) for a, b in zip(losses, exact, strict=True)]
    return statistics.mean(away), max(away)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hone", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--work", type=pathlib.Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    options.work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="hone-losses-"))
    adapter, data = options.work / "start", options.work / "rows.jsonl"
    options.work.mkdir(parents=True, exist_ok=True)
    need = STEPS * options.rows
    texts = [json.loads(line)["text"][: options.length - 1] for line in open(options.model / "rows.jsonl")]
    texts = (texts * (need // len(texts) + 1))[:need]
    data.write_text("".join(json.dumps(dict(text=t)) + "\n" for t in texts))
    make_adapter(options, adapter)
    exact = peft_losses(options, texts, adapter, torch.float32)
    found = {"hone f32": hone_losses(options, data, adapter, "f32"), "hone bf16": hone_losses(options, data, adapter, "bf16"),
             "peft bf16": peft_losses(options, texts, adapter, torch.bfloat16)}
    away = {name: distance(losses, exact) for name, losses in found.items()}
    print(f"PEFT in f32: {exact[0]:.5f} at first, {exact[-1]:.5f} at last")
    for name, (mean, most) in away.items():
        print(f"RESULT {name}: {found[name][-1]:.5f} at last, {mean:.2e} from it in the mean, {most:.2e} at most")
    failed = (away["hone f32"][1] > F32_BOUND) + any(own > NOISE * peer for own, peer in zip(away["hone bf16"], away["peft bf16"]))
    print(f"{2 - failed} passed, {failed} failed")
    return failed > 0


raise SystemExit(main())
