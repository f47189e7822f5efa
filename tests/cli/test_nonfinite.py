#!/usr/bin/env python3
"""Numbers that are not finite: found in the step that makes them, named, and dealt with as --nan-policy says; never in a
checkpoint. The models are a tiny one with some weights changed.

    test_nonfinite.py PROGRAM"""
import array
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
tiny = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-untied"
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-nonfinite-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}
LAST = max(int(p.split(".")[2]) for p in json.loads((lambda b: b[8:8 + struct.unpack("<Q", b[:8])[0]])(
    (tiny / "model.safetensors").read_bytes())) if p.startswith("model.layers."))


def numbers(path):
    """The f32 tensors of a safetensors file."""
    blob = path.read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    tensors = {k: v for k, v in json.loads(blob[8:8 + size]).items() if k != "__metadata__"}
    return {k: array.array("f", blob[8 + size + v["data_offsets"][0]:8 + size + v["data_offsets"][1]]) for k, v in tensors.items()
            if v["dtype"] == "F32"}


def model(name, changes):
    """A copy of the tiny model; `changes`: what becomes of all numbers of a tensor, or of one."""
    copy = work / name
    shutil.copytree(tiny, copy)
    path = copy / "model.safetensors"
    blob = bytearray(path.read_bytes())
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    for tensor, change in changes.items():
        first, end = (8 + size + o for o in header[tensor]["data_offsets"])
        values = array.array("f", blob[first:end])
        for i in range(len(values)):
            values[i] = change(i, values[i])
        blob[first:end] = values.tobytes()
    path.write_bytes(blob)
    return copy


def curve(output):
    """Steps of the curves as TensorBoard reads them: the start of a session drops points of its step and later ones."""
    points = []
    for path in sorted((work / output / "tensorboard").iterdir()):
        blob = path.read_bytes()
        while blob:
            size = struct.unpack("<Q", blob[:8])[0]
            message, blob = blob[12:12 + size], blob[16 + size:]
            if message[9] != 0x10 or message[10] >= 128:  # the version; these runs have few steps
                continue
            step, what = message[10], message[11]
            points = [p for p in points if p < step] if what == 0x3a else points + [step]
    return points


