#!/usr/bin/env python3
"""One peer's LoRA or QLoRA steps on one GPU: prints a JSON line with tokens a second and its allocator's peak.

    peer.py unsloth|peft|liger MODEL ROWS lora|qlora none|block|offload [--compile] [--steps 5]

MODEL: a directory in Hugging Face's layout (tests/gpu/make_model.py). A step is ROWS rows of 2,048 random tokens, all trained,
rank 16 on all seven linears, AdamW, gradients clipped at 1. `liger`: PEFT with Liger's kernels; `offload`: Unsloth's checkpoints
in the host's memory. One peer a process, since two of them replace parts of transformers."""
import argparse
import json
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTH, WARM = 2048, 4


def unsloth(options):
    from unsloth import FastLanguageModel  # before torch and transformers, which it changes
    import torch
    how = dict(none=False, block=True, offload="unsloth")[options.recompute]
    model, _ = FastLanguageModel.from_pretrained(options.model, max_seq_length=LENGTH, dtype=torch.bfloat16,
                                                 load_in_4bit=options.method == "qlora")
    model = FastLanguageModel.get_peft_model(model, r=16, lora_alpha=32, lora_dropout=0, bias="none", target_modules=TARGETS,
                                             use_gradient_checkpointing=how, random_state=0, max_seq_length=LENGTH)
    FastLanguageModel.for_training(model, use_gradient_checkpointing=how)
    return model


def peft(options):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    if options.system == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama
        apply_liger_kernel_to_llama()
    more = {}
    if options.method == "qlora":
        more["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                                         bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa", **more)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGETS))
    if options.recompute != "none":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
        model.enable_input_require_grads()
    model.config.use_cache = False
    model.train()
    return torch.compile(model) if options.compile else model


SYSTEMS = dict(unsloth=unsloth, peft=peft, liger=peft)


def steps(model, options):
    """Seconds and losses of the steps, the first WARM of which compile and warm up."""
    import torch
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    generator = torch.Generator("cuda").manual_seed(1)
    seconds, losses = [], []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM + options.steps):
        rows = torch.randint(0, 128000, (options.rows, LENGTH), device="cuda", generator=generator)
        torch.cuda.synchronize()
        begin = time.monotonic()
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.monotonic() - begin)
        losses.append(loss.item())
    return seconds, losses, sum(p.numel() for p in trained)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("model")
    parser.add_argument("rows", type=int)
    parser.add_argument("method", choices=("lora", "qlora"))
    parser.add_argument("recompute", choices=("none", "block", "offload"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    begin = time.monotonic()
    model = SYSTEMS[options.system](options)
    import torch
    loaded = time.monotonic() - begin
    seconds, losses, trained = steps(model, options)
    rate = options.rows * LENGTH / statistics.median(seconds[WARM:])
    print(json.dumps(dict(system=options.system, tokens_per_second=rate, allocator_bytes=torch.cuda.max_memory_allocated(),
                          first_loss=losses[0], last_loss=losses[-1], trained=trained, load_seconds=loaded,
                          first_step_seconds=seconds[0], step_seconds=[round(s, 4) for s in seconds])), flush=True)


main()
