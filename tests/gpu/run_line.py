#!/usr/bin/env python3
"""run_line.py RUN NAME: one line of what a run's events say: losses, tokens a second, memory, held-out losses."""
import json
import sys

events = [json.loads(line) for line in open(sys.argv[1] + "/events.jsonl")]
steps = [e for e in events if e["event"] == "step"]
late = sorted(s["tokens_per_second"] for s in steps[len(steps) // 2:])
held = [f"{e['loss']:.5f}" for e in events if e["event"] == "eval"]
losses = [f"{s['loss']:.5f}" for s in steps]
memory = max(s["memory_bytes"] for s in steps) / 2**30
print("RESULT", sys.argv[2], "losses", *losses[:3], "...", losses[-1], f"{late[len(late) // 2]:.0f} tok/s",
      f"{memory:.2f} GiB", "held out", *held[:1], "...", *held[-1:])
