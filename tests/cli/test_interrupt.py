#!/usr/bin/env python3
"""Real signals to a real run. The first one waits for the step under way if that ends within 5 s and abandons it if
not, saves and leaves with 130; another, later than a second after it, leaves at once. Each run then goes on with
--resume and ends with the bytes of a run that was never stopped.

How long steps take by the clock is another thing on a busy machine, so nothing here waits for a step by time: a run is
halted (SIGSTOP) where a signal is to reach it, and kept halted where a step is to last long.

    test_interrupt.py PROGRAM"""
import json
import os
import pathlib
import resource
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
SECONDS = {"short": 0.3, "long": 2}  # of a processor: the step that is interrupted, the second of three


def write_data(name, tokens):
    """Three steps, the second of about so many tokens: a character is one, or nearly."""
    path = work / f"{name}.jsonl"
    with open(path, "w") as out:
        for size in (800, tokens, 800):
            for row in range(ROWS):
                out.write(json.dumps({"text": ("ab cd ef gh " * 20)[row % 7:][:max(4, int(size / ROWS))]}) + "\n")
    return path


def command(name, output):
    return [program, "train", "--device", "ref", "--threads", "1", "--model", model, "--data", work / f"{name}.jsonl", "--batch-size", str(ROWS),
            "--epochs", "1", "--no-shuffle", "--save-every", "1000", "--output", work / output]


def train(name, output, *more):
    subprocess.run([*command(name, output), *more], env=environment, stdout=subprocess.DEVNULL, check=True)


def steps(output):
    log = work / output / "events.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # the last one may be torn
    return [e for e in map(json.loads, lines) if e["event"] == "step"]


def saved(output):
    return sorted(p.name for p in (work / output / "checkpoints").glob("*"))


class Halted:
    """A run that goes on only while it is let."""

    def __init__(self, name, output):
        self.output = output
        self.process = subprocess.Popen(command(name, output), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def halt(self, seconds=0.0):
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)

    def go_on(self, seconds=0.0):
        self.process.send_signal(signal.SIGCONT)
        time.sleep(seconds)

    def reach_second_step(self, slowly):
        """Halts in the second step; `slowly`: the first one takes a hundred times as long as it would. Returns whether
        the second has not ended before."""
        while not steps(self.output):
            assert self.process.poll() is None, f"{self.output}: it ended before its first step with {self.process.returncode}"
            if slowly:
                self.halt(0.5)
                self.go_on()
            time.sleep(0.005)
        self.halt(0.1)
        return len(steps(self.output)) == 1

    def ended(self):
        """Whether it ends in the next half a second, or sooner."""
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True


# What is done to a run that is halted in its second step.

def ask_twice(run):
    """`timeout` and other wrappers signal the process, and then its group: that is one request."""
    run.process.send_signal(signal.SIGTERM)
    run.go_on(0.01)
    run.process.send_signal(signal.SIGTERM)


def ask(run):
    run.process.send_signal(signal.SIGINT)
    run.go_on()


def ask_and_hold(run):
    """It hears the signal, and is then held for longer than it would wait for a step."""
    ask(run)
    while not run.ended():
        run.halt(5.5)
        run.go_on()


def ask_again_later(run):
    ask(run)
    if not run.ended():
        run.halt(1.2)
        ask(run)


def case(what, names, output, act, expected, slowly=False):
    """A run that was halted too late to be asked in its second step, or whose step is too short or too long by the clock of
    this moment, is tried again, with the data of these names by turns."""
    for attempt in range(10):
        name = names[attempt % len(names)]
        shutil.rmtree(work / output, ignore_errors=True)
        run = Halted(name, output)
        there = run.reach_second_step(slowly)
        if there:
            act(run)
        else:
            run.process.kill()
        status = run.process.wait(600)
        if there and (status, saved(output)) == (130, expected):
            break
        print(f"{what}: {'left with' if there else 'missed,'} {status}, saved {saved(output)}; again")
    else:
        raise AssertionError(what)
    train(name, output, "--resume")
    bits = [(work / o / "adapter/adapter_model.safetensors").read_bytes() for o in (f"whole-{name}", output)]
    assert bits[0] == bits[1], f"{what}: then another result than that of a run that was never stopped"
    print("ok ", what)


def flooded(tries=10):
    """Signals without a pause to a run of short steps, for as long as they count as one request or until it has left: with
    its own status, and with a word of how it ended."""
    quick = [program, "train", "--model", model, "--data", model / "rows.jsonl", "--lora-rank", "2", "--batch-size", "2", "--epochs", "60000",
             "--max-steps", "100000", "--save-every", "100000", "--output", work / "flooded", "--json"]
    for attempt in range(tries):
        shutil.rmtree(work / "flooded", ignore_errors=True)
        process = subprocess.Popen(quick, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while b'"event":"step"' not in process.stdout.readline():
            pass
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 0.9:
            process.send_signal(signal.SIGTERM)
        last = process.stdout.read().splitlines()[-1:]
        assert process.returncode == 130, process.returncode
        assert last and json.loads(last[0])["error"]["code"] == "interrupted", last
    print("ok  signals that follow do not change how it leaves")


def cut(more):
    """A model's file is written over in its place while a run reads it: its pages are gone."""
    here, output = work / "cut", work / "cut-run"
    for path in (here, output):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(model, here)
    whole = (here / "model.safetensors").read_bytes()
    run = [program, "train", "--model", here, "--data", model / "rows.jsonl", "--lora-rank", "2", "--batch-size", "2", "--threads", "1",
           "--epochs", "60000", "--max-steps", "2000", "--save-every", "100", "--output", output]
    process = subprocess.Popen([*run, *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not saved("cut-run"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    os.truncate(here / "model.safetensors", 4096)
    out, told = process.communicate(timeout=600)
    assert process.returncode == 3, (process.returncode, told)
    if more:
        assert json.loads(out.splitlines()[-1])["error"]["code"] == "input" and not told, (out[-300:], told)
    else:
        assert told.splitlines()[-1].startswith(b"hone: a file cannot be read any more") and b"--resume" in told, told
    (here / "model.safetensors").write_bytes(whole)
    subprocess.run([*run, "--resume"], env=environment, stdout=subprocess.DEVNULL, check=True)
    print("ok  a model that is cut during a run ends it with a sentence, and the run goes on")


def main():
    for more in ([], ["--json"]):
        cut(more)
    flooded()
    write_data("trial", 4000)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    train("trial", "whole-trial")
    rate = sum(e["tokens"] for e in steps("whole-trial")) / (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    for name, seconds in SECONDS.items():
        write_data(name, min(seconds * rate, ROWS * 230))
        train(name, f"whole-{name}")
        print(f"{name}: {steps(f'whole-{name}')[1]['seconds']:.1f} s")

    case("a short step is finished, and saved", ["short"], "finished", ask_twice, ["step-00000002"])
    case("a step that promises to be long is abandoned, the one before is saved", ["long"], "abandoned", ask, ["step-00000001"], slowly=True)
    case("and so is one that turns out to be", ["long"], "held", ask_and_hold, ["step-00000001"])
    case("a second signal leaves at once", ["long", "short"], "left", ask_again_later, [])


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
