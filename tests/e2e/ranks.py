#!/usr/bin/env python3
"""A run that several processes share, on a tiny model: the result of one process, the same bits each time, and what happens
when one of them ends.

    tests/e2e/ranks.py HONE [CASE ...]

HONE_TEST_RANKS names the devices instead of three processors, as "cuda:0,cuda:1" does on a machine with two GPUs."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from cases import case, run_cases  # beside this file

hone = pathlib.Path(sys.argv[1]).resolve()
TINY = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-tied"
here = pathlib.Path(tempfile.mkdtemp(prefix="hone-ranks-"))
environment = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")}, "HONE_HOME": str(here / "home")}
TRAIN = ["--model", TINY, "--data", TINY / "rows.jsonl", "--valid-split", "0.2", "--epochs", "40", "--compute", "f32"]
LORA = ["--lora-rank", "4", "--lora-dropout", "0.1"]
DEVICES = os.environ.get("HONE_TEST_RANKS", "cpu,cpu,cpu").split(",")
ONE = ["--device", DEVICES[0]]
TWO = ["--device", ",".join(DEVICES[:2])]


def start(*arguments, **more):
    return subprocess.Popen([hone, *map(str, arguments)], cwd=here, env={**environment, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, text=True)


def end(process, status=0):
    out, error = process.communicate(timeout=200)
    assert process.returncode == status, f"status {process.returncode}, not {status}\n{error[-1500:]}{out[-1500:]}"
    return error


def train(output, *flags, status=0):
    size = [] if "--batch-size" in flags else ["--batch-size", "8"]
    return end(start("train", *TRAIN, *size, *flags, "--output", output), status)


def told(output, *kinds):
    return [e for e in map(json.loads, (here / output / "events.jsonl").read_text().splitlines()) if e["event"] in kinds]


def losses(output):
    """The last word on each step."""
    words = {(e["event"], e["step"]): e["loss"] for e in told(output, "step", "eval")}
    return [words[key] for key in sorted(words)]


def result(output):
    files = sorted(p for name in ("adapter", "model") for p in (here / output / name).glob("*.safetensors"))
    assert files, output
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in files]


def near(one, many, bound=1e-5):
    a, b = losses(one), losses(many)
    assert len(a) == len(b) and all(abs(x - y) <= bound * abs(x) for x, y in zip(a, b)), (a[:8], b[:8])


@case
def several_processes_reach_what_one_does():
    for name, flags in {"lora": LORA, "full": ["--method", "full"], "dora": ["--method", "dora", *LORA], "muon": [*LORA, "--optimizer", "muon", "--ema-decay", "0.9"],
                        "parts": [*LORA, "--micro-batch-tokens", "64"]}.items():
        common = [*flags, "--max-steps", "12", "--eval-every", "4"]
        train(f"{name}-one", *common, *ONE)
        for ranks in range(2, len(DEVICES) + 1):
            train(f"{name}-{ranks}", *common, "--device", ",".join(DEVICES[:ranks]))
            near(f"{name}-one", f"{name}-{ranks}", 5e-5 if name == "muon" else 1e-5)
            for event in told(f"{name}-{ranks}", "step"):
                alone = next(e for e in told(f"{name}-one", "step") if e["step"] == event["step"])
                assert (event["tokens"], event["supervised_tokens"]) == (alone["tokens"], alone["supervised_tokens"])
        train(f"{name}-again", *common, *TWO)
        assert result(f"{name}-again") == result(f"{name}-2") and losses(f"{name}-again") == losses(f"{name}-2"), name


@case
def a_step_may_have_fewer_examples_than_there_are_processes():
    common = [*LORA, "--batch-size", "1", "--max-steps", "6"]
    train("few-one", *common, *ONE)
    train("few", *common, *TWO)
    near("few-one", "few")


@case
def launchers_tell_the_rank_in_the_environment():
    common = [*LORA, "--max-steps", "5"]
    train("listed", *common, *TWO)
    for output, rank, size, there in (("torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
                                      ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
                                      ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")):
        both = [start("train", *TRAIN, "--batch-size", "8", *common, "--device", DEVICES[0].split(":")[0], "--output", output, **{rank: str(r), size: "2", there: "2"}) for r in (1, 0)]
        for process in both:
            end(process)
        assert result(output) == result("listed"), output
    error = end(start("train", *TRAIN, "--batch-size", "8", *common, "--output", "far", RANK="0", WORLD_SIZE="4", LOCAL_WORLD_SIZE="2"), 2)
    assert "several machines" in error and not (here / "far").exists(), error


@case
def rows_that_show_the_time_are_the_same_in_all_processes():
    """The second process starts when the clock shows another time; alone, with the first one's clock, the run is the same."""
    template = here / "time.jinja"
    template.write_text("{% for m in messages %}{{ strftime_now('%S%M%S%H%S') }}{{ m.content }}{% endfor %}")
    common = [*TRAIN, "--batch-size", "8", *LORA, "--max-steps", "5", "--device", DEVICES[0].split(":")[0], "--chat-template", template]
    both = [start("train", *common, "--output", "time", RANK="0", WORLD_SIZE="2")]
    time.sleep(2.1)
    both.append(start("train", *common, "--output", "time", RANK="1", WORLD_SIZE="2"))
    for process in both:
        end(process)
    end(start("train", "--recipe", here / "time/recipe.yaml", "--device", DEVICES[0].split(":")[0], "--output", "time-one"))
    near("time-one", "time")


