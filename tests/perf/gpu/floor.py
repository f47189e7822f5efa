#!/usr/bin/env python3
"""floor.py SHAPE ROWS bf16|fp8 [SECONDS]: tokens a second of what a LoRA step cannot do without, as a JSON line: the frozen
linears' products forward and back (q, k, v one product, gate and up one), attention forward and back through cuDNN, the head,
each layer with weights of its own, in a step's order, over and over for SECONDS (20), the later half counted: that long, the
clock falls to what the card sustains."""
import json
import pathlib
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "gpu"))
from make_model import SHAPES

LENGTH, CHUNK = 2048, 2048  # CHUNK: rows of the head at a time
FP8 = torch.float8_e4m3fn


def product(kind):
    """y = x Wᵀ as the step makes it; an fp8 weight lies there in both layouts."""
    if kind == "bf16":
        return lambda x, w: x @ w
    one = torch.ones((), device="cuda")
    return lambda x, w: torch._scaled_mm(x, w, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)


def random(rows, columns, kind):
    values = torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.02
    return values.to(FP8) if kind == "fp8" else values


def linears(c):
    """(k, n) of one layer's products, those of one input joined."""
    d, f, kv = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * c["head_dim"]
    q = c["num_attention_heads"] * c["head_dim"]
    return [(d, q + 2 * kv), (q, d), (d, 2 * f), (f, d)]


def one_step(c, rows, kind):
    """A function that queues one step."""
    tokens, mm = rows * LENGTH, product(kind)
    layers = []
    for _ in range(c["num_hidden_layers"]):
        pairs = []
        for k, n in linears(c):
            w = random(n, k, kind)
            # column-major operands: Wᵀ as a view; for fp8 the gradient's W is a second copy
            pairs.append((w.t(), w.t().contiguous().t() if kind == "fp8" else w))
        layers.append(pairs)
    inputs = [random(tokens, k, kind) for k, _ in linears(c)]
    gradients = [random(tokens, n, kind) for _, n in linears(c)]
    heads = lambda count: torch.randn(rows, count, LENGTH, c["head_dim"], device="cuda", dtype=torch.bfloat16, requires_grad=True)
    q, k, v = heads(c["num_attention_heads"]), heads(c["num_key_value_heads"]), heads(c["num_key_value_heads"])
    head = random(c["vocab_size"], c["hidden_size"], "bf16")
    x, g = random(CHUNK, c["hidden_size"], "bf16"), random(CHUNK, c["vocab_size"], "bf16")

    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            for pairs in layers:
                for at in (0, 1, 2, 3):
                    mm(inputs[at], pairs[at][0])
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                for at in (3, 2, 1, 0):
                    mm(gradients[at], pairs[at][1])
                torch.autograd.grad(out, (q, k, v), q.detach())
            for _ in range(tokens // CHUNK):
                x @ head.t()
                g @ head
    return run


def main():
    name, rows, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    limit = float(sys.argv[4]) if len(sys.argv) > 4 else 20
    run = one_step(SHAPES[name], rows, kind)
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin, seconds = time.monotonic(), []
    while time.monotonic() - begin < limit:
        start = time.monotonic()
        run()
        torch.cuda.synchronize()
        seconds.append(time.monotonic() - start)
    late = sorted(seconds[len(seconds) // 2:])
    print(json.dumps(dict(system="floor", kind=kind, tokens_per_second=rows * LENGTH / late[len(late) // 2],
                          fastest=rows * LENGTH / min(seconds), steps=len(seconds))))


main()
