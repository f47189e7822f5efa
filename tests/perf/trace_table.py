#!/usr/bin/env python3
"""trace_table.py TRACE: where the time of the last whole step of a trace.json goes (`hone train --trace N`): by operation and
by operation with its sizes."""
import collections
import json
import sys

text = open(sys.argv[1]).read().rstrip()
events = [e for e in json.loads(text if text.endswith("]") else text.rstrip(",") + "]") if e["ph"] == "X"]
step = [e for e in events if e["tid"] == 1][-1]
inside = [e for e in events if e["tid"] == 3 and step["ts"] <= e["ts"] < step["ts"] + step["dur"]]
total = sum(e["dur"] for e in inside)
print(f"{step['name']}: {step['dur'] / 1e3:.2f} ms, {total / 1e3:.2f} in {len(inside)} operations")
for key, most in ("cat", 40), ("name", 60):
    sums, work, counts = collections.Counter(), collections.Counter(), collections.Counter()
    for e in inside:
        sums[e[key]] += e["dur"]
        work[e[key]] += e["dur"] * e["args"].get("gigaflops_per_second", 0)
        counts[e[key]] += 1
    print()
    for name, micro in sums.most_common(most):
        rate = f"{work[name] / micro:8.0f} GFLOP/s" if work[name] and micro else ""
        print(f"{micro / 1e3:9.3f} ms {100 * micro / total:5.1f} %  {counts[name]:4d} x {micro / counts[name]:9.1f} us  {name:40} {rate}")
