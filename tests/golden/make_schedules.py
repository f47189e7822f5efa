#!/usr/bin/env python3
"""The learning rates of transformers' schedules, as shares of the peak.

    python3 make_schedules.py [OUTPUT.json]        (torch, transformers; see README.md)

hone's step s after the warm-up is scheduler step s - 1. In the warm-up it is scheduler step s: transformers begins at
rate 0."""
import json
import math
import pathlib
import sys

import torch
from transformers import optimization as o

TOTAL = 40
CASES = [  # hone's settings, and the schedule of w warm-up steps
    ({"schedule": "constant", "warmup-ratio": 0.1}, lambda p, w: o.get_constant_schedule_with_warmup(p, w)),
    ({"schedule": "linear", "warmup-ratio": 0.1}, lambda p, w: o.get_linear_schedule_with_warmup(p, w, TOTAL)),
    ({"schedule": "cosine", "warmup-ratio": 0.03}, lambda p, w: o.get_cosine_schedule_with_warmup(p, w, TOTAL)),
    ({"schedule": "cosine", "warmup-ratio": 0.2, "min-learning-rate-ratio": 0.1},
     lambda p, w: o.get_cosine_with_min_lr_schedule_with_warmup(p, w, TOTAL, min_lr_rate=0.1)),
    ({"schedule": "cosine-restarts", "warmup-ratio": 0.1, "cosine-cycles": 3},
     lambda p, w: o.get_cosine_with_hard_restarts_schedule_with_warmup(p, w, TOTAL, num_cycles=3)),
    ({"schedule": "wsd", "warmup-ratio": 0.1}, lambda p, w: o.get_wsd_schedule(p, w, math.ceil(0.2 * TOTAL), TOTAL, decay_type="1-sqrt")),
    ({"schedule": "wsd", "warmup-ratio": 0, "wsd-decay-ratio": 0.31, "wsd-shape": "linear"},
     lambda p, w: o.get_wsd_schedule(p, w, math.ceil(0.31 * TOTAL), TOTAL, decay_type="linear")),
    ({"schedule": "wsd", "warmup-ratio": 0, "wsd-decay-ratio": 0.5, "wsd-shape": "cosine", "min-learning-rate-ratio": 0.2},
     lambda p, w: o.get_wsd_schedule(p, w, math.ceil(0.5 * TOTAL), TOTAL, decay_type="cosine", min_lr_ratio=0.2)),
    ({"schedule": "inverse-sqrt", "warmup-ratio": 0.1}, lambda p, w: o.get_inverse_sqrt_schedule(p, w)),
    ({"schedule": "inverse-sqrt", "warmup-ratio": 0}, lambda p, w: o.get_inverse_sqrt_schedule(p, w)),
]


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "schedules.json"
    cases = []
    for settings, make in CASES:
        warmup = math.ceil(settings["warmup-ratio"] * TOTAL)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
        share = make(optimizer, warmup).lr_lambdas[0]
        cases.append({"settings": {k: str(v) for k, v in settings.items()},
                      "rates": [share(s if s <= warmup else s - 1) for s in range(1, TOTAL + 1)]})
    out.write_text(json.dumps({"total": TOTAL, "cases": cases}) + "\n")


main()
