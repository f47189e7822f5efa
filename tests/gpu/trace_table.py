#!/usr/bin/env python3
"""trace_table.py TRACE: where the time of a traced run goes (HONE_CUDA_TRACE): the last run of each program, by
operation and by operation with its sizes."""
import collections
import json
import sys

events = json.loads(open(sys.argv[1]).read().rstrip().rstrip(",") + "]")
programs = collections.defaultdict(lambda: collections.defaultdict(list))
for event in events:
    programs[event["pid"]][event["tid"]].append(event)
for nodes, runs in sorted(programs.items()):
    last = runs[max(runs)]
    total = sum(e["dur"] for e in last)
    print(f"program of {nodes} nodes: {total / 1e3:.2f} ms in its run {max(runs)}")
    for key, most in (("cat", 40), ("name", 40)):
        sums, counts = collections.Counter(), collections.Counter()
        for event in last:
            sums[event[key]] += event["dur"]
            counts[event[key]] += 1
        for name, micro in sums.most_common(most):
            print(f"  {micro / 1e3:9.3f} ms {100 * micro / total:5.1f} %  {counts[name]:4d} x {micro / counts[name]:9.1f} us  {name}")
