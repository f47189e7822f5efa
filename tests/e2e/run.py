#!/usr/bin/env python3
"""The program from end to end on a real model: check, plan, train, kill -9, resume, eval, generate.

    tests/e2e/run.py HONE MODEL.gguf DATA_DIRECTORY [CASE…]        (with train.jsonl and valid.jsonl)

Runs in a temporary directory; every case prints "ok" or what it saw, and the last line counts them."""
import hashlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

import hostile  # these two are beside this file
from cases import case, run_cases

hone, model, data = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-e2e-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}
TRAIN = ["--model", "tiny", "--data", "train.jsonl", "--valid", "valid.jsonl", "--max-steps", "5", "--batch-size", "4",
         "--lora-rank", "4", "--save-every", "1", "--eval-every", "5", "--seed", "7"]


def run(*arguments, status=0):
    done = subprocess.run([hone, *map(str, arguments)], cwd=work, env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == status, f"hone {' '.join(map(str, arguments))}: status {done.returncode}, not {status}\n{done.stderr[-2000:]}{done.stdout[-2000:]}"
    return done


def answer(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def events(directory, kind):
    lines = (work / directory / "events.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


def steps(directory):
    """The last word on each step: where one was done twice, the later line counts."""
    return {e["step"]: e for e in events(directory, "step")}


def peak(directory):
    """The most memory that the run tells of; its last part, the writing of the result, is told by `done` alone."""
    return max(e["memory_bytes"] for kind in ("step", "done") for e in events(directory, kind))


def adapter_digest(directory):
    return hashlib.sha256((work / directory / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def stopped_after(directory, step, signal_number):
    """Starts the run, sends the signal once events.jsonl has the step, and returns the exit status."""
    process = subprocess.Popen([hone, "train", *TRAIN, "--output", directory], cwd=work, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    log, end = work / directory / "events.jsonl", time.time() + 300
    while time.time() < end and process.poll() is None:
        if log.exists() and f'"step":{step},' in log.read_text().replace(" ", "") and '"event":"step"' in log.read_text():
            break
        time.sleep(0.02)
    process.send_signal(signal_number)
    return process.wait(600)


@case
def doctor_describes_this_machine():
    assert answer("doctor")


@case
def pull_names_a_model():
    run("pull", model, "--name", "tiny")


@case
def data_check_finds_no_fault():
    run("data", "check", "train.jsonl")


@case
def data_check_names_the_line_of_a_bad_row():
    (work / "bad.jsonl").write_text((work / "valid.jsonl").read_text().splitlines()[0] + "\n{\"messages\": [\n")
    done = run("data", "check", "bad.jsonl", status=3)
    assert "2" in done.stderr + done.stdout and "bad.jsonl" in done.stderr + done.stdout, done.stderr


@case
def plan_is_the_sum_of_its_parts():
    plan = answer("plan", *TRAIN)
    parts = [plan[f"{k}_bytes"] for k in ("weights", "adapter", "gradient", "optimizer", "activation", "workspace", "process")]
    assert plan["peak_bytes"] == sum(parts), plan
    assert plan["flops"] > 0 and plan["seconds"] > 0, plan


def write_texts(name, sizes, apart):
    """A row of so many words of the data's answers for each size, beginning `apart` words after the one before."""
    words = [w for line in open(data / "train.jsonl") for w in json.loads(line)["messages"][-1]["content"].split()]
    texts = (" ".join(words[i * apart:i * apart + size]) for i, size in enumerate(sizes))
    (work / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@case
def eight_rows_of_up_to_1024_tokens_take_at_most_a_gibibyte():
    for size, compute in ((1000, "f32"), (1000, "bf16"), (700, "f32"), (500, "f32"), (350, "f32"), (120, "f32")):
        write_texts("long.jsonl", [size] * 16, 701)
        plan = answer("plan", "--model", "tiny", "--data", "long.jsonl", "--max-length", "1024", "--batch-size", "8", "--compute", compute)
        assert plan["tokens"] >= 3 * 16 * min(size, 1024), plan["tokens"]  # rows of 1,000 words are full
        assert plan["peak_bytes"] + plan["mapped_bytes"] <= 1 << 30, (size, compute, plan["peak_bytes"], plan["mapped_bytes"])


@case
def a_plan_is_told_soon_where_a_row_is_long():
    write_texts("one-long.jsonl", [1000 if i == 9 else 60 for i in range(61)], 101)  # row 9 is the second that is looked at
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answer("plan", "--model", "tiny", "--data", "one-long.jsonl")
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert taken < 12, taken


@case
def training_writes_a_result():
    run("train", *TRAIN, "--output", "whole")
    assert sorted(steps("whole")) == [1, 2, 3, 4, 5]
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json", "tokenizer_config.json",
                 "chat_template.jinja"):
        assert (work / "whole/adapter" / name).stat().st_size > 0, name


@case
def measured_memory_keeps_to_the_plan():
    plan, seen = events("whole", "plan")[-1], peak("whole")
    assert seen <= 1.05 * plan["peak_bytes"], (seen, plan["peak_bytes"])
    held = [e["mapped_bytes"] for e in steps("whole").values()]  # the program's own pages and the model's
    assert 0 < held[0] <= held[-1], held


@case
def kill_and_resume_give_the_same_bits():
    assert stopped_after("killed", 3, signal.SIGKILL) == -signal.SIGKILL
    run("train", *TRAIN, "--output", "killed", "--resume")
    assert events("killed", "resume"), "no resume event"
    assert {k: e["loss"] for k, e in steps("killed").items()} == {k: e["loss"] for k, e in steps("whole").items()}
    assert adapter_digest("killed") == adapter_digest("whole")


@case
def an_interrupt_saves_and_leaves_with_130():
    status = stopped_after("interrupted", 2, signal.SIGINT)
    assert status == 130, status
    run("train", *TRAIN, "--output", "interrupted", "--resume")
    assert adapter_digest("interrupted") == adapter_digest("whole")


@case
def threads_leave_the_bits_alone():
    for threads in (1, 3):
        run("train", *TRAIN, "--output", f"threads-{threads}", "--threads", threads)
        assert adapter_digest(f"threads-{threads}") == adapter_digest("whole"), threads


@case
def less_memory_gives_the_same_losses():
    run("train", *TRAIN, "--output", "small", "--memory", "600MiB")
    assert peak("small") <= 600 << 20
    for number, step in steps("whole").items():
        other = steps("small")[number]["loss"]
        assert abs(other - step["loss"]) <= 1e-5 * step["loss"], (number, step["loss"], other)


@case
def memory_that_cannot_suffice_is_refused_before_the_start():
    done = run("train", *TRAIN, "--output", "none", "--memory", "20MiB", status=4)
    assert "MiB" in done.stderr and not (work / "none").exists(), done.stderr


@case
def tiny_models_train_as_in_peft():
    """Rows, template, tokens, mask, packing, steps: the stored losses of tests/golden, through the program."""
    golden = pathlib.Path(__file__).resolve().parent.parent / "golden"
    for directory in sorted([*(golden / "data").iterdir(), *(golden / "variants").iterdir()]):
        facts = json.loads((directory / "golden.json").read_text())
        name, base, want = directory.name, golden / "data" / facts["model"], facts["run"]["steps"]
        run("train", "--model", base, "--data", base / "rows.jsonl", "--adapter", directory / "adapter", "--no-shuffle",
            "--schedule", "constant", "--warmup-ratio", "0", "--learning-rate", "1e-3", "--batch-size", "4", "--epochs", "4",
            "--max-steps", "10", "--compute", "f32", "--output", f"tiny-{name}")
        got = steps(f"tiny-{name}")
        assert len(got) == len(want) == 10, (name, len(got))
        for number, step in enumerate(want, 1):
            assert (got[number]["tokens"], got[number]["supervised_tokens"]) == (step["tokens"], step["supervised_tokens"]), (name, number)
            assert abs(got[number]["loss"] - step["loss"]) <= 1e-4 * step["loss"], (name, number, got[number]["loss"], step["loss"])
        # The run's own recipe repeats it, with the adapter's rank and targets in it.
        run("train", "--recipe", work / f"tiny-{name}/recipe.yaml", "--output", f"again-{name}")
        assert adapter_digest(f"again-{name}") == adapter_digest(f"tiny-{name}"), name


@case
def starts_made_of_the_weights_train_as_in_peft():
    """PiSSA, OLoRA, LoftQ: ten losses; the result is a plain adapter on the model as it is."""
    golden = pathlib.Path(__file__).resolve().parent.parent / "golden"
    for directory in sorted((golden / "starts").iterdir()):
        facts = json.loads((directory / "golden.json").read_text())
        name, base = f"start-{directory.name}", golden / "data" / facts["model"]
        run("train", "--model", base, "--data", base / "rows.jsonl", *facts["flags"].split(), "--no-shuffle", "--schedule", "constant",
            "--warmup-ratio", "0", "--learning-rate", "1e-3", "--batch-size", "4", "--epochs", "4", "--max-steps", "10", "--compute", "f32",
            "--output", name)
        got = [step["loss"] for _, step in sorted(steps(name).items())]
        assert len(got) == 10 and all(abs(a - b) <= 1e-4 * b for a, b in zip(got, facts["losses"])), (name, got, facts["losses"])
        loss = {}
        for adapter in ("adapter", "checkpoints/step-00000010/adapter"):
            done = answer("eval", "--model", base, "--data", base / "rows.jsonl", "--adapter", work / name / adapter, "--compute", "f32")
            loss[adapter] = done["loss"]
        assert len(set(loss.values())) == 1 and loss["adapter"] < got[0], loss
        run("train", "--recipe", work / name / "recipe.yaml", "--output", f"{name}-again")
        assert adapter_digest(f"{name}-again") == adapter_digest(name), name


@case
def qlora_is_lora_with_a_base_type():
    """The same recipe but for the name, the same bits."""
    base = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-untied"
    recipes = {}
    for name, flags in {"by-method": ["--method", "qlora"], "by-type": ["--method", "lora", "--base-type", "nf4"]}.items():
        run("train", "--model", base, "--data", base / "rows.jsonl", *flags, "--lora-rank", "4", "--batch-size", "4", "--epochs", "1",
            "--compute", "f32", "--output", name)
        lines = (work / name / "recipe.yaml").read_text().splitlines()
        recipes[name] = [line.split("  #")[0] for line in lines if not line.startswith(("method:", "output:", "template_clock:"))]
    assert recipes["by-method"] == recipes["by-type"], recipes
    assert adapter_digest("by-method") == adapter_digest("by-type")


@case
def converted_models_score_and_train_as_the_original():
    """GGUF and back with the same loss; a block type close to it; random weights train, with n - 1 bytes for n tokens."""
    tiny = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-untied"
    loss = lambda name: answer("eval", "--model", name, "--data", tiny / "rows.jsonl", "--compute", "f32")["loss"]
    run("convert", "--model", tiny, "--type", "f32", "--output", "there.gguf")
    run("convert", "--model", "there.gguf", "--output", "back")
    want = loss(tiny)
    assert abs(loss("there.gguf") - want) <= 1e-6 * want and loss("back") == want, (loss("there.gguf"), loss("back"), want)
    shape = dict(model_type="llama", hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)
    (work / "shape.json").write_text(json.dumps(shape))
    (work / "bytes.jsonl").write_text("".join(json.dumps({"text": "x" * 31}) + "\n" for _ in range(8)))
    for name in ("random.gguf", "random"):
        report = answer("convert", "--config", "shape.json", "--random-weights", "--type", "q4_k" if name.endswith("gguf") else "bf16", "--output", name)
        assert report["fallbacks"] == [] and report["bits_per_weight"] < (5 if name.endswith("gguf") else 16.1), report
        stats = answer("data", "stats", "bytes.jsonl", "--model", name)
        assert stats["tokens"]["total"] == 8 * 32, stats
        run("train", "--model", name, "--data", "bytes.jsonl", "--max-steps", "3", "--batch-size", "4", "--output", f"train-{name}")
        assert steps(f"train-{name}")[3]["loss"] < steps(f"train-{name}")[1]["loss"] < 7


def train_full(base, output, *flags):
    run("train", "--method", "full", "--model", base, "--data", GOLDEN / "data/llama-untied/rows.jsonl", "--batch-size", "4", "--epochs", "9",
        "--max-steps", "6", "--save-every", "2", "--compute", "f32", "--output", output, *flags)


GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"


@case
def every_weight_trains_as_in_transformers():
    """Ten steps of full fine-tuning; the model that they leave, and those in checkpoints, score as the run did."""
    for directory in sorted((GOLDEN / "full").iterdir()):
        facts = json.loads((directory / "golden.json").read_text())
        base, output, want = GOLDEN / "data" / facts["model"], f"full-{directory.name}", facts["run"]["steps"]
        run("train", "--method", "full", "--model", base, "--data", base / "rows.jsonl", "--valid", base / "rows.jsonl", "--no-shuffle",
            "--schedule", "constant", "--warmup-ratio", "0", "--learning-rate", "1e-3", "--batch-size", "4", "--epochs", "4", "--max-steps", "10",
            "--compute", "f32", "--output", output)
        for number, step in enumerate(want, 1):
            got = steps(output)[number]["loss"]
            assert abs(got - step["loss"]) <= 1e-4 * step["loss"], (directory.name, number, got, step["loss"])
        for name in ("model", "checkpoints/step-00000010/model"):
            loss = answer("eval", "--model", work / output / name, "--data", base / "rows.jsonl", "--compute", "f32")["loss"]
            assert abs(loss - events(output, "eval")[-1]["loss"]) <= 1e-5 * loss, (name, loss)


@case
def full_fine_tuning_keeps_the_container_and_resumes_with_the_same_bits():
    """A GGUF of the architecture whose rows it interleaves; quantised weights end as bf16, frozen ones as they were."""
    shape = dict(model_type="llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)
    (work / "small.json").write_text(json.dumps(shape))
    run("convert", "--config", "small.json", "--random-weights", "--type", "q8_0", "--output", "small.gguf")
    train_full("small.gguf", "gguf", "--threads", "1")
    whole = (work / "gguf/model/model.gguf").read_bytes()
    for path in ("gguf/checkpoints/step-00000006", "gguf/model"):
        subprocess.run(["rm", "-r", str(work / path)], check=True)
    train_full("small.gguf", "gguf", "--threads", "3", "--resume")
    resumed, planned = events("gguf", "resume")[-1], events("gguf", "plan")[-1]
    assert resumed["from_step"] == 4 and (work / "gguf/model/model.gguf").read_bytes() == whole
    assert abs(resumed["seconds_left"] - planned["seconds"] * (1 - 4 / planned["steps"])) <= 1e-9 * planned["seconds"], (resumed, planned["seconds"])
    rows = GOLDEN / "data/llama-untied/rows.jsonl"
    loss = lambda name: answer("eval", "--model", name, "--data", rows, "--compute", "f32")["loss"]
    exact, written = loss("gguf/checkpoints/step-00000006/model"), loss("gguf/model")
    assert abs(written - exact) <= 1e-3 * exact and exact < 0.99 * loss("small.gguf"), (exact, written)
    run("generate", "--model", "gguf/model", "--prompt", "Define apple.", "--max-tokens", "2")
    train_full("small.gguf", "some", "--freeze", "embed_tokens,layers\\.0\\..*")
    report = answer("convert", "--model", "some/model/model.gguf", "--output", "again.gguf")
    assert report["types"] == {"q8_0": 8, "bf16": 8, "f32": 5}, report


def widen_scales(directory):
    """bf16 becomes f32 in the safetensors file: MLX's scales may be either."""
    path = directory / "model.safetensors"
    header, payload = hostile.split_safetensors(path)
    whole = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        data, wide = payload[begin:end], name.endswith((".scales", ".biases"))
        if wide:
            data = b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2))
        whole[name] = (dict(entry, dtype="F32") if wide else entry, data)
    payload = b""
    for name, (entry, data) in whole.items():
        header[name] = dict(entry, data_offsets=[len(payload), len(payload) + len(data)])
        payload += data
    path.write_bytes(hostile.join_safetensors(header, payload))


@case
def quantised_directories_are_kept_and_their_frozen_weights_too():
    """To the byte, whatever the type of the scales; config.json says what is quantised, so that everybody reads what is written."""
    shape = dict(model_type="llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)
    (work / "small.json").write_text(json.dumps(shape))
    rows = GOLDEN / "data/llama-untied/rows.jsonl"
    loss = lambda name: answer("eval", "--model", name, "--data", rows, "--compute", "f32")["loss"]
    for kind, to in (("nf4", "safetensors"), ("int8", "safetensors"), ("mlx-4bit", "mlx"), ("mlx-8bit-g32", "mlx"), ("mlx-mxfp4", "mlx")):
        first, again, tuned = f"made-{kind}", f"made-again-{kind}", f"made-tuned-{kind}"
        run("convert", "--config", "small.json", "--random-weights", "--to", to, "--type", kind, "--output", first)
        if kind == "mlx-8bit-g32":
            widen_scales(work / first)
        report = answer("convert", "--model", first, "--to", to, "--output", again)
        assert report["left_out"] == [] and report["relative_error"] == 0 and report["types"][kind] >= 14, report
        tensors = [hostile.split_safetensors(work / name / "model.safetensors") for name in (first, again)]
        parts = [{n: p[slice(*h[n]["data_offsets"])] for n in h if n != "__metadata__"} for h, p in tensors]
        assert parts[0] == parts[1], [n for n in parts[0] if parts[0][n] != parts[1].get(n)]
        configs = [json.loads((work / name / "config.json").read_text()) for name in (first, again)]
        assert configs[0]["quantization_config"] == configs[1]["quantization_config"] and configs[0].get("quantization") == configs[1].get("quantization")
        train_full(first, tuned, "--freeze", "layers\\.0\\..*")
        whole = (work / tuned / "model/model.safetensors").read_bytes()
        header, payload = hostile.split_safetensors(work / tuned / "model/model.safetensors")
        frozen = [n for n in parts[0] if "layers.0." in n]
        assert len(frozen) >= 16 and all(payload[slice(*header[n]["data_offsets"])] == parts[0][n] for n in frozen)
        assert not any(n.endswith((".absmax", ".SCB", ".scales")) for n in header if "layers.1." in n)
        config = json.loads((work / tuned / "model/config.json").read_text())["quantization_config"]
        skipped = ["model.layers.1." + m for m in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]
        assert config == ({**configs[0]["quantization_config"], "llm_int8_skip_modules": [*skipped, "lm_head"]} if to == "safetensors" else configs[0]["quantization"]), config
        for path in (f"{tuned}/checkpoints/step-00000006", f"{tuned}/model"):
            subprocess.run(["rm", "-r", str(work / path)], check=True)
        train_full(first, tuned, "--freeze", "layers\\.0\\..*", "--resume")
        assert events(tuned, "resume")[-1]["from_step"] == 4 and (work / tuned / "model/model.safetensors").read_bytes() == whole
        exact, written = loss(f"{tuned}/checkpoints/step-00000006/model"), loss(f"{tuned}/model")
        assert abs(written - exact) <= 1e-3 * exact and exact < 0.99 * loss(first), (kind, exact, written)


@case
def a_directory_in_use_and_a_changed_recipe_are_refused():
    run("train", *TRAIN, "--output", "whole", status=2)
    done = run("train", *TRAIN, "--learning-rate", "0.01", "--output", "whole", "--resume", status=2)
    assert "learning" in done.stderr, done.stderr


@case
def a_flipped_bit_is_noticed_and_the_checkpoint_before_is_taken():
    newest = sorted((work / "interrupted/checkpoints").iterdir())[-1]
    target = newest / "adapter/adapter_model.safetensors"
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    for path in (work / "interrupted/adapter").iterdir():
        path.unlink()
    (work / "interrupted/adapter").rmdir()
    done = run("train", *TRAIN, "--output", "interrupted", "--resume")
    assert newest.name in done.stderr + done.stdout or any(newest.name in e["message"] for e in events("interrupted", "warning")), done.stderr
    assert adapter_digest("interrupted") == adapter_digest("whole")


@case
def eval_measures_the_adapter():
    before = answer("eval", "--model", "tiny", "--data", "valid.jsonl")
    after = answer("eval", "--model", "tiny", "--adapter", "whole/adapter", "--data", "valid.jsonl")
    assert after["examples"] == before["examples"] == 8 and after["loss"] < before["loss"], (before, after)
    logged = events("whole", "eval")[-1]["loss"]
    assert abs(logged - after["loss"]) <= 1e-5 * logged, (logged, after)


@case
def generate_answers_the_same_twice():
    flags = ["generate", "--model", "tiny", "--adapter", "whole/adapter", "--prompt", "Define year.", "--max-tokens", "12", "--seed", "3",
             "--temperature", "0.8"]
    one, two = answer(*flags), answer(*flags)
    assert one["text"] == two["text"] and 0 < one["generated_tokens"] <= 12, (one, two)


@case
def an_unknown_flag_is_answered_with_its_neighbour():
    assert "--lora-rank" in run("train", *TRAIN, "--lora-rnk", "4", "--output", "x", status=2).stderr
    assert not (work / "x").exists()


def main():
    for name, count in (("train.jsonl", 24), ("valid.jsonl", 8)):
        (work / name).write_text("".join((data / name).read_text().splitlines(True)[:count]))
    failed = run_cases(sys.argv[4:])
    subprocess.run(["rm", "-rf", str(work)], check=False)
    return failed


sys.exit(main())