def train(path, output, *more, status=0, device="cpu"):
    flags = {"--device": device, "--model": path, "--data": tiny / "rows.jsonl", "--batch-size": "4", "--epochs": "60", "--max-steps": "6",
             "--save-every": "1", "--compute": "f32", "--output": work / output, **dict(zip(more[::2], more[1::2]))}
    command = [program, "train", *[w for f in flags.items() for w in f if w is not None]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == status, f"{output}: status {done.returncode}, not {status}\n{done.stderr}{done.stdout[-2000:]}"
    return done.stderr


def events(output, kind):
    return [e for e in map(json.loads, (work / output / "events.jsonl").read_text().splitlines()) if e["event"] == kind]


def saved(output):
    return sorted(p.name for p in (work / output / "checkpoints").glob("*"))


def result(output):
    return (work / output / "adapter/adapter_model.safetensors").read_bytes()


def all_finite(output):
    """In every checkpoint that is there, and in the result."""
    for path in (work / output).rglob("*.safetensors"):
        for name, values in numbers(path).items():
            assert all(map(math.isfinite, values)), f"{path}: {name}"


def a_weight_that_is_no_number_is_named_whatever_the_policy():
    for number, text in ((math.nan, "nan"), (math.inf, "inf"), (-math.inf, "nan")):
        tensor = "model.layers.1.mlp.up_proj.weight"
        path = model(f"weight-{text}-{number}", {tensor: lambda i, x: number if i == 100 else x})
        for policy in ("stop", "skip", "rollback"):
            output = f"weight-{number}-{policy}"
            told = train(path, output, "--nan-policy", policy, status=1)
            event, = events(output, "nonfinite")
            assert (event["step"], event["operation"], event["layer"], event["pass"], event["cause"], event["action"]) == \
                (1, "linear", 1, "forward", tensor, "stop") and event["row"] is None, event
            assert tensor in told and "layer 1" in told, told
            assert saved(output) == [] and not events(output, "step")


def a_complete_model_is_not_begun_with_a_weight_that_is_no_number():
    """Its checkpoints would hold it, also where no step reads it: a token that no row has, a weight that is frozen."""
    path = bad_token()
    for more in ([], ["--freeze", "embed_tokens"]):
        told = train(path, "whole", "--method", "full", "--nan-policy", "skip", *more, status=3)
        assert "model.embed_tokens.weight holds NaN" in told and not (work / "whole").exists(), told
    shutil.rmtree(path)


def an_overflow_inside_is_named():
    path = model("overflow", {f"model.layers.1.mlp.{m}_proj.weight": lambda i, x: x * 1e25 for m in ("gate", "up")})
    for device in ("cpu", "ref"):
        told = train(path, f"overflow-{device}", status=1, device=device)
        event, = events(f"overflow-{device}", "nonfinite")
        assert (event["operation"], event["layer"], event["cause"], event["pass"]) == ("glu", 1, None, "forward"), event
        assert "glu of layer 1" in told and saved(f"overflow-{device}") == [], told


def a_product_is_named_by_its_module_whatever_is_folded_into_it():
    """An adapter's product is a part of the base weight's."""
    path = model("product", {"model.layers.1.mlp.up_proj.weight": lambda i, x: x * 1e38})
    for name, more in (("plain", []), ("dora", ["--method", "dora"]), ("full", ["--method", "full"])):
        told = train(path, f"product-{name}", *more, status=1)
        event, = events(f"product-{name}", "nonfinite")
        assert (event["operation"], event["layer"], event["value"], event["cause"]) == ("linear", 1, "up_proj", None), event
        assert "(forward pass, up_proj)" in told, told


def bad_token():
    """The embedding of a token that few rows have; the head is another matrix."""
    config = json.loads((tiny / "config.json").read_text())
    vocabulary = json.loads((tiny / "tokenizer.json").read_text())["model"]["vocab"]
    row = vocabulary["Ã"] * config["hidden_size"]
    return model("token", {"model.embed_tokens.weight": lambda i, x: math.nan if row <= i < row + config["hidden_size"] else x})


def is_bad_row(place):
    """Whether "rows.jsonl:6" is one that has the token of bad_token."""
    name, line = place.split(":")
    return name == "rows.jsonl" and "Stra" in (tiny / name).read_text().splitlines()[int(line) - 1]


def processes_that_share_a_run_decide_alike():
    path = bad_token()
    for device in ("cpu", "cpu,cpu"):
        train(path, f"shared-{device}", "--nan-policy", "skip", device=device)
    left_out = [e["step"] for e in events("shared-cpu", "nonfinite")]
    assert left_out and left_out == [e["step"] for e in events("shared-cpu,cpu", "nonfinite")]
    assert all(abs(a["loss"] - b["loss"]) < 1e-5 * b["loss"] for a, b in zip(events("shared-cpu,cpu", "step"), events("shared-cpu", "step")))
    all_finite("shared-cpu,cpu")
    told = train(path, "shared-stop", status=1, device="cpu,cpu")
    assert "not finite" in told and ("embedding" in told or "another process" in told), told


def skipping_leaves_the_step_out_and_nothing_else():
    path = bad_token()
    train(path, "skip", "--nan-policy", "skip")
    left_out = [e["step"] for e in events("skip", "nonfinite")]
    assert 0 < len(left_out) < 6 and all(e["operation"] == "embedding" and e["action"] == "skip" for e in events("skip", "nonfinite"))
    assert all(is_bad_row(e["row"]) for e in events("skip", "nonfinite")), events("skip", "nonfinite")
    assert sorted(left_out + [e["step"] for e in events("skip", "step")]) == [1, 2, 3, 4, 5, 6]
    all_finite("skip")
    # Some rows at a time, too: the embedding of each piece is looked at before what is made of it.
    train(path, "pieces", "--nan-policy", "skip", "--piece-rows", "32")
    names = ("step", "operation", "value", "cause", "row", "action")
    assert [[e[n] for n in names] for e in events("pieces", "nonfinite")] == [[e[n] for n in names] for e in events("skip", "nonfinite")]
    # Stopped there, and gone on with another policy: the same bits. So are those after a kill at any checkpoint.
    train(path, "stop", "--save-every", "9", status=1)
    assert saved("stop") == [f"step-{left_out[0] - 1:08}"], saved("stop")
    train(path, "stop", "--nan-policy", "skip", "--resume", None)
    assert events("stop", "resume")[-1]["changed"] == ["nan-policy stop → skip"], events("stop", "resume")
    assert result("stop") == result("skip")
    train(path, "kept", "--nan-policy", "skip", "--keep", "9")
    for name in saved("kept"):
        shutil.copytree(work / "kept", work / "again")
        shutil.rmtree(work / "again/adapter")
        for later in saved("again"):
            if later > name:
                shutil.rmtree(work / "again/checkpoints" / later)
        train(path, "again", "--resume", None)
        assert result("again") == result("skip"), name
        shutil.rmtree(work / "again")


def skipping_ends_when_nothing_else_happens():
    path = bad_token()
    rows = work / "bad.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Straße {i}"}) + "\n" for i in range(80)))
    told = train(path, "bad", "--data", rows, "--nan-policy", "skip", "--max-steps", "15", status=1)
    assert len(events("bad", "nonfinite")) == 11 and "10 steps in a row" in told, told


