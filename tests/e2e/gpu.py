#!/usr/bin/env python3
"""What a run does with a GPU, on a machine without one: the device is a processor under its name (pretend_gpu.c).

    tests/e2e/gpu.py HONE MODULES [CASE ...]     MODULES: the folder of that module

Runs in a temporary directory; every case prints "ok" or what it saw, and the last line counts them."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from cases import case, run_cases  # beside this file

hone, modules = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
TINY = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-tied"
here = pathlib.Path(tempfile.mkdtemp(prefix="hone-gpu-"))
bin = here / "bin"
TRAIN = ["--device", "cuda", "--model", TINY, "--data", TINY / "rows.jsonl", "--batch-size", "4", "--lora-rank", "4", "--epochs", "4",
         "--compute", "f32", "--max-steps", "6", "--save-every", "2"]
CLASSES = ("weights", "adapter", "gradient", "optimizer", "activation", "workspace", "process", "context")
MIB = 1 << 20


def run(*arguments, status=0, **pretend):
    """One run of the program; `pretend`: what the GPU is like (pretend_gpu.c)."""
    environment = {**os.environ, "HONE_HOME": str(here / "home"), "HONE_MODULES": str(modules), **{f"PRETEND_{k.upper()}": str(v) for k, v in pretend.items()}}
    done = subprocess.run([bin / "hone", *map(str, arguments)], cwd=here, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert status in (None, done.returncode), f"hone {' '.join(map(str, arguments))}: status {done.returncode}, not {status}\n{done.stderr[-2000:]}{done.stdout[-2000:]}"
    return done


def events(directory, kind):
    return [e for e in map(json.loads, (here / directory / "events.jsonl").read_text().splitlines()) if e["event"] == kind]


def losses(directory):
    return {e["step"]: e["loss"] for e in events(directory, "step")}


@case
def the_plan_counts_the_context_and_the_process_stands_beside_it():
    plan = json.loads(run("plan", *TRAIN, "--json").stdout)
    assert plan["context_bytes"] == 64 * MIB and plan["process_bytes"] == 0 < plan["host_bytes"], plan
    assert plan["peak_bytes"] == sum(plan[f"{c}_bytes"] for c in CLASSES), plan
    text = run("plan", *TRAIN).stdout
    assert "driver and libraries" in text and "on the host" in text and "  process " not in text, text


@case
def memory_bounds_the_context_too():
    """What is asked for is what fits: a MiB less than the refusal names is refused, and as much is taken."""
    refusal = run("plan", *TRAIN, "--memory", "65MiB", "--json", status=4)
    error = json.loads(refusal.stdout or refusal.stderr)["error"]
    assert "driver's context" in error["why"], error
    named = int(error["fix"].split("--memory ")[1].split("MiB")[0])
    plan = json.loads(run("plan", *TRAIN, "--memory", f"{named}MiB", "--json").stdout)
    assert (named - 1) * MIB <= plan["peak_bytes"] <= named * MIB, (named, plan["peak_bytes"])
    run("plan", *TRAIN, "--memory", f"{named - 1}MiB", status=4)


@case
def a_refusal_names_another_way_with_its_figure():
    way = ["--micro-batch-tokens", "1024", "--recompute"]
    peak = {keep: json.loads(run("plan", *TRAIN, *way, keep, "--json").stdout)["peak_bytes"] for keep in ("none", "block")}
    between = (peak["none"] + peak["block"]) // 2
    refusal = run("plan", *TRAIN, *way, "none", "--memory", str(between), status=4).stderr
    assert f"Try --recompute block ({peak['block'] / MIB:.2f} MiB)" in refusal, refusal
    run("plan", *TRAIN, *way, "block", "--memory", str(between))


@case
def a_gpu_that_others_fill_is_told():
    done = run("train", *TRAIN, "--output", "full", mib=1, status=4)
    assert done.stderr.count("\n") == 1 and "the GPU's free memory is" in done.stderr and "End other programs, to have" in done.stderr, done.stderr
    assert not (here / "full").exists()


@case
def an_event_tells_how_the_weights_came():
    run("train", *TRAIN, "--output", "told")
    (event,) = events("told", "upload")
    assert event["bytes"] > 0 and event["seconds"] > 0 and event["bytes_per_second"] > 0 and event["ready_seconds"] > 0, event
    assert event["made_bytes"] > 0 and event["made_seconds"] > 0, event


@case
def a_gpu_that_is_lost_leaves_the_checkpoint_and_the_run_goes_on():
    run("train", *TRAIN, "--output", "whole")
    shutil.rmtree(here / "lost", ignore_errors=True)
    for fail in range(1, 400):
        done = run("train", *TRAIN, "--output", "lost", fail=fail, status=1)
        if (here / "lost/checkpoints").exists():
            break
        shutil.rmtree(here / "lost", ignore_errors=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "the GPU is lost" in done.stderr, (fail, done.returncode, done.stderr)
    run("train", *TRAIN, "--output", "lost", "--resume")
    assert losses("lost") == losses("whole"), (losses("lost"), losses("whole"))
    result = "adapter/adapter_model.safetensors"
    assert (here / "lost" / result).read_bytes() == (here / "whole" / result).read_bytes()


# The program looks for modules beside itself first, where a real one may stand.
bin.mkdir()
shutil.copy(hone, bin / "hone")
failed = run_cases(sys.argv[3:])
shutil.rmtree(here, ignore_errors=True)
sys.exit(1 if failed else 0)
