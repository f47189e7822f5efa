#!/usr/bin/env python3
"""plan_line.py RUN NAME [RATE]: one line of how a run's peak differs from its plan, how its weights came to the GPU and
how soon after them the first step began. Fails where the peak is off by more than 2 % and 16 MiB, the step began later
than 3 s, or less than 70 % of RATE (bytes a second, of a copy from page-locked memory) were reached."""
import json
import sys

MIB = 2**20
events = [json.loads(line) for line in open(sys.argv[1] + "/events.jsonl")]
plan, upload = ([e for e in events if e["event"] == kind][-1] for kind in ("plan", "upload"))
steps = [e for e in events if e["event"] == "step"]
planned, measured = plan["peak_bytes"], max(s["memory_bytes"] for s in steps)
begun = steps[0]["time"] - steps[0]["seconds"] - upload["time"] + upload["ready_seconds"]
rate = upload["bytes_per_second"]
print("RESULT", sys.argv[2], f"planned {planned / MIB:.0f} MiB, measured {(measured - planned) / MIB:+.1f}, of them driver and libraries {plan['context_bytes'] / MIB:.0f}, on the host {plan['host_bytes'] / MIB:.0f};",
      f"{upload['bytes'] / 1e9:.2f} GB at {rate / 1e9:.1f} GB/s, {upload['made_bytes'] / 1e9:.2f} GB made in {upload['made_seconds']:.2f} s; first step begun {begun:.2f} s after them")
wrong = abs(measured - planned) > max(16 * MIB, 0.02 * planned)
slow = begun > 3 or (len(sys.argv) > 3 and rate < 0.7 * float(sys.argv[3]))
sys.exit(wrong or slow)
