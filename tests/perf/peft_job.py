#!/usr/bin/env python3
"""Hugging Face PEFT on a chat JSONL as its users run it: all rows of a batch padded to the longest, one forward
and backward pass a step, transformers' own loss and attention. Prints one JSON object.

    peft_job.py MODEL.gguf TRAIN.jsonl [--steps 16] [--batch 8] [--dtype float32|bfloat16] [--threads 2]"""
import argparse
import json
import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
import torch

import smollm2

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("train")
parser.add_argument("--steps", type=int, default=16)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--max-length", type=int, default=2048)
options = parser.parse_args()

torch.set_num_threads(options.threads)
torch.manual_seed(0)
file = smollm2.File(options.model)
rows = file.examples(options.train, options.max_length)
model = smollm2.new_adapter(file.model(getattr(torch, options.dtype), "sdpa"), rank=16, alpha=16).train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.0)

tokens, padded_tokens, seconds, losses = 0, 0, [], []
for step in range(options.steps):
    batch = [rows[(step * options.batch + j) % len(rows)] for j in range(options.batch)]
    ids, labels = smollm2.padded(batch)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(batch):
        mask[i, :len(row["ids"])] = 1
    begin = time.perf_counter()
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds.append(time.perf_counter() - begin)
    losses.append(loss.item())
    tokens += int(mask.sum())
    padded_tokens += ids.numel()
print(json.dumps(dict(tokens=tokens, padded_tokens=padded_tokens, seconds=sum(seconds), tokens_per_second=tokens / sum(seconds), losses=losses,
                      peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, torch=torch.__version__)))