def steps_that_are_skipped_now_and_then_end_nothing():
    """It is those in a row that do: 12 of 24, with a good one behind each."""
    path = bad_token()
    rows = work / "mixed.jsonl"
    rows.write_text('{"prompt": "a", "completion": "Straße"}\n{"prompt": "a", "completion": "b"}\n' * 12)
    train(path, "mixed", "--nan-policy", "skip", "--data", rows, "--no-shuffle", None, "--batch-size", "1", "--max-steps", "24")
    assert len(events("mixed", "nonfinite")) == 12 and len(events("mixed", "step")) == 12


def steep():
    """What the last down_proj reads is 2¹²⁰ times as large, and its weights are as much smaller: the adapter's own product
    overflows at a high learning rate, and at a part of it does not."""
    return model("steep", {f"model.layers.{LAST}.mlp.up_proj.weight": lambda i, x: x * 2.0**120,
                           f"model.layers.{LAST}.mlp.down_proj.weight": lambda i, x: x * 2.0**-120})


STEEP = ("--lora-targets", "down_proj", "--lora-layers", "1", "--lora-alpha", "2000", "--learning-rate", "1", "--warmup-ratio", "0",
         "--schedule", "constant", "--nan-policy", "rollback")


def rolling_back_halves_the_rate_until_it_holds():
    path = steep()
    train(path, "back", *STEEP, "--save-every", "4", device="ref")
    found = events("back", "nonfinite")
    assert found and all(e["action"] == "rollback" for e in found), found
    assert events("back", "step")[-1]["learning_rate"] == 0.5 ** len(found)
    assert sorted({e["step"] for e in events("back", "step")}) == [1, 2, 3, 4, 5, 6]
    assert curve("back") == [1, 2, 3, 4, 5, 6], curve("back")
    all_finite("back")
    # Gone on from the checkpoint in the middle: it remembers the rate.
    first = result("back")
    shutil.rmtree(work / "back/checkpoints/step-00000006")
    shutil.rmtree(work / "back/adapter")
    train(path, "back", *STEEP, "--save-every", "4", "--resume", None, device="ref")
    assert curve("back") == [1, 2, 3, 4, 5, 6], curve("back")
    assert result("back") == first and events("back", "resume")[-1]["from_step"] == 4


def rolling_back_goes_further_each_time_that_a_step_is_not_passed():
    """Saved at every step, the newest checkpoint holds the weights that overflow: its next step fails at any rate."""
    path = steep()
    train(path, "further", *STEEP, "--save-every", "1", "--keep", "9", device="ref")
    back = [(e["failed_step"], e["tries"], e["step"]) for e in events("further", "rollback")]
    assert back == [(e["step"], tries, e["step"] - tries) for e, (_, tries, _) in zip(events("further", "nonfinite"), back, strict=True)], back
    assert any(tries > 1 and to for _, tries, to in back), back
    assert [e["rate_factor"] for e in events("further", "rollback")] == [0.5**i for i in range(1, len(back) + 1)]
    all_finite("further")
    # As far as checkpoints stand: what was removed is not done again from the start.
    path = bad_token()
    for keep, far in (("9", 5), ("1", 1)):
        train(path, f"keep-{keep}", "--nan-policy", "rollback", "--keep", keep, status=1)
        failed, back = events(f"keep-{keep}", "nonfinite")[0]["step"], [e["step"] for e in events(f"keep-{keep}", "rollback")]
        assert failed > 2 and back == [max(failed - min(i, far), 0) for i in range(1, 6)], (failed, back)


