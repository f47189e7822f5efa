#!/usr/bin/env python3
"""The demo's epoch in f32, bf16 and f16: the held-out losses lie within 0.3 % of f32's.

    tests/golden/precision_epoch.py HONE MODEL DATA [--work FOLDER] [COMPUTE …]

DATA is a folder with train.jsonl and valid.jsonl (examples/devil/prepare.py); MODEL is SmolLM2-135M-Instruct. A run that FOLDER
holds already goes on, or is taken as it is. Each is measured as it was trained, and once more in f32. Some ten minutes each on 2 cores."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

bound = 0.003  # of f32's loss


def told(command):
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def losses(hone, model, data, work, compute):
    """As trained, and of the same adapter in f32."""
    run = work / compute
    told([hone, "train", "--model", model, "--data", data / "train.jsonl", "--valid", data / "valid.jsonl", "--epochs", 1,
          "--compute", compute, "--output", run, "--resume", "--json"])
    measured = [event["loss"] for event in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if event["event"] == "eval"]
    again = told([hone, "eval", "--model", model, "--adapter", run / "adapter", "--data", data / "valid.jsonl", "--compute", "f32", "--json"])
    return measured[-1], again["loss"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hone", "model", "data"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("compute", nargs="*", default=["f32", "bf16", "f16"])
    options = parser.parse_args()
    work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="hone-precision-"))
    work.mkdir(parents=True, exist_ok=True)
    failed, exact = 0, None
    for compute in dict.fromkeys(["f32", *options.compute]):
        own, in_f32 = losses(options.hone.resolve(), options.model, options.data, work, compute)
        exact = exact or own
        worst = max(abs(own / exact - 1), abs(in_f32 / exact - 1))
        failed += worst > bound
        print(f"{compute}: held-out loss {own:.5f}, measured in f32 {in_f32:.5f}, {100 * worst:.3f} % from f32's", flush=True)
    print(f"{len(options.compute) - failed} passed, {failed} failed")
    return failed > 0


sys.exit(main())
