#!/usr/bin/env python3
"""Which rows the steps of a run take: every one once an epoch, the last step what is left, another order in each epoch, and after
a stop the rest.

    test_order.py PROGRAM

The rows have 2, 4, 8 … tokens, so that the number of tokens of a step tells its rows."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-order-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}
SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
ROWS, BATCH, EPOCHS = 7, 3, 3
STEPS = (ROWS + BATCH - 1) // BATCH  # of an epoch


def run(*words):
    done = subprocess.run([program, *map(str, words)], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: status {done.returncode}\n{done.stderr}{done.stdout[-1500:]}"


def train(output, *flags):
    run("train", "--model", "m.gguf", "--data", "rows.jsonl", "--output", output, "--batch-size", BATCH, "--epochs", EPOCHS, "--lora-rank", 2, "--compute", "f32",
        "--threads", 1, *flags)
    return taken(output)


def taken(output):
    """The set of rows of each step; of one that was done twice the later."""
    lines = [json.loads(line) for line in (work / output / "events.jsonl").read_text().splitlines()]
    tokens = {e["step"]: e["tokens"] for e in lines if e["event"] == "step"}
    assert sorted(tokens) == list(range(1, EPOCHS * STEPS + 1)), sorted(tokens)
    return [[row for row in range(ROWS) if tokens[step] >> row + 1 & 1] for step in sorted(tokens)]


def epochs(steps):
    return [steps[i * STEPS:(i + 1) * STEPS] for i in range(EPOCHS)]


def each_epoch_takes_every_row_once():
    parts = epochs(train("shuffled"))
    for steps in parts:
        assert [len(step) for step in steps] == [3, 3, 1], steps
        assert sorted(sum(steps, [])) == list(range(ROWS)), steps
    assert parts[0] != parts[1] != parts[2] != parts[0], parts
    assert train("again") == sum(parts, []), "the seed alone decides"
    assert train("other", "--seed", 1) != sum(parts, [])


def without_shuffling_rows_come_as_they_stand():
    for steps in epochs(train("plain", "--no-shuffle")):
        assert steps == [[0, 1, 2], [3, 4, 5], [6]], steps


def what_a_checkpoint_leaves_comes_after_it():
    """From every checkpoint on, those at the edges of epochs too."""
    whole = train("whole", "--save-every", 1, "--keep", 99)
    for step in range(1, EPOCHS * STEPS):
        shutil.copytree(work / "whole", work / "cut", dirs_exist_ok=False)
        shutil.rmtree(work / "cut/adapter")
        for later in range(step + 1, EPOCHS * STEPS + 1):
            shutil.rmtree(work / f"cut/checkpoints/step-{later:08}")
        lines = (work / "cut/events.jsonl").read_text().splitlines(keepends=True)
        (work / "cut/events.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
        assert train("cut", "--resume") == whole, step
        shutil.rmtree(work / "cut")


try:
    (work / "config.json").write_text(json.dumps(SHAPE))
    run("convert", "--config", "config.json", "--random-weights", "--output", "m.gguf")
    # A text row of n - 1 bytes is n tokens.
    (work / "rows.jsonl").write_text("".join(json.dumps({"text": "x" * (2 ** (row + 1) - 1)}) + "\n" for row in range(ROWS)))
    for case in (each_epoch_takes_every_row_once, without_shuffling_rows_come_as_they_stand, what_a_checkpoint_leaves_comes_after_it):
        case()
        print("ok ", case.__name__)
finally:
    shutil.rmtree(work, ignore_errors=True)