def stopped_on_the_way_it_goes_back_to_the_same_place():
    """What a stop saves is none of the checkpoints that an undisturbed run has."""
    path = steep()
    train(path, "straight", *STEEP, "--save-every", "4", device="ref")
    train(path, "stopped", *STEEP[:-1], "stop", "--save-every", "4", device="ref", status=1)
    stop = events("stopped", "nonfinite")[0]["step"] - 1
    assert 0 < stop < 4 and saved("stopped") == [f"step-{stop:08}"], saved("stopped")
    train(path, "stopped", *STEEP, "--save-every", "4", "--keep", "1", "--resume", None, device="ref")
    assert result("stopped") == result("straight")
    assert saved("straight") == ["step-00000004", "step-00000006"] and saved("stopped") == ["step-00000006"], saved("stopped")


def rolling_back_ends_when_it_does_not_help():
    told = train(bad_token(), "always", "--nan-policy", "rollback", status=1)
    found = events("always", "nonfinite")
    assert len(found) == 6 and "went back 5 times" in told and f"for {found[0]['row']}," in told and "--nan-policy skip" in told, told
    assert is_bad_row(found[0]["row"])
    all_finite("always")


def rolling_back_takes_what_a_stop_saved_where_all_others_are_damaged():
    flags = ("--batch-size", "2", "--max-steps", "12", "--save-every", "3")
    path = bad_token()
    train(path, "damaged", *flags, status=1)
    last = events("damaged", "nonfinite")[0]["step"] - 1
    assert saved("damaged") == ["step-00000003", f"step-{last:08}"] and last % 3, saved("damaged")
    adapter = work / "damaged/checkpoints/step-00000003/adapter/adapter_model.safetensors"
    adapter.write_bytes(b"x" + adapter.read_bytes()[1:])
    told = train(path, "damaged", *flags, "--nan-policy", "rollback", "--resume", None, status=1)
    assert "went back 5 times" in told and [e["step"] for e in events("damaged", "rollback")][:2] == [last, 0], told


def a_state_that_the_update_broke_is_not_saved():
    """The squares of these gradients are too large for the second moments."""
    path = steep()
    flags = (*STEEP[:-4], "--learning-rate", "1e-9", "--max-grad-norm", "0")
    told = train(path, "broken", *flags, "--nan-policy", "stop", status=1)
    event, = events("broken", "nonfinite")
    assert (event["operation"], event["pass"], event["value"], event["number"]) == ("adamw", "update", "moment2", "inf"), event
    assert event["cause"] == f"model.layers.{LAST}.mlp.down_proj.lora_B" in told and saved("broken") == [], told
    train(path, "undone", *flags, "--nan-policy", "skip", status=1)  # there is nothing to skip: it goes back
    assert [e["action"] for e in events("undone", "nonfinite")] == ["rollback"] * 5 + ["stop"] and saved("undone") == []


def weights_whose_norm_is_beyond_f32_are_no_fault_of_the_machine():
    """Each of them is finite."""
    path = model("huge", {"model.embed_tokens.weight": lambda i, w: 3e38 if i < 8 else w})
    told = train(path, "squares", "--method", "full", status=1)
    event, = events("squares", "nonfinite")
    assert (event["pass"], event["value"], event["number"]) == ("update", "norm of what is trained", "inf"), event
    assert "memory or processor" not in told and "norm of what is trained" in told, told


