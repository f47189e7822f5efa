#!/usr/bin/env python3
"""kill -9 and Ctrl-C at random moments, and the bits of an undisturbed run.

    tests/e2e/kills.py HONE [CASE …]

Each case is a run of a tiny model that saves after every step or nearly so. It is started, killed after a random time (or
interrupted, when it saves and leaves), resumed, killed again …, and in the end left alone. Then the result, the losses of every step and evaluation (of a step
that was done twice the later line counts) and what ended the run must be those of a run that nobody disturbed.

Each run is killed 4 times, with HONE_TEST_LONG 16 times, which makes more than 200 of all cases; HONE_TEST_KILLS=N: N times."""
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from cases import case, run_cases  # beside this file

hone = pathlib.Path(sys.argv[1]).resolve()
golden = pathlib.Path(__file__).resolve().parent.parent / "golden/data"
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-kills-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}
kills = int(os.environ.get("HONE_TEST_KILLS") or (16 if os.environ.get("HONE_TEST_LONG") else 4))
moments = random.Random(5)
LLAMA = golden / "llama-tied"
TRAIN = ["--model", LLAMA, "--data", LLAMA / "rows.jsonl", "--valid-split", "0.3", "--epochs", "90"]
LORA = ["--lora-rank", "4", "--lora-dropout", "0.1"]
USUAL = {"--batch-size": 4, "--micro-batch-tokens": 256}  # by itself the latter follows the free memory
OPTIMIZERS = ("adamw", "adamw8bit", "sgd", "lion", "adafactor", "muon")
count = {"all": 0, "inside a save": 0}


