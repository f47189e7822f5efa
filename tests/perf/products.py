#!/usr/bin/env python3
"""torch's rate of products: products.py THREADS MxNxK,… f32|bf16 prints {"MxNxK": flops per second}."""
import json
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[3]]
rates = {}
for shape in sys.argv[2].split(","):
    m, n, k = map(int, shape.split("x"))
    x, w = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    best, end = float("inf"), time.perf_counter() + 0.7
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - begin)
    rates[shape] = 2.0 * m * n * k / best
print(json.dumps(rates))