def ask(command, *words, status=0):
    done = subprocess.run([program, command, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == status, f"{command}: status {done.returncode}, not {status}\n{done.stderr}{done.stdout[-2000:]}"
    return done.stdout + done.stderr


def a_loss_that_is_no_number_is_called_so():
    """By eval, by the run's held-out loss and its page: it is neither 0 nor a lack of memory."""
    rows = (tiny / "rows.jsonl").read_text().splitlines(True)
    for name, chosen in (("rare", [r for r in rows if "Stra" in r]), ("usual", [r for r in rows if "Stra" not in r])):
        (work / f"{name}.jsonl").write_text("".join(chosen))
    measure = lambda path, name, **more: ask("eval", "--model", path, "--data", work / f"{name}.jsonl", "--compute", "f32", **more)
    path = bad_token()
    measure(path, "usual")
    assert "eval: the loss is not finite" in measure(path, "rare", status=1)
    text = ask("train", "--model", path, "--data", work / "usual.jsonl", "--valid", work / "rare.jsonl", "--batch-size", "4", "--max-steps", "2",
               "--eval-every", "1", "--compute", "f32", "--early-stopping", "5", "--output", work / "held-out")
    assert text.count("held-out loss not finite") == 2 and [e["loss"] for e in events("held-out", "eval")] == [None] * 2, text
    ask("report", "--run", work / "held-out")
    assert "held-out loss</span><b>not finite</b>" in (work / "held-out/report.html").read_text()
    steep = model("steep", {"lm_head.weight": lambda i, x: 1e5 * x})
    assert "perplexity above 1e308" in measure(steep, "usual")


def an_answer_may_hold_a_nul_character():
    """Of equal logits the first token is taken, which is byte 0 here."""
    config = dict(model_type="llama", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=257,
                  initializer_range=0.0)
    (work / "config.json").write_text(json.dumps(config))
    ask("convert", "--config", work / "config.json", "--random-weights", "--output", work / "zeros")
    words = ["--model", work / "zeros", "--prompt", "a", "--max-tokens", "3"]
    assert ask("generate", *words) == "\0\0\0\n"
    assert json.loads(ask("generate", *words, "--json"))["text"] == "\0\0\0"


def an_answer_of_no_numbers_is_refused():
    """However its tokens are chosen; nothing of it is printed."""
    path = bad_token()
    for device in ("cpu", "ref"):
        for words in ([], ["--temperature", "1"], ["--repetition-penalty", "1.5"]):
            told = ask("generate", "--device", device, "--model", path, "--prompt", "Straße", "--max-tokens", "3", *words, status=1)
            assert told.startswith("generate: no logit of the next token is a number"), told
    ask("generate", "--model", path, "--prompt", "Day", "--max-tokens", "3")


def an_adapter_that_is_no_number_is_named():
    shutil.copytree(tiny / "adapter", work / "adapter")
    path = work / "adapter/adapter_model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-4:] = struct.pack("<f", math.inf)
    path.write_bytes(blob)
    told = train(tiny, "adapter-run", "--adapter", work / "adapter", status=1)
    event, = events("adapter-run", "nonfinite")
    assert event["cause"] and "lora" in event["cause"] and saved("adapter-run") == [], told


try:
    for case in (a_weight_that_is_no_number_is_named_whatever_the_policy, a_complete_model_is_not_begun_with_a_weight_that_is_no_number,
                 an_overflow_inside_is_named, a_product_is_named_by_its_module_whatever_is_folded_into_it, processes_that_share_a_run_decide_alike, skipping_leaves_the_step_out_and_nothing_else, skipping_ends_when_nothing_else_happens, steps_that_are_skipped_now_and_then_end_nothing,
                 rolling_back_halves_the_rate_until_it_holds,
                 rolling_back_goes_further_each_time_that_a_step_is_not_passed, stopped_on_the_way_it_goes_back_to_the_same_place, rolling_back_ends_when_it_does_not_help,
                 rolling_back_takes_what_a_stop_saved_where_all_others_are_damaged, a_state_that_the_update_broke_is_not_saved,
                 weights_whose_norm_is_beyond_f32_are_no_fault_of_the_machine,
                 an_adapter_that_is_no_number_is_named, a_loss_that_is_no_number_is_called_so, an_answer_of_no_numbers_is_refused,
                 an_answer_may_hold_a_nul_character):
        for left in work.glob("*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        case()
        print("ok ", case.__name__)
finally:
    shutil.rmtree(work, ignore_errors=True)