def start(directory, flags):
    method = [] if "full" in flags else LORA
    usual = [part for pair in USUAL.items() if pair[0] not in flags for part in pair]
    return subprocess.Popen([str(x) for x in [hone, "train", *TRAIN, *method, *usual, *flags, "--output", directory, "--resume"]], cwd=work, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def finish(process, what):
    _, error = process.communicate(timeout=1200)
    assert process.returncode == 0, f"{what}: status {process.returncode}: {error.decode(errors='replace')[-500:]}"


def lines(directory):
    return map(json.loads, (work / directory / "events.jsonl").read_text().splitlines())


def told(directory):
    """The last word on each step: its loss and rate, the held-out loss, the end."""
    words = {}
    for event in lines(directory):
        facts = {k: event.get(k) for k in ("loss", "learning_rate", "gradient_norm", "best_step", "best_loss", "evaluations", "result_step", "eval_loss")}
        if event["event"] in ("step", "eval", "early_stop", "done"):
            words[event["event"], event["step"]] = facts
    return words


def is_done(directory):
    return (work / directory / "events.jsonl").exists() and any(event == "done" for event, _ in told(directory))


def digest(directory):
    results = [work / directory / name for name in ("adapter/adapter_model.safetensors", "model/model.safetensors")]
    return hashlib.sha256(next(path for path in results if path.exists()).read_bytes()).hexdigest()


def is_saving(directory):
    try:
        return any(entry.name.endswith(".partial") for entry in os.scandir(work / directory / "checkpoints"))
    except FileNotFoundError:
        return False


def wait_for_save(process, directory, end):
    """Until one of the next checkpoints is begun, and a little longer."""
    for wanted in [True, False] * moments.randint(0, 5) + [True]:
        while process.poll() is None and time.time() < end and is_saving(directory) != wanted:
            pass
    time.sleep(moments.uniform(0, 0.001))


def wait_until_it_listens(process):
    """For the signal, as it does before it writes anything; before that, nothing of ours is running. False: it has ended."""
    while process.poll() is None:
        try:
            caught = next(line for line in open(f"/proc/{process.pid}/status") if line.startswith("SigCgt:"))
        except (OSError, StopIteration):
            continue
        if int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1:
            return True
    return False


def kill(process, directory, longest):
    """At a random moment, or inside a save; False: the run was faster."""
    inside = moments.random() < 0.6
    if inside:
        wait_for_save(process, directory, time.time() + longest)
    else:
        time.sleep(moments.uniform(0, longest / 4))
    if process.poll() is not None:
        return False
    polite = moments.random() < (0.1 if inside else 0.4)  # an interrupted save is finished
    if polite and not wait_until_it_listens(process):
        return False
    process.send_signal(signal.SIGINT if polite else signal.SIGKILL)
    _, error = process.communicate(timeout=1200)
    if polite:
        # Where the run had ended, it was too late to be interrupted.
        allowed = (0, 130, -signal.SIGINT) if is_done(directory) else (130,)
        assert process.returncode in allowed, (process.returncode, error[-500:])
    count["all"] += 1
    count["inside a save"] += is_saving(directory)
    return True


def disturb(directory, flags, longest, most):
    """Kills a run up to `most` times and lets it end; how often."""
    for done in range(most):
        process = start(directory, flags)
        if not kill(process, directory, longest):
            finish(process, directory)
            return done
    finish(start(directory, flags), directory)
    return most


def survives(name, *flags):
    """The undisturbed run's events. A run that ends before it was killed often enough is begun once more."""
    begin = time.time()
    finish(start(f"{name}-whole", flags), name)
    longest, left = time.time() - begin, kills
    while left:
        shutil.rmtree(work / name, ignore_errors=True)
        left -= min(left, max(1, disturb(name, flags, longest, left)))
        want, got = told(f"{name}-whole"), told(name)
        assert got.keys() == want.keys(), (name, sorted(got.keys() ^ want.keys()))
        for word in want:
            assert got[word] == want[word], (name, word, want[word], got[word])
        assert digest(name) == digest(f"{name}-whole"), name
    return want


@case
def every_optimizer_goes_on_with_the_same_bits():
    for name in OPTIMIZERS:
        survives(name, "--optimizer", name, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def codes_of_whole_weights_go_on_with_the_same_bits():
    """An adapter of the tiny model is too small to be quantised."""
    for name in ("adamw8bit", "muon"):
        survives(f"full-{name}", "--method", "full", "--optimizer", name, "--max-steps", 20, "--save-every", 1, "--eval-every", 5)


@case
def every_precision_goes_on_with_the_same_bits():
    """In f16 with the scale of its loss."""
    for name in ("bf16", "f16"):
        survives(name, "--compute", name, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def dora_with_dropout_and_noise_goes_on_with_the_same_bits():
    for name in ("adamw", "adafactor"):
        survives(f"dora-{name}", "--method", "dora", "--neftune-alpha", 5, "--optimizer", name, "--max-steps", 30,
                 "--save-every", 1, "--eval-every", 5)


@case
def starts_made_of_the_weights_go_on_with_the_same_bits():
    """A0 and B0 come back from the checkpoint, before the first from the weights."""
    for name, flags in {"pissa": [], "olora": ["--ema-decay", 0.9], "loftq": ["--method", "qlora"]}.items():
        survives(f"start-{name}", "--lora-init", name, *flags, "--compute", "f32", "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def modules_that_are_trained_whole_go_on_with_the_same_bits():
    survives("outer", "--lora-targets", "q_proj,embed_tokens", "--compute", "f32", "--max-steps", 30, "--save-every", 1,
             "--eval-every", 5)
    survives("saved", "--compute", "f32", "--modules-to-save", "embed_tokens,norm", "--ema-decay", 0.9, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def quantised_weights_go_on_with_the_same_bits():
    for kind in ("nf4", "int8"):
        survives(f"qlora-{kind}", "--method", "qlora", "--base-type", kind, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def every_weight_goes_on_with_the_same_bits():
    """Also where the optimizer's state lies in a file."""
    for name, flags in (("full-adamw", ()), ("full-adafactor", ("--optimizer", "adafactor", "--compute", "bf16")), ("full-offloaded", ("--offload-optimizer",))):
        survives(name, "--method", "full", "--max-steps", 20, "--save-every", 1, "--eval-every", 5, *flags)


@case
def steps_of_many_micro_batches_go_on_with_the_same_bits():
    survives("accumulated", "--micro-batch-tokens", 64, "--batch-size", 6, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def rows_in_pieces_go_on_with_the_same_bits():
    survives("pieces", "--piece-rows", 32, "--recompute", "block", "--recompute-span", 2, "--max-steps", 30, "--save-every", 1, "--eval-every", 5)


@case
def the_edges_of_epochs_go_on_with_the_same_bits():
    """An epoch's last step has fewer rows; saved and measured where epochs end, and only there."""
    for batch, every in ((5, 2), (3, 3)):
        survives(f"epochs-{batch}", "--batch-size", batch, "--max-steps", 30, "--save-every", every, "--eval-every", every)
        assert len(list((work / f"epochs-{batch}/checkpoints").iterdir())) == 2  # what --keep says by itself
    rows = len((LLAMA / "rows.jsonl").read_text().splitlines())
    steps = math.ceil((rows - round(0.3 * rows)) / 3)  # of an epoch
    tokens = [event["tokens"] for event in lines("epochs-3-whole") if event["event"] == "step"]
    epochs = [tuple(tokens[at:at + steps]) for at in range(0, len(tokens) - steps + 1, steps)]
    evals = [event for event in lines("epochs-3-whole") if event["event"] == "eval"]
    assert {event["examples"] for event in evals} == {round(0.3 * rows)} and len({event["supervised_tokens"] for event in evals}) == 1, evals
    last = json.loads((work / "epochs-3-whole/checkpoints/step-00000030/state.json").read_text())
    assert last["tokens"] == sum(tokens) == [event["tokens"] for event in lines("epochs-3-whole") if event["event"] == "done"][0], last
    assert len(set(map(sum, epochs))) == 1 and len(set(epochs)) > len(epochs) / 2, epochs  # each example once, in another order each time


def rule_of_early_stopping(losses, patience, threshold):
    """The last step, how many evaluations were no improvement by then, and the best step."""
    best, best_step, stale = math.inf, 0, 0
    for step, loss in losses:
        stale = 0 if loss < best - threshold else stale + 1
        if loss < best:
            best, best_step = loss, step
        if stale == patience:
            return step, stale, best_step
    raise AssertionError("it has not stopped")


@case
def early_stopping_ends_at_the_same_step_with_the_same_result():
    flags = ["--schedule", "constant", "--learning-rate", 0.01, "--max-steps", 90, "--eval-every", 2, "--save-every", 1,
             "--early-stopping", 6, "--early-stopping-threshold", 0.01]
    ends = survives("stopping", *flags)
    done = [facts for (event, _), facts in ends.items() if event == "done"]
    stops = [facts for (event, _), facts in ends.items() if event == "early_stop"]
    assert len(stops) == 1 and done[0]["result_step"] == stops[0]["best_step"], (stops, done)
    best = json.loads((work / f"stopping/checkpoints/step-{stops[0]['best_step']:08d}/state.json").read_text())
    assert best["eval_loss"] == stops[0]["best_loss"] == min(f["loss"] for (e, _), f in ends.items() if e == "eval"), (best, stops)
    assert done[0]["loss"] == ends["step", done[0]["result_step"]]["loss"] and done[0]["eval_loss"] == stops[0]["best_loss"], done
    losses = sorted((step, facts["loss"]) for (event, step), facts in ends.items() if event == "eval")
    last, stale, best_step = rule_of_early_stopping(losses, 6, 0.01)
    assert (losses[-1][0], stops[0]["evaluations"], stops[0]["best_step"]) == (last, stale, best_step), (losses, stops)
    # From the checkpoint before the last: its patience is nearly out already.
    shutil.rmtree(sorted((work / "stopping/checkpoints").iterdir())[-1])
    finish(start("stopping", flags), "stopping")
    assert told("stopping") == ends
    # From the last one: nothing is left to train.
    finish(start("stopping", flags), "stopping")
    resumed = [event for event in lines("stopping") if event["event"] == "resume"]
    assert told("stopping") == ends and resumed[-1]["seconds_left"] == 0, resumed


@case
def a_run_evaluates_and_saves_when_it_is_due():
    """Every so many steps and at the end; with early stopping, what is the best so far as well, and no other."""
    for name, more in {"due": [], "due-best": ["--early-stopping", 50]}.items():
        finish(start(name, ["--max-steps", 20, "--eval-every", 3, "--save-every", 7, "--keep", 99, "--schedule", "constant", "--learning-rate", 0.01, *more]), name)
        losses = {event["step"]: event["loss"] for event in lines(name) if event["event"] == "eval"}
        assert list(losses) == [3, 6, 9, 12, 15, 18, 20], (name, losses)
        best = {step for step in losses if losses[step] <= min(losses[s] for s in losses if s <= step)} if more else set()
        saved = [event["step"] for event in lines(name) if event["event"] == "checkpoint"]
        assert saved == sorted({7, 14, 20} | best), (name, saved, losses)
        assert not more or 0 < len(best - {20}) < 7, best  # or it would not have shown


@case
def as_good_as_the_best_is_no_improvement():
    """Steps too small for the loss's last digit: the first evaluation stays the best one."""
    finish(start("ties", ["--max-steps", 20, "--eval-every", 1, "--early-stopping", 3, "--optimizer", "sgd", "--momentum", 0, "--learning-rate", 1e-9,
                          "--max-grad-norm", 1e-6, "--schedule", "constant", "--compute", "f32"]), "ties")
    ends = told("ties")
    assert len({facts["loss"] for (event, _), facts in ends.items() if event == "eval"}) == 1, ends
    assert [(step, facts["evaluations"], facts["best_step"]) for (event, step), facts in ends.items() if event == "early_stop"] == [(4, 3, 1)], ends


@case
def groups_and_the_average_go_on_with_the_same_bits():
    """The result is the average of the best evaluation, not what the checkpoint trains on."""
    survives("average", "--learning-rate", 0.01, "--max-steps", 40, "--eval-every", 4, "--save-every", 1, "--early-stopping", 3, "--ema-decay", 0.8,
             "--loraplus-ratio", 4, "--weight-decay", 0.1, "--weight-decay-pattern", "layers\\.0\\..*=0,lora_B=0.2", "--learning-rate-pattern", "down_proj=0.5")
    last = sorted((work / "average/checkpoints").iterdir())[-1]
    assert hashlib.sha256((last / "adapter/adapter_model.safetensors").read_bytes()).hexdigest() != digest("average")


@case
def the_average_of_dora_goes_on_with_the_same_bits():
    """Its norms are computed from it at each evaluation, so that no checkpoint holds them."""
    for device in ("cpu", "ref"):
        survives(f"dora-average-{device}", "--method", "dora", "--device", device, "--learning-rate", 0.01, "--compute", "f32", "--ema-decay", 0.8,
                 "--max-steps", 12, "--eval-every", 2, "--save-every", 1, "--early-stopping", 3)


@case
def what_is_measured_is_the_average_that_is_written():
    """At DoRA's rate the norms of the rows change enough for those of what is trained to give another loss."""
    for method, result, rate in (("lora", "adapter", 0.01), ("dora", "adapter", 0.1), ("full", "model", 0.01)):
        rows = ["--model", LLAMA, "--data", LLAMA / "rows.jsonl"]
        flags = ["train", *rows, "--method", method, "--valid", LLAMA / "rows.jsonl", "--max-steps", 6, "--batch-size", 4, "--epochs", 9,
                 "--learning-rate", rate, "--ema-decay", 0.9, "--compute", "f32", "--output", f"measured-{method}"]
        subprocess.run([str(x) for x in [hone, *flags]], cwd=work, env=environment, check=True, capture_output=True)
        logged = [facts["loss"] for (event, _), facts in told(f"measured-{method}").items() if event == "eval"][-1]
        chosen = [f"--{result}", f"measured-{method}/{result}"]
        command = [hone, "eval", *(rows if result == "adapter" else rows[2:]), *chosen, "--compute", "f32", "--json"]
        loss = json.loads(subprocess.run([str(x) for x in command], cwd=work, env=environment, check=True, capture_output=True).stdout)["loss"]
        assert abs(loss - logged) <= 1e-5 * logged, (method, logged, loss)


def main():
    failed = run_cases(sys.argv[2:])
    print(", ".join(f"{number} {what}" for what, number in count.items()))
    shutil.rmtree(work, ignore_errors=True)
    return failed


sys.exit(main())
