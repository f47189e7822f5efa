#!/usr/bin/env python3
"""Real signals to a real run. The first one waits for the step under way if that ends within 5 s and abandons it if
not, saves and leaves with 130; another, later than a second after it, leaves at once. Each run then goes on with
--resume and ends with the bytes of a run that was never stopped.

    test_interrupt.py PROGRAM"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

program = pathlib.Path(sys.argv[1]).resolve()
model = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-tied"
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-interrupt-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}
ROWS = 200  # of a step
SECONDS = {"short": 3, "long": 10}  # of the step that is interrupted, the second of three


def write_data(name, tokens):
    """Three steps, the second of about so many tokens: a character is one, or nearly."""
    path = work / f"{name}.jsonl"
    with open(path, "w") as out:
        for size in (800, tokens, 800):
            for row in range(ROWS):
                out.write(json.dumps({"text": ("ab cd ef gh " * 20)[row % 7:][:max(4, int(size / ROWS))]}) + "\n")
    return path


def command(name, output):
    return [program, "train", "--device", "ref", "--model", model, "--data", work / f"{name}.jsonl", "--batch-size", str(ROWS),
            "--epochs", "1", "--no-shuffle", "--save-every", "1000", "--output", work / output]


def train(name, output, *more):
    subprocess.run([*command(name, output), *more], env=environment, stdout=subprocess.DEVNULL, check=True)


def steps(output):
    log = work / output / "events.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # the last one may be torn
    return [e for e in map(json.loads, lines) if e["event"] == "step"]


def saved(output):
    return sorted(p.name for p in (work / output / "checkpoints").glob("*"))


def interrupted(name, output, numbers, later=()):
    """Starts a run and sends signals in its second step, at once and then after so many seconds each. Returns the exit
    status and how long it took to leave after the last one."""
    process = subprocess.Popen(command(name, output), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not steps(output):
        assert process.poll() is None, f"{output}: it ended before its first step with {process.returncode}"
        time.sleep(0.02)
    time.sleep(0.3)
    for number in numbers:
        process.send_signal(number)
    for wait, number in later:
        time.sleep(wait)
        if process.poll() is None:
            process.send_signal(number)
    asked = time.monotonic()
    return process.wait(600), time.monotonic() - asked


def case(what, name, output, numbers, later, expected, seconds):
    """What a run does depends on how long it expects the step to take; other work on the machine may mislead it, but not
    each time."""
    for attempt in range(5):
        shutil.rmtree(work / output, ignore_errors=True)
        status, took = interrupted(name, output, numbers, later)
        assert status == 130, (what, status)
        if saved(output) == expected and took < seconds:
            break
        print(f"{what}: saved {saved(output)}, left after {took:.1f} s; again")
    else:
        raise AssertionError(what)
    train(name, output, "--resume")
    bits = [(work / o / "adapter/adapter_model.safetensors").read_bytes() for o in (f"whole-{name}", output)]
    assert bits[0] == bits[1], f"{what}: then another result than that of a run that was never stopped"
    print("ok ", what)


def flooded(tries=10):
    """Signals without a pause to a run of short steps, until it has left: with its own status, and with a word of how it ended."""
    quick = [program, "train", "--model", model, "--data", model / "rows.jsonl", "--lora-rank", "2", "--batch-size", "2", "--epochs", "60000",
             "--max-steps", "100000", "--save-every", "100000", "--output", work / "flooded", "--json"]
    for attempt in range(tries):
        shutil.rmtree(work / "flooded", ignore_errors=True)
        process = subprocess.Popen(quick, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while b'"event":"step"' not in process.stdout.readline():
            pass
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
        last = process.stdout.read().splitlines()[-1:]
        assert process.returncode == 130, process.returncode
        assert last and json.loads(last[0])["error"]["code"] == "interrupted", last
    print("ok  signals that follow do not change how it leaves")


def main():
    write_data("trial", 4000)
    train("trial", "whole-trial")
    flooded()
    rate = max(e["tokens"] / e["seconds"] for e in steps("whole-trial"))
    for name, seconds in SECONDS.items():
        write_data(name, min(seconds * rate, ROWS * 230))
        train(name, f"whole-{name}")
        print(f"{name}: {steps(f'whole-{name}')[1]['seconds']:.1f} s")

    term, interrupt = signal.SIGTERM, signal.SIGINT
    # `timeout` and other wrappers signal the process, and then its group: that is one request.
    case("a short step is finished, and saved", "short", "finished", (term, term), (), ["step-00000002"], 30)
    case("a long step is abandoned, the one before is saved", "long", "abandoned", (interrupt,), (), ["step-00000001"], 5)
    case("a second signal leaves at once", "short", "left", (interrupt,), [(1.2, interrupt)], [], 0.5)


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