@case
def processes_with_other_settings_do_not_mix():
    """Whatever makes another result, and when all of them meet."""
    for flag, values in {"--seed": "01", "--learning-rate": ("1e-3", "2e-3"), "--lora-rank": "24", "--eval-every": "12", "--save-every": "12", "--nan-policy": ("stop", "skip")}.items():
        lora = [] if flag == "--lora-rank" else LORA
        both = [start("train", *TRAIN, "--batch-size", "8", *lora, "--max-steps", "5", "--device", DEVICES[0].split(":")[0], flag, values[r], "--output", "mixed", RANK=str(r), WORLD_SIZE="2") for r in (0, 1)]
        errors = [end(process, 2) for process in both]
        assert all("other settings or data" in error for error in errors) and not (here / "mixed").exists(), (flag, errors)


def children(process):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found]


def until_step(output, step):
    limit = time.time() + 60
    while time.time() < limit:
        try:
            if told(output, "step")[-1]["step"] >= step:
                return
        except (FileNotFoundError, IndexError, json.JSONDecodeError):
            pass
        time.sleep(0.002)
    raise AssertionError(f"{output} does not reach step {step}")


def gone(pids):
    limit = time.time() + 10
    while time.time() < limit:
        if not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("a process of the run lives on")


LONG = [*LORA, "--max-steps", "150", "--save-every", "3", "--micro-batch-tokens", "64"]


@case
def whichever_process_is_killed_the_run_ends_and_goes_on_to_the_same_bits():
    train("whole", *LONG, *TWO)
    for rank in 0, 1:
        process = start("train", *TRAIN, "--batch-size", "8", *LONG, *TWO, "--output", f"killed-{rank}")
        until_step(f"killed-{rank}", 10)
        both = children(process)
        os.kill(both[rank], signal.SIGKILL)
        error = end(process, 128 + signal.SIGKILL)
        gone(both)
        train(f"killed-{rank}", *LONG, *TWO, "--resume")
        assert result(f"killed-{rank}") == result("whole") and losses(f"killed-{rank}") == losses("whole"), error


@case
def a_process_that_is_stopped_is_named_and_waited_for():
    if os.environ.get("HONE_TEST_RANKS"):
        return  # nothing of it is the devices'
    process = start("train", *TRAIN, *LORA, "--batch-size", "8", *TWO, "--output", "stopped")
    until_step("stopped", 1)
    stopped = children(process)[1]
    os.kill(stopped, signal.SIGSTOP)
    said = process.stderr.readline()
    os.kill(stopped, signal.SIGCONT)
    assert said == f"process 1 ({stopped}) was stopped; the others wait for it\n", said
    end(process)


@case
def ctrl_c_saves_and_the_run_goes_on_to_the_same_bits():
    for number in signal.SIGINT, signal.SIGTERM:
        output = f"stopped-{number}"
        process = start("train", *TRAIN, "--batch-size", "8", *LONG, *TWO, "--output", output)
        until_step(output, 10)
        process.send_signal(number)
        error = end(process, 130)
        assert "stopped" in error and "--resume" in error, error
        assert told(output, "checkpoint")[-1]["step"] == told(output, "step")[-1]["step"], "what was reached is kept"
        train(output, *LONG, *TWO, "--resume")
        assert result(output) == result("whole") and losses(output) == losses("whole")


@case
def a_run_goes_on_with_another_number_of_processes():
    process = start("train", *TRAIN, "--batch-size", "8", *LONG, *TWO, "--output", "fewer")
    until_step("fewer", 10)
    process.send_signal(signal.SIGINT)
    end(process, 130)
    train("fewer", *LONG, *ONE, "--resume")
    near("whole", "fewer", 1e-4)
    assert any(TWO[1] in change for change in told("fewer", "resume")[0]["changed"])


@case
def one_sentence_says_what_is_wrong():
    for flags, words in ((["--device", "cpu,"], 'no device ""'), (["--device", "cpu,nothing"], 'no device "nothing"'),
                         (["--device", "cpu", "--world-size", "2", "--rank", "2"], "no rank 2"),
                         (["--device", "cpu,cpu", "--data", "nothing.jsonl"], "cannot open nothing.jsonl"),
                         (["--device", ",".join(["cpu"] * 65)], "more than 64")):
        error = end(start("train", *TRAIN, "--batch-size", "8", *LORA, "--max-steps", "2", *flags, "--output", "bad"), 3 if "nothing.jsonl" in flags else 2)
        assert words in error and not (here / "bad").exists(), error
    error = train("early", *LORA, "--max-steps", "30", "--early-stopping", "2", "--early-stopping-threshold", "9", "--eval-every", "1", *TWO)
    assert told("early", "early_stop"), error


failed = run_cases(sys.argv[2:])
shutil.rmtree(here, ignore_errors=True)
sys.exit(failed)
