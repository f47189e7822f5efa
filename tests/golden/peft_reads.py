#!/usr/bin/env python3
"""Adapters of every form that hone writes, as PEFT loads them: the loss over the rows must be hone's.

    peft_reads.py HONE [WORD]        needs what make_models.py needs; WORD: only cases with it; trains three steps of the tiny models of data/"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch

import make_models
import make_variants

DATA = pathlib.Path(__file__).resolve().parent / "data"
CASES = [
    ("llama-tied", "--lora-rank 4"),
    ("qwen2", "--lora-rank 8 --lora-rslora --lora-alpha 3 --lora-init gaussian"),
    ("llama-untied", "--lora-rank 4 --lora-rank-pattern q_proj=2,layers\\.1\\.mlp\\..*=7 --lora-alpha-pattern o_proj=9,0.mlp.up_proj=2.5"),
    ("llama-untied", "--method dora --lora-rank 4 --neftune-alpha 5"),
    ("qwen2", "--method dora --lora-rank 4 --lora-rslora --lora-alpha 3 --lora-dropout 0.1 --lora-rank-pattern v_proj=2 --lora-targets q_proj,v_proj,down_proj"),
    ("llama-scaled", "--lora-rank 4 --lora-layers 1 --lora-targets v_proj,down_proj"),
    ("llama-untied", "--lora-rank 4 --lora-alpha 8 --lora-init pissa --lora-dropout 0.1"),
    ("llama-tied", "--lora-rank 4 --lora-alpha 3 --lora-rslora --lora-init pissa --lora-init-steps 2 --lora-rank-pattern o_proj=7 --lora-alpha-pattern k_proj=2"),
    ("qwen2", "--lora-rank 4 --lora-init olora --lora-layers 1"),
    ("llama-scaled", "--lora-rank 4 --lora-init loftq --method qlora"),
    ("llama-untied", "--lora-rank 4 --lora-targets all-linear,embed_tokens,lm_head --lora-rank-pattern lm_head=6"),
    ("llama-tied", "--lora-rank 4 --lora-targets layers\\.1\\..*,embed_tokens --modules-to-save lm_head"),
    ("llama-untied", "--lora-rank 4 --modules-to-save embed_tokens,lm_head,norm"),
    ("llama-tied", "--lora-rank 4 --modules-to-save embed_tokens --lora-init pissa"),
    ("llama-tied", "--lora-rank 4 --modules-to-save lm_head,layers\\.1\\.input_layernorm"),
    ("qwen2", "--lora-rank 4 --modules-to-save q_proj,layers\\.0\\..*norm"),
    ("llama-scaled", "--lora-rank 4 --lora-targets layers\\.0\\..*_proj,1.self_attn.k_proj --lora-rank-pattern layers.0.mlp.up_proj=2"),
]


def main():
    hone, failed = pathlib.Path(sys.argv[1]).resolve(), 0
    for base, flags in [c for c in CASES if sys.argv[2:] == [] or sys.argv[2] in c[1]]:
        with tempfile.TemporaryDirectory() as work:
            directory = pathlib.Path(work)
            run = [hone, "train", "--model", DATA / base, "--data", DATA / base / "rows.jsonl", *flags.split(), "--learning-rate", "0.02",
                   "--epochs", "1", "--batch-size", "4", "--compute", "f32", "--output", directory / "run"]
            subprocess.run(run, check=True, capture_output=True)
            adapter = directory / "run/adapter"
            done = subprocess.run([hone, "eval", "--model", DATA / base, "--adapter", adapter, "--data", DATA / base / "rows.jsonl", "--compute",
                                   "f32", "--json"], check=True, capture_output=True, text=True)
            got = json.loads(done.stdout.splitlines()[-1])["loss"]
            examples = json.loads((DATA / base / "golden.json").read_text())["examples"]
            rounded = make_variants.nf4 if "qlora" in flags else None
            model = make_models.load_adapter(DATA / base, adapter, rounded).eval()
            with torch.no_grad():
                want = make_models.step_loss(model, examples)[0].item()
                with model.disable_adapter():
                    before = make_models.step_loss(model, examples)[0].item()
            ok = abs(got - want) <= 1e-5 * want and abs(before - want) > 1e-3
            failed += not ok
            print("ok  " if ok else "FAIL", base, flags, f"hone {got:.7f}, PEFT {want:.7f}, the base {before:.4f}")
    return failed != 0


sys.exit(main())
