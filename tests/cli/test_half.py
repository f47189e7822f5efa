#!/usr/bin/env python3
"""--compute f16 on a tiny model: its losses and gradients beside those of f32, and the scale of its loss.

    test_half.py PROGRAM"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
tiny = pathlib.Path(__file__).resolve().parent.parent / "golden/data/llama-untied"
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-half-"))
environment = {**os.environ, "HONE_HOME": str(work / "home")}


def train(output, status=0, **changes):
    flags = {"model": tiny, "data": tiny / "rows.jsonl", "adapter": tiny / "adapter", "batch_size": 4, "epochs": 99, "max_steps": 10,
             "learning_rate": "1e-3", "warmup_ratio": 0, "schedule": "constant", "save_every": 99, "compute": "f16", "device": "cpu",
             "output": work / output, **changes}
    words = [w for k, v in flags.items() if v is not None for w in ("--" + k.replace("_", "-"), str(v)) if w != "True"]
    done = subprocess.run([program, "train", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == status, f"{output}: status {done.returncode}, not {status}\n{done.stderr}{done.stdout[-1500:]}"
    return done.stderr


def events(output, kind):
    return [e for e in map(json.loads, (work / output / "events.jsonl").read_text().splitlines()) if e["event"] == kind]


def result(output):
    return (work / output / "adapter/adapter_model.safetensors").read_bytes()


def ten_losses_are_those_of_f32_to_rounding():
    """An operand is rounded by at most 2⁻¹¹ of itself, with random signs. About 30 roundings lie on the way to a logit of this
    model, √30 · 2⁻¹² of its size rms, and 8 is the largest: 1e-2 absolute. The loss is the mean of some 50 targets: 1.5e-3 of 8.
    Gradients pass as many again."""
    for device in ("cpu", "ref"):
        for compute in ("f32", "f16"):
            train(f"{device}-{compute}", device=device, compute=compute)
        for one, half in zip(events(f"{device}-f32", "step"), events(f"{device}-f16", "step"), strict=True):
            assert abs(half["loss"] - one["loss"]) <= 2e-4 * one["loss"], (device, one["loss"], half["loss"])
            # Unscaled: in another scale it would be wrong by a factor of at least 2.
            assert abs(half["gradient_norm"] - one["gradient_norm"]) <= 4e-3 * one["gradient_norm"], (one, half)
            assert half["loss_scale"] == 65536 and "loss_scale" not in one
    assert result("cpu-f16") != result("cpu-f32")
    for threads in (1, 3):
        train(f"threads-{threads}", threads=threads)
        assert result(f"threads-{threads}") == result("cpu-f16")


def one_target(rows):
    """With one target in a step, and that an unlikely one, the gradient of its logit is the scale itself: too large at 65,536."""
    path = work / "one.jsonl"
    path.write_text('{"text": "b"}\n' * rows)
    return path


def an_overflow_halves_the_scale_and_200_good_steps_double_it():
    data = one_target(210)
    flags = dict(data=data, batch_size=1, epochs=1, max_steps=210, learning_rate="1e-9", keep=9, save_every=100)
    train("scale", **flags)
    assert [(e["step"], e["loss_scale"]) for e in events("scale", "overflow")] == [(1, 32768), (202, 32768)]
    steps = events("scale", "step")
    assert sorted(e["step"] for e in steps) == [i for i in range(1, 211) if i not in (1, 202)] and {e["loss_scale"] for e in steps} == {32768}
    # Scale and count are part of a checkpoint: 100 good steps before it, 100 after.
    for name in ("step-00000200", "step-00000210"):
        shutil.rmtree(work / "scale/checkpoints" / name)
    first = result("scale")
    shutil.rmtree(work / "scale/adapter")
    train("scale", **{**flags, "adapter": None}, resume=True)
    assert events("scale", "resume")[-1]["from_step"] == 100 and result("scale") == first
    assert [e["step"] for e in events("scale", "overflow")] == [1, 202, 202]


def the_least_scale_is_an_error_that_names_the_operation():
    """B as large as f16 holds, A zero: nothing of it is in the forward pass, and the gradient of A's result overflows at any scale."""
    adapter = work / "steep"
    shutil.copytree(tiny / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["lora_alpha"] = 1e6
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    path = adapter / "adapter_model.safetensors"
    blob = bytearray(path.read_bytes())
    size = struct.unpack("<Q", blob[:8])[0]
    for name, tensor in json.loads(blob[8:8 + size]).items():
        if name == "__metadata__":
            continue
        first, end = (8 + size + o for o in tensor["data_offsets"])
        large = "layers.1.mlp.up_proj.lora_B" in name
        blob[first:end] = struct.pack("<f", 60000 if large else 0) * ((end - first) // 4)
    path.write_bytes(blob)
    told = train("least", adapter=adapter, max_steps=40, status=1)
    assert [e["loss_scale"] for e in events("least", "overflow")] == [2**k for k in range(15, -1, -1)]
    event, = events("least", "nonfinite")
    assert event["pass"] == "backward" and event["layer"] == 1 and event["step"] == 17, event
    assert event["operation"] in told and "layer 1" in told, told
    # Another type has the range, and the run goes on in it.
    assert "--resume --compute bf16" in told, told
    for compute in ("bf16", "f32"):
        shutil.copytree(work / "least", work / f"least-{compute}")
        train(f"least-{compute}", adapter=None, max_steps=40, compute=compute, resume=True)
        assert [e["step"] for e in events(f"least-{compute}", "step")] == list(range(17, 41))


try:
    for case in (ten_losses_are_those_of_f32_to_rounding, an_overflow_halves_the_scale_and_200_good_steps_double_it,
                 the_least_scale_is_an_error_that_names_the_operation):
        case()
        print("ok ", case.__name__)
finally:
    shutil.rmtree(work, ignore_errors=True)
