#!/usr/bin/env python3
"""What hone refuses, through the program: one clear sentence, the right exit status, nothing left behind.

    tests/e2e/refusals.py HONE

Runs with the tiny models of tests/golden/data in a temporary directory; every case prints "ok" or what it saw,
and the last line counts them. Full disks are small tmpfs mounts in a mount namespace of its own; where the
system gives none, those cases say so."""
import hashlib
import json
import math
import os
import pathlib
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time

import hostile  # these two are beside this file
from cases import case, run_cases

INSIDE = "HONE_TEST_MOUNTS"
if INSIDE not in os.environ:
    mounts = subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0 if shutil.which("unshare") else False
    environment = {**os.environ, INSIDE: "1" if mounts else "0"}
    command = [sys.executable, *sys.argv]
    os.execvpe(*(("unshare", ["unshare", "-rm", *command]) if mounts else (command[0], command)), environment)

hone = pathlib.Path(sys.argv[1]).resolve()
golden = pathlib.Path(__file__).resolve().parent.parent / "golden/data"
work = pathlib.Path(tempfile.mkdtemp(prefix="hone-refusals-"))
here = work / "here"  # where commands run; compared before and after
environment = {**os.environ, "HONE_HOME": str(here / "home")}
LLAMA, QWEN = golden / "llama-tied", golden / "qwen2"  # without and with a chat template
FAST = ["--device", "ref", "--threads", "1"]
BARE = ["train", "--model", LLAMA, "--data", LLAMA / "rows.jsonl", *FAST]
TRAIN = [*BARE, "--batch-size", "2", "--lora-rank", "2", "--epochs", "99"]
TURN = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'


def text(arguments):
    return [os.fsdecode(a) if isinstance(a, (bytes, os.PathLike)) else str(a) for a in arguments]


def run(*arguments, limits=None, **more):
    return subprocess.run([hone, *text(arguments)], cwd=here, env=environment, capture_output=True, stdin=subprocess.DEVNULL,
                          preexec_fn=limits, timeout=1200, **more)


def done(*arguments, **more):
    result = run(*arguments, **more)
    assert result.returncode == 0, f"{text(arguments)}: {result.returncode} {result.stderr.decode(errors='replace')[-400:]}"
    return result


def standing(directory=None):
    """Everything below a directory: names, sizes and contents."""
    found = {}
    for path in sorted((directory or here).rglob("*")):
        found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else "-"
    return found


def check_error(result, status, code, mentions, what):
    """The object alone on stdout, complete, with what the sentence must name."""
    assert result.returncode == status, f"{what}: status {result.returncode}, not {status}: {result.stdout[-300:]} {result.stderr[-300:]}"
    assert result.stderr == b"", f"{what}: stderr {result.stderr[-300:]}"
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 1, f"{what}: {len(lines)} lines on stdout: {lines[-3:]}"
    error = json.loads(lines[0])["error"]
    assert sorted(error) == ["code", "fix", "what", "where", "why"], f"{what}: {error}"
    assert error["code"] == code and error["where"] and error["what"] and error["fix"], f"{what}: {error}"
    whole = " ".join(error.values())
    for mention in mentions:
        assert str(mention) in whole, f"{what}: {mention!r} is not in {error}"
    return error


CODES = {1: "failed", 2: "usage", 4: "memory", 3: "input"}


def refused(arguments, status, *mentions, code=None, limits=None, quick=False):
    """Once for programs, once for people; both leave the directory as it was."""
    before, what = standing(), " ".join(text(arguments))
    error = check_error(run(*arguments, "--json", limits=limits), status, code or CODES[status], mentions, what)
    if not quick:
        plain = run(*arguments, limits=limits)
        assert plain.returncode == status and plain.stdout == b"", f"{what}: status {plain.returncode}, stdout {plain.stdout[-300:]}"
        sentence = plain.stderr.decode()
        assert sentence.count("\n") == 1 and sentence.endswith("\n"), f"{what}: not one line: {sentence}"
        assert error["fix"] in sentence, f"{what}: {sentence}"
    assert standing() == before, f"{what}: left behind {set(standing()) ^ set(before)}"
    return error


def hostile_files(kind, path, command, variants, harmless=()):
    """Each variant is refused, naming the path, or is one of those that only say something else: then the numbers mean
    something else too, which may be no number at all."""
    count = accepted = 0
    for name, data in variants:
        path.write_bytes(data)
        result = run(*command, "--json")
        count += 1
        other = result.returncode == 0 or (result.returncode == 1 and b'"what":"no logit of the next token is a number"' in result.stdout)
        if other and name.startswith(tuple(harmless)):
            accepted += 1
            shutil.rmtree(here / "home", ignore_errors=True)
            continue
        error = check_error(result, 3, "input", [], f"{kind}: {name}")
        assert str(path.relative_to(here)).split("/")[0] in error["what"] + error["why"], f"{kind}: {name}: no file in {error}"
    print(f"      {kind}: {count} files, {accepted} of them only say something else")


# ---- models ----

@case
def every_lie_in_a_gguf_is_refused():
    data, fields = hostile.tiny_gguf(LLAMA)
    path = here / "m.gguf"
    path.write_bytes(data)
    done("eval", "--model", "m.gguf", "--data", LLAMA / "rows.jsonl", *FAST)
    harmless = ["version = 2", "llama.context_length = ", "type of ", "element type of ",
                "tokenizer.ggml.eos_token_id = ", "tokenizer.ggml.bos_token_id = "]
    hostile_files("gguf", path, ["generate", "--model", "m.gguf", "--prompt", "a", "--max-tokens", "1", *FAST],
                  hostile.gguf_lies(data, fields), harmless)
    hostile_files("gguf, cut", path, ["pull", "m.gguf"], hostile.cuts(data, fields))


@case
def every_lie_in_a_safetensors_file_is_refused():
    shutil.copytree(LLAMA, here / "m")
    path = here / "m/model.safetensors"
    header, payload = hostile.split_safetensors(path)
    whole = path.read_bytes()
    hostile_files("safetensors", path, ["pull", "m"], hostile.safetensors_lies(header, payload))
    ends = [(f"cut at byte {end}", whole[:end]) for end in (0, 1, 7, 8, 9, len(whole) - len(payload) - 1, len(whole) - len(payload), len(whole) - 1)]
    hostile_files("safetensors, cut", path, ["pull", "m"], [*ends, ("longer", whole + b"\0")])


@case
def every_lie_in_a_configuration_is_refused():
    for model, keys in (("llama-scaled", ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
                                          "vocab_size", "head_dim", "max_position_embeddings", "rms_norm_eps"]), ("qwen2", ["vocab_size"])):
        shutil.copytree(golden / model, here / model)
        path = here / model / "config.json"
        config = json.loads(path.read_text())
        lies = [(f"{key} = {lie}", json.dumps({**config, key: lie}).encode()) for key in keys for lie in hostile.json_lies(config[key])]
        lies += [(f"rope_scaling = {lie}", json.dumps({**config, "rope_scaling": lie}).encode()) for lie in (1, "x", [], True)]
        lies += [("cut", path.read_bytes()[:-9]), ("empty", b""), ("a list", b"[]"), ("not UTF-8", b'{"a":"\xff"}')]
        path.write_text(json.dumps({**config, "hidden_size": config["hidden_size"] + 16, "head_dim": 16}))
        refused(["pull", model], 3, "it is [48], the configuration asks for [64]")
        hostile_files(f"config.json of {model}", path, ["pull", model], lies,
                      ["max_position_embeddings = ", "rms_norm_eps = ", "num_key_value_heads = None", "head_dim = None"])


@case
def a_damaged_tokenizer_is_refused():
    shutil.copytree(LLAMA, here / "m")
    path = here / "m/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary, first = tokenizer["model"]["vocab"], next(iter(tokenizer["model"]["vocab"]))
    lies = [(f"id = {lie}", json.dumps({**tokenizer, "model": {**tokenizer["model"], "vocab": {**vocabulary, first: lie}}}).encode())
            for lie in (1, -1, 272, 1 << 31, 1 << 63, 1e300, "x", None)]
    lies += [("cut", path.read_bytes()[:1000]), ("empty", b""), ("a list", b"[]"), ("no merges", json.dumps({**tokenizer, "model": {"vocab": {}}}).encode())]
    hostile_files("tokenizer.json", path, ["pull", "m"], lies)
    for content, cause in ((b"", "m/tokenizer.json is empty"), (b"[]", "m: tokenizer.json: not a JSON object"), (b"{", "m: tokenizer.json:1: broken JSON")):
        path.write_bytes(content)
        refused(["pull", "m"], 3, cause)
    path.write_text(json.dumps(tokenizer))
    config = here / "m/tokenizer_config.json"
    for content, cause in ((b"", "m/tokenizer_config.json is empty"), (b"[]", "not a JSON object"), (b"{", "tokenizer_config.json:1: broken JSON")):
        config.write_bytes(content)
        refused(["pull", "m"], 3, "tokenizer_config.json", cause)


@case
def a_model_of_another_kind_is_refused():
    (here / "mamba.gguf").write_bytes(hostile.tiny_gguf(LLAMA, architecture="mamba")[0])
    refused(["pull", "mamba.gguf"], 3, "mamba.gguf", "mamba", "llama and qwen2")
    shutil.copytree(LLAMA, here / "m")
    config = json.loads((here / "m/config.json").read_text())
    for change, mention in (({"model_type": "gpt2"}, "gpt2"), ({"hidden_act": "gelu"}, "gelu"), ({"model_type": None}, "model_type"),
                            ({"quantization_config": {"bits": 4}}, "quantization_config"), ({"mlp_bias": True}, "gate_proj.bias"), ({"mlp_bias": "yes"}, "mlp_bias"),
                            ({"attention_bias": True}, "q_proj.bias"), ({"attention_bias": 1}, "attention_bias"),
                            ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
                            ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}}, "yarn"),
                            ({"rope_scaling": {}, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn")):
        (here / "m/config.json").write_text(json.dumps({**config, **change}))
        refused(["pull", "m"], 3, "m: config.json" if mention not in ("gpt2", "q_proj.bias", "gate_proj.bias") else "m", mention)
        refused(["train", "--model", "m", "--data", LLAMA / "rows.jsonl", "--output", "out", *FAST], 3, mention)
    (here / "m/config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    refused(["generate", "--model", "m", "--prompt", "a", *FAST], 3, "m: the tensor lm_head.weight is missing", "tie_word_embeddings is false")
    (here / "m/config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "tie_word_embeddings"}))
    done("generate", "--model", "m", "--prompt", "a", "--max-tokens", "1", *FAST)
    (here / "m/model.safetensors").rename(here / "m/pytorch_model.bin")
    (here / "m/config.json").write_text(json.dumps(config))
    refused(["pull", "m"], 3, "pytorch_model.bin", "safetensors")
    data, fields = hostile.tiny_gguf(LLAMA)
    at = next(at for name, at, _, _ in fields if name == "type of blk.0.attn_q.weight")
    (here / "k.gguf").write_bytes(data[:at] + (12).to_bytes(4, "little") + data[at + 4:])
    refused(["pull", "k.gguf"], 3, "k.gguf", "blk.0.attn_q.weight")
    (here / "text.gguf").write_text("hello, this is no model at all")
    refused(["pull", "text.gguf"], 3, "text.gguf", "not a GGUF file")
    refused(["train", "--model", "nowhere", "--data", LLAMA / "rows.jsonl", "--output", "out", *FAST], 3, "nowhere")


@case
def an_adapter_of_another_model_is_refused():
    for command in (["eval", "--data", LLAMA / "rows.jsonl"], ["generate", "--prompt", "a"], ["train", "--data", LLAMA / "rows.jsonl", "--output", "out"]):
        refused([*command, "--model", LLAMA, "--adapter", golden / "llama-untied/adapter", *FAST], 3, "mlp", "linear of")
        refused([*command, "--model", LLAMA, "--adapter", here / "none", *FAST], 3, "none")


@case
def an_adapter_of_other_weights_is_told():
    """Weights of the same shapes, one number of them another; the same ones in another container are the same."""
    data = ["--data", QWEN / "rows.jsonl"]
    done("train", "--model", QWEN, *data, *FAST, "--max-steps", "1", "--lora-rank", "2", "--output", "trained")
    done("convert", "--model", QWEN, "--to", "gguf", "--type", "f32", "--output", "same.gguf")
    shutil.copytree(QWEN, here / "other")
    header, payload = hostile.split_safetensors(QWEN / "model.safetensors")
    at = next(entry["data_offsets"][0] for name, entry in header.items() if name.endswith("layers.1.mlp.up_proj.weight"))
    whole = bytearray((QWEN / "model.safetensors").read_bytes())
    at += len(whole) - len(payload)
    whole[at:at + 4] = bytes(4)
    (here / "other/model.safetensors").write_bytes(whole)
    for model, told in ((QWEN, False), ("same.gguf", False), ("other", True)):
        use = ["--model", model, "--adapter", "trained/adapter", *FAST]
        for command in (["generate", "--prompt", "a", "--max-tokens", "1"], ["eval", *data]):
            result = done(*command, *use, "--json")
            assert (b"other weights than this model's; its base is qwen2" in result.stderr) == told, (model, command, result.stderr)
            assert len(result.stdout.splitlines()) == 1, result.stdout
        assert (b"warning: the adapter" in run("chat", *use).stderr) == told, model
        shutil.rmtree(here / "again", ignore_errors=True)
        done("train", *use, *data, "--max-steps", "1", "--output", "again")
        assert any("other weights" in e["message"] for e in events("again") if e["event"] == "warning") == told, model
    done("generate", "--model", "other", "--adapter", QWEN / "adapter", "--prompt", "a", "--max-tokens", "1", *FAST)  # PEFT's says nothing


@case
def every_lie_in_an_adapter_is_refused():
    shutil.copytree(LLAMA / "adapter", here / "a")
    command = ["generate", "--model", LLAMA, "--adapter", "a", "--prompt", "a", "--max-tokens", "1", *FAST]
    done(*command)
    path = here / "a/adapter_model.safetensors"
    whole = path.read_bytes()
    header, payload = hostile.split_safetensors(path)
    few = {name: header[name] for name in list(header)[:4]}
    lies = [one for one in hostile.safetensors_lies({**few}, payload[:max(e["data_offsets"][1] for e in few.values() if "data_offsets" in e)])]
    hostile_files("adapter", path, command, lies)
    path.write_bytes(whole)
    config = json.loads((here / "a/adapter_config.json").read_text())
    lies = [(f"r = {lie}", json.dumps({**config, "r": lie}).encode()) for lie in hostile.json_lies(config["r"])]
    lies += [(f"{key} = {value}", json.dumps({**config, key: value}).encode()) for key, value in
             (("peft_type", "LOHA"), ("use_dora", True), ("lora_alpha", "x"), ("lora_alpha", None), ("bias", "all"))]
    hostile_files("adapter_config.json", here / "a/adapter_config.json", command, lies)
    for pattern, mention in (({"q_proj": 8}, "rank 4, by rank_pattern"), ({"(": 4}, '"("'), ({"q_proj": 0}, "rank_pattern")):
        (here / "a/adapter_config.json").write_text(json.dumps({**config, "rank_pattern": pattern}))
        refused(command, 3, mention)
    (here / "a/adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    refused(command, 3, "has no lora_magnitude_vector beside it, but use_dora is true")
    for field, value in (("layer_replication", [[0, 2]]), ("bias", "lora_only"), ("peft_type", "LOHA")):
        (here / "a/adapter_config.json").write_text(json.dumps({**config, field: value}))
        refused(command, 3, "adapter_config.json", field, "merge_and_unload")


@case
def dora_of_the_head_is_refused_with_what_to_do():
    untied = golden / "llama-untied"
    shutil.copytree(golden.parent / "variants/dora/adapter", here / "a")
    path = here / "a/adapter_model.safetensors"
    header, payload = hostile.split_safetensors(path)
    hidden, vocabulary, rank = 48, 272, json.loads((here / "a/adapter_config.json").read_text())["r"]
    for part, shape in (("lora_A.weight", [rank, hidden]), ("lora_B.weight", [vocabulary, rank]), ("lora_magnitude_vector", [vocabulary])):
        size = 4 * math.prod(shape)
        header[f"base_model.model.lm_head.{part}"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(payload), len(payload) + size]}
        payload += bytes(size)
    table = json.dumps(header).encode()
    path.write_bytes(len(table).to_bytes(8, "little") + table + payload)
    refused(["generate", "--model", untied, "--adapter", "a", "--prompt", "a", *FAST], 3, "DoRA of lm_head", "merge_and_unload")


@case
def a_base_type_that_does_not_fit_is_refused():
    run = [*BARE, "--output", "out"]
    refused([*run, "--base-type", "q9_9"], 2, "--base-type", "q9_9", "q4_k")
    refused([*run, "--base-type", "bf16"], 2, "bf16", "quantised type")
    refused([*run, "--base-type", "q4_k"], 2, "q4_k", "q_proj.weight", "48 elements")
    refused([*run, "--method", "qlora", "--base-type", "as-stored"], 2, "qlora", "stored in f32")
    refused(["eval", "--model", LLAMA, "--data", LLAMA / "rows.jsonl", "--base-type", "q8_0", *FAST], 2, "q_proj.weight")


@case
def loftq_needs_the_float_weights():
    done("convert", "--model", LLAMA, "--to", "safetensors", "--type", "int8", "--output", here / "int8")
    run = ["train", "--model", "int8", "--data", LLAMA / "rows.jsonl", *FAST, "--output", "out"]
    refused([*run, "--lora-init", "loftq"], 2, "int8 already", "made from")
    refused([*run, "--lora-init", "loftq", "--base-type", "int8"], 2, "int8 already")
    done(*run, "--lora-init", "pissa", "--lora-rank", "2", "--max-steps", "1")  # of the values that they stand for


@case
def a_dora_adapter_is_used_and_stays_one():
    dora = golden.parent / "variants/dora/adapter"
    use = ["--model", golden / "llama-untied", "--adapter", dora, *FAST]
    done("eval", *use, "--data", golden / "llama-untied/rows.jsonl")
    done("generate", *use, "--prompt", "a", "--max-tokens", "2")
    for method in ("lora", "qlora"):
        refused(["train", *use, "--data", golden / "llama-untied/rows.jsonl", "--method", method, "--output", "out"], 2, "--method", "Leave --method out")
    shutil.copytree(dora, here / "a")
    config = json.loads((here / "a/adapter_config.json").read_text())
    (here / "a/adapter_config.json").write_text(json.dumps({**config, "use_dora": False}))
    refused(["generate", "--model", golden / "llama-untied", "--adapter", "a", "--prompt", "a", *FAST], 3, "lora_magnitude_vector", "use_dora is not true")


# ---- data and templates ----

@case
def bad_data_is_refused_by_line():
    files = {"empty.jsonl": (b"", "empty.jsonl"), "blank.jsonl": (b"\n\n", "blank.jsonl"),
             "broken.jsonl": (2 * TURN.encode() + b'{"messages": [\n' + TURN.encode(), "broken.jsonl:3"),
             "bytes.jsonl": (TURN.encode() + TURN.replace("a", "\udcff").encode(errors="surrogateescape"), "bytes.jsonl:2"),
             "silent.jsonl": (TURN.encode() + b'{"messages":[{"role":"user","content":"a"}]}\n', "silent.jsonl:2"),
             "number.jsonl": (TURN.encode() + b"7\n", "number.jsonl:2"), "utf16.jsonl": (TURN.encode("utf-16"), "utf16.jsonl"),
             "deep.jsonl": (TURN.encode() + b'{"messages":' + b"[" * 100000 + b"\n", "deep.jsonl:2"),
             "other.jsonl": (b'{"x":1}\n', "other.jsonl"), "short.csv": (b'prompt,completion\na,b\n"c\n', "short.csv:3")}
    for name, (content, mention) in files.items():
        (here / name).write_bytes(content)
        refused(["train", "--model", QWEN, "--data", name, "--output", "out", *FAST], 3, mention)
        refused(["eval", "--model", QWEN, "--data", name, *FAST], 3, mention)
    (here / "good.jsonl").write_text(TURN)
    refused(["data", "check", "good.jsonl", "empty.jsonl"], 3, "empty.jsonl has no rows")
    refused(["train", "--model", QWEN, "--data", "good.jsonl", "--data", "blank.jsonl", "--skip-bad-rows", "--output", "out", *FAST], 3, "blank.jsonl has no rows")
    refused(["train", "--model", QWEN, "--data", "good.jsonl", "--valid", "broken.jsonl", "--output", "out", *FAST], 3, "broken.jsonl:3")
    refused(["train", "--model", LLAMA, "--data", "good.jsonl", "--output", "out", *FAST], 3, "good.jsonl:1", "chat template", "--chat-template")
    (here / "untrained.jsonl").write_text(TURN.replace('"content":"b"', '"content":"b","weight":0'))
    refused(["train", "--model", QWEN, "--data", "untrained.jsonl", "--output", "out", *FAST], 3, "no row has a token to train")
    refused(["train", "--model", QWEN, "--data", "good.jsonl", "--columns", "prompt=question", "--output", "out", *FAST], 3, "no column `question`", "the columns are messages", "--columns prompt=COLUMN")
    refused(["train", "--model", QWEN, "--data", "nowhere.jsonl", "--output", "out", *FAST], 3, "nowhere.jsonl", "No such file")
    refused(["train", "--model", QWEN, "--data", here, "--output", "out", *FAST], 3, "directory")


@case
def bad_requests_are_refused_by_line():
    (here / "in.jsonl").write_text('{"prompt":"a"}\n{"prompt":\n')
    (here / "m.json").write_text('[{"content":"a"}]')
    generate = ["generate", "--model", QWEN, *FAST]
    refused([*generate, "--batch", "in.jsonl", "--output", "out.jsonl"], 3, "in.jsonl:2")
    refused([*generate, "--messages", "m.json"], 3, "m.json", "role")
    refused([*generate[:1], "--model", LLAMA, *FAST, "--prompt", ""], 3, "prompt")
    refused([*generate, "--messages", "none.json"], 3, "none.json")
    refused(["generate", "--model", LLAMA, *FAST, "--prompt", "x" * 9000, "--context", "16"], 3, "token")
    (here / "long.jsonl").write_text('{"prompt":"a"}\n{"prompt":"' + "x" * 9000 + '"}\n')
    for more, mention in (([], "has no more"), (["--context", "128"], "larger --context")):
        refused([*generate, "--batch", "long.jsonl", "--output", "out.jsonl", *more], 3, "long.jsonl:2: the prompt has", mention)


def seconds_of_children():
    """Of the processor: on a busy machine the clock says nothing of a budget."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@case
def bad_templates_are_refused_within_their_budgets():
    (here / "rows.jsonl").write_text(TURN)
    templates = {"raises": ("{{ raise_exception('roles must alternate') }}", "roles must alternate"), "open": ("{% for m in messages %}", "open:1"),
                 "odd": ("a\n{{ 1 + }}", "odd:2"), "undefined": ("{{ nothing.at.all }}", "undefined:1"),
                 "loops": ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "steps"),
                 "recursive": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested deeper"),
                 "grows": ("{% set n = namespace(s='x') %}{% for a in range(99999) %}{% set n.s = n.s + n.s %}{% endfor %}", "grows:1"),
                 "prints": ("{% for a in range(100000) %}{{ 'x' * 100000 }}{% endfor %}", "prints:1"), "filter": ("{{ 1 | nosuch }}", "nosuch")}
    for name, (source, mention) in templates.items():
        (here / name).write_text(source)
        start = seconds_of_children()
        for command in (["train", "--data", "rows.jsonl", "--output", "out"], ["generate", "--prompt", "a"], ["eval", "--data", "rows.jsonl"]):
            refused([*command, "--model", QWEN, "--chat-template", name, *FAST], 3, mention, name, "--chat-template")
        assert seconds_of_children() - start < 30, f"{name} takes {seconds_of_children() - start:.1f} s"
    bad = TURN.replace('"b"', '"no"')
    (here / "some.jsonl").write_text(TURN + 11 * bad + TURN)
    (here / "choosy").write_text("{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('never no') }}{% endif %}{{ m.content }}{% endfor %}")
    flags = ["--model", QWEN, "--chat-template", "choosy", *FAST]
    for command in (["train", "--data", "some.jsonl", "--output", "out"], ["train", "--data", "rows.jsonl", "--valid", "some.jsonl", "--output", "out"],
                    ["eval", "--data", "some.jsonl"], ["data", "preview", "some.jsonl", "--rows", "2"]):
        flags = flags if command[0] != "data" else flags[:4]
        error = refused([*command, *flags], 3, "some.jsonl:2: ", "choosy:1: never no", "11 bad rows of 13", "line 11: ", "--skip-bad-rows")
        assert "line 12" not in error["why"], error
    done("train", "--data", "some.jsonl", "--output", "run", "--model", QWEN, "--chat-template", "choosy", *FAST, "--max-steps", "1", "--skip-bad-rows")
    skipped = [e["message"] for e in events("run") if e["event"] == "warning" and "skipped" in e["message"]]
    assert len(skipped) == 11 and all("never no" in message for message in skipped), skipped
    measured = json.loads(done("eval", "--data", "some.jsonl", "--model", QWEN, "--chat-template", "choosy", *FAST, "--skip-bad-rows", "--json").stdout)
    assert measured["bad_rows"] == len(measured["problems"]) == 11 and measured["examples"] == 2, measured
    data, _ = hostile.tiny_gguf(LLAMA, template="{% while true %}")
    (here / "m.gguf").write_bytes(data)
    refused(["train", "--model", "m.gguf", "--data", "rows.jsonl", "--output", "out", *FAST], 3, "while")
    for command in (["train", "--data", "rows.jsonl", "--output", "out"], ["generate", "--prompt", "a"], ["data", "check", "rows.jsonl"]):
        flags = FAST if command[0] != "data" else []
        refused([*command, "--model", QWEN, "--chat-template", "none", *flags], 2, "none", "a file", "chatml, llama3, alpaca, zephyr, plain")


# ---- settings ----

@case
def unknown_out_of_range_and_conflicting_settings_are_refused():
    train, wide = [*BARE, "--output", "out"], [*TRAIN, "--output", "out"]
    (here / "r.yaml").write_text("epoch: 3\n")
    rows = [([*train, "--lora-rnk", "4"], "--lora-rank"), ([*train, "--lora_r", "4"], "--lora-rank"), ([*train, "--lora-dropout", "1.5"], "1.5"),
            ([*train, "--lora-rank", "0"], "between"), ([*train, "--lora-rank", "9" * 30], "lora-rank"), ([*train, "--learning-rate", "nan"], "nan"), ([*train, "--learning-rate", "1e400"], "1e400 is out of range"),
            ([*train, "--schedule", "cos"], "cosine"), ([*train, "--early-stopping", "3"], "held-out rows"),
            ([*train, "--learning-rate-pattern", "nothing=2"], 'called "nothing"'), ([*train, "--weight-decay-pattern", "q_proj=-1"], "not negative"),
            ([*train, "--weight-decay-pattern", "(=1"], "regular expression"),
            ([*train, "--optimizer", "sgd", "--momentum", "0", "--nesterov"], "nesterov needs momentum"), ([*train, "--optimizer", "sgd", "--momentum", "0", "--dampening", "0.5"], "dampening is not read"),
            ([*train, "--learning-rate-pattern", "2"], "PATTERN=NUMBER"), ([*train, "--learning-rate-pattern", "(=1"], '"(" is no regular'), ([*train, "--lora-targets", "nothing"], 'no linear module "nothing"'),
            ([*train, "--lora-targets", "q_proj("], "q_proj("), ([*train, "--lora-layers", "3"], "2 layers"),
            ([*train, "--lora-rank", "17"], "smaller side of model.layers.0.self_attn.k_proj"),
            ([*train, "--lora-rank-pattern", "q_proj"], "PATTERN=NUMBER"), ([*train, "--lora-rank-pattern", "q_proj=1.5"], "PATTERN=NUMBER"),
            ([*train, "--lora-rank-pattern", "x_proj=2"], 'adapted is called "x_proj"'), ([*train, "--lora-alpha-pattern", "(=2"], '"("'),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-layers", "1"], "lora-layers conflicts"),
            ([*wide, "--method", "full"], "lora-rank is not read by --method full"), ([*train, "--freeze", "norm"], "freeze is not read by --method lora"),
            ([*train, "--method", "full", "--loraplus-ratio", "4"], "loraplus-ratio is not read by --method full"),
            ([*train, "--method", "full", "--adapter", LLAMA / "adapter"], "adapter is not read by --method full"),
            ([*train, "--method", "full", "--freeze", "x_proj"], 'no weight "x_proj"'), ([*train, "--method", "full", "--freeze", "("], '"("'),
            ([*train, "--method", "full", "--freeze", ".*"], "nothing to train"),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-rslora"], "lora-rslora conflicts"),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-init", "gaussian"], "lora-init conflicts"),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-init", "pissa"], "lora-init conflicts"),
            ([*train, "--lora-init", "pissa", "--method", "dora"], "no place for the lengths"), ([*train, "--lora-init", "olora", "--method", "dora"], "olora"),
            ([*train, "--lora-init", "loftq"], "--base-type nf4"), ([*train, "--lora-init-steps", "4"], "lora-init-steps is not read by --lora-init default"),
            ([*wide, "--lora-targets", "q_proj,lm_head", "--lora-dropout", "0.1"], "lm_head yet"),
            ([*wide, "--lora-targets", "q_proj,embed_tokens", "--method", "dora"], "embed_tokens yet"),
            ([*wide, "--lora-targets", "q_proj,embed_tokens", "--lora-init", "olora"], "embed_tokens yet"),
            ([*wide, "--lora-targets", "lm_head", "--lora-layers", "1"], "in the last 1 layer"),
            ([*wide, "--lora-targets", "layers\\.0\\..*", "--lora-layers", "1"], "only modules of model.layers.1 and above"),
            ([*wide, "--lora-targets", "q_proj", "--lora-alpha-pattern", "v_proj=2"], "what --lora-targets names"),
            ([*wide, "--lora-rank-pattern", "q_proj=4,v_proj=2,q_proj=8"], '--lora-rank-pattern names "q_proj" twice'), ([*wide, "--lora-alpha-pattern", "q_proj=4,q_proj=4"], "twice"),
            ([*train, "--learning-rate-pattern", "lora_B=2,lora_B=4"], "twice"), ([*train, "--weight-decay-pattern", "q_proj=0,q_proj=1"], "twice"),
            ([*train, "--lora-targets", "q_proj,q_proj"], '--lora-targets names "q_proj" twice'), ([*train, "--modules-to-save", "norm,norm"], "twice"),
            ([*train, "--method", "full", "--freeze", "norm,norm"], "twice"),
            ([*wide, "--lora-targets", "q_proj,v_proj", "--modules-to-save", "norm,q_proj"], '"q_proj" adapts nothing that --modules-to-save'),
            ([*train, "--optimizer", "sgd", "--momentum", "0", "--offload-optimizer"], "nothing to keep in a file"),
            ([*train, "--modules-to-save", "x_proj"], 'no weight "x_proj"'), ([*train, "--modules-to-save", "("], '"("'),
            ([*train, "--modules-to-save", ".*_proj"], "nothing for the adapter"), ([*train, "--method", "full", "--modules-to-save", "norm"], "modules-to-save is not read"),
            ([*train, "--adapter", LLAMA / "adapter", "--modules-to-save", "norm"], "modules-to-save conflicts"),
            ([*train, "--lora-init", "pissa_niter_4"], "pissa"), ([*train, "--method", "full", "--lora-init", "pissa"], "lora-init is not read by --method full"),

            ([*train, "--memory", "lots"], "600MiB"), ([*train, "--valid", "a", "--valid-split", "0.1"], "valid-split"),
            ([*train, "--valid-split", "0.01"], "valid-split"), ([*train, "--adapter", LLAMA / "adapter", "--resume"], "resume"),
            ([*wide, "--adapter", LLAMA / "adapter"], "lora-rank 2 conflicts with the rank 4"),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-alpha", "5.5"], "lora-alpha 5.5 conflicts with the alpha 8"),
            ([*train, "--adapter", LLAMA / "adapter", "--lora-targets", "q_proj"], "lora-targets conflicts with the targets q_proj,"),
 ([*train, "--template-arg", "x"], "NAME=VALUE"),
            ([*train, "--recompute", "none", "--recompute-layers", "1"], "recompute-layers is not read by --recompute none"),
            ([*train, "--recompute", "block", "--recompute-layers", "3"], "recompute-layers 3 is more than the model's 2 layers"),
            ([*train, "--recompute", "block", "--recompute-span", "3"], "recompute-span 3 is more than the model's 2 layers"),
            ([*train, "--recompute", "selective", "--recompute-span", "2"], "recompute-span is not read by --recompute selective"),
            ([*train, "--recipe", "r.yaml"], "r.yaml:1"), (["eval", "--model", LLAMA, "--data", LLAMA / "rows.jsonl", "--device", "gpu"], "cpu"), ([*train, "--epochs"], "epochs"),
            ([*train, "--columns", "nonsense"], "columns"), ([*train, "stray"], "stray"), (["train", "--output", "out"], "--model"),
            (["train", "--model", LLAMA, "--output", "out"], "--data"), (TRAIN, "--output"), (["trian"], "train"),
            (["generate", "--model", LLAMA], "--prompt"), (["generate", "--model", LLAMA, "--prompt", "a", "--batch", "b"], "exclude"),
            (["generate", "--model", LLAMA, "--prompt", "a", "--top-p", "2"], "top-p"), (["eval", "--model", LLAMA], "--data"),
            (["plan", *BARE[1:5], "--device", "cpu,"], 'no device ""'), (["plan", *BARE[1:5], "--device", "cpu,cpu,gpu"], 'no device "gpu"'),
            (["plan", *BARE[1:5], "--device", "cuda:0,0"], "names cuda:0 twice"), (["plan", *BARE[1:5], "--device", "cuda:1,2,cuda:1"], "names cuda:1 twice"),
            (["eval", "--model", LLAMA, "--data", LLAMA / "rows.jsonl", "--device", "cpu,cpu"], "several are for hone train"),
            (["pull", LLAMA, "--name", "Not A Name"], "Not A Name"), (["data", "check"], "rows.jsonl")]
    for arguments, mention in rows:
        refused(arguments, 2, mention)


@case
def how_often_to_measure_without_rows_to_measure_is_told():
    done(*TRAIN, "--max-steps", "2", "--eval-every", "1", "--output", "unmeasured")
    assert any("no held-out rows" in e["message"] for e in events("unmeasured") if e["event"] == "warning")
    done(*TRAIN, "--max-steps", "2", "--output", "plain")  # nor does a run's own recipe ask for it
    done("train", "--recipe", "plain/recipe.yaml", "--output", "plain-again")
    assert not any(e["event"] == "warning" for e in events("plain-again")), events("plain-again")


@case
def more_files_than_a_recipe_holds_are_refused_before_the_start():
    """At the limit the run goes on from its recipe; above it does not begin."""
    (here / "d").mkdir()
    shutil.copy(LLAMA / "rows.jsonl", here / "d/0.jsonl")
    for i in range(1, 1000):
        (here / f"d/{i}.jsonl").symlink_to("0.jsonl")
    files = lambda count: [word for i in range(count) for word in ("--data", f"d/{i}.jsonl")]
    train = ["train", "--model", LLAMA, *FAST, "--lora-targets", "q_proj", "--lora-rank", "1", "--batch-size", "1", "--max-steps", "1"]
    error = refused([*train, *files(1000), "--output", "out"], 2, "1001 values", "at most", "Join files")
    most = int(error["what"].split()[-1]) - 1  # the target is one of them
    refused([*train, *files(most + 1), "--output", "out"], 2, "at most", quick=True)
    done(*train, *files(most), "--output", "run")
    done("train", "--output", "run", "--resume")
    long = "x" * 200 + "/" + "y" * 200
    refused(["plan", "--model", LLAMA, *[w for i in range(most) for w in ("--data", f"{long * 5}{i}")]], 2, "bytes", "shorter paths", quick=True)


@case
def a_directory_that_is_not_empty_is_refused():
    (here / "full").mkdir()
    (here / "full/mine").write_text("mine")
    refused([*TRAIN, "--output", "full"], 2, "full", "not empty", "--resume")
    refused([*TRAIN, "--output", "full", "--resume"], 2, "full", "no run to resume")
    (here / "file").write_text("mine")
    refused([*TRAIN, "--output", "file"], 2, "file", "not a directory")
    refused([*TRAIN, "--output", "file/below"], 3, "file")
    (here / "empty").mkdir()
    refused([*TRAIN, "--output", "empty", "--memory", "1KiB"], 4, "--memory")
    refused([*TRAIN, "--output", "a/b/c", "--memory", "1KiB"], 4, "--memory")
    shutil.copytree(LLAMA, here / "infinite")  # refused before the run's directory is made
    weights = bytearray((here / "infinite/model.safetensors").read_bytes())
    weights[-4:] = struct.pack("<f", math.inf)
    (here / "infinite/model.safetensors").write_bytes(weights)
    (here / "outer/inner").mkdir(parents=True)
    for output in ("empty", "outer/inner", here / "outer/inner", "outer/inner/new"):
        refused(["train", "--model", "infinite", "--data", LLAMA / "rows.jsonl", *FAST, "--method", "full", "--output", output], 3, "infinity")
    (here / "killed").mkdir()  # as a kill before the first step leaves it
    (here / "killed/.lock").touch()
    (here / "killed/recipe.yaml.partial-1").touch()
    done(*TRAIN, "--output", "killed", "--resume", "--max-steps", "1")
    assert sorted(p.name for p in (here / "killed").iterdir()) == [".lock", "adapter", "checkpoints", "events.jsonl", "recipe.yaml", "tensorboard"]


@case
def a_directory_in_use_is_refused():
    first = subprocess.Popen([hone, *text([*TRAIN, "--output", "run", "--max-steps", "5000", "--save-every", "5000"])], cwd=here,
                             env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    wait_for_step(here / "run", 1)
    for more in ([], ["--resume"]):
        result = run(*TRAIN, "--output", "run", *more, "--json")
        check_error(result, 2, "usage", ["run", "in use"], "in use")
    assert first.poll() is None, first.stderr.read()
    first.terminate()
    assert first.wait(600) == 130, first.stderr.read()


def wait_for_step(directory, step):
    end, log = time.time() + 600, directory / "events.jsonl"
    while time.time() < end:
        if log.exists() and f'"event":"step","version":1' in log.read_text() and f'"step":{step},' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} in {log}")


# ---- resume ----

def tiny_run(name, *more):
    done(*TRAIN, "--output", name, "--max-steps", "6", "--save-every", "2", "--keep", "9", "--valid-split", "0.2", *more)
    return adapter(name)


def adapter(name):
    return (here / name / "adapter/adapter_model.safetensors").read_bytes()


@case
def a_changed_recipe_is_refused_on_resume():
    tiny_run("run")
    shutil.copy(LLAMA / "rows.jsonl", here / "rows.jsonl")
    with open(here / "rows.jsonl", "a") as file:
        file.write('{"prompt":"a","completion":"b"}\n')
    resume = ["train", "--output", "run", "--resume"]
    for arguments, mention in ((["--lora-rank", "4"], "lora-rank"), (["--seed", "9"], "seed"), (["--learning-rate", "0.5"], "learning-rate"),
                               (["--batch-size", "3"], "batch-size"), (["--max-steps", "9"], "max-steps"), (["--epochs", "2"], "epochs"),
                               (["--data", "rows.jsonl"], "the data files"), (["--valid", "rows.jsonl"], "the held-out files"), (["--model", golden / "llama-untied"], "model"), (["--valid-split", "0.3"], "valid-split"),
                               (["--no-shuffle"], "shuffle")):
        refused([*resume, *arguments], 2, mention, "changed since the run was started")
    shutil.rmtree(here / "run")
    done(*TRAIN, "--max-steps", "2", "--valid-split", "0.3", "--early-stopping", "5", "--output", "run")
    for arguments, mention in ((["--eval-every", "7"], "eval-every"), (["--early-stopping", "6"], "early-stopping"),
                               (["--early-stopping-threshold", "1"], "early-stopping-threshold")):
        refused([*resume, *arguments], 2, mention, "changed since the run was started")
    (here / "run/recipe.yaml").write_text("model: [\n")
    refused(resume, 2, "recipe.yaml")


@case
def a_lost_best_checkpoint_is_told_and_the_next_one_counts():
    flags = [*TRAIN, "--max-steps", "12", "--valid-split", "0.3", "--learning-rate", "0.05", "--schedule", "constant", "--eval-every", "2", "--early-stopping", "9"]
    done(*flags, "--output", "run")
    best = [e["result_step"] for e in events("run") if e["event"] == "done"][-1]
    assert best < 12, "the run must overfit"
    shutil.rmtree(here / f"run/checkpoints/step-{best:08d}")
    done("train", "--output", "run", "--resume")
    assert any("best checkpoint is lost" in e["message"] for e in events("run") if e["event"] == "warning")
    assert [e["result_step"] for e in events("run") if e["event"] == "done"][-1] == 12


@case
def a_damaged_checkpoint_is_skipped_and_none_left_is_refused():
    whole = tiny_run("whole")
    files = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST"]
    for name in files:
        shutil.copytree(here / "whole", here / "run")
        shutil.rmtree(here / "run/adapter")
        flip(here / "run/checkpoints/step-00000006" / name)
        done("train", "--output", "run", "--resume")
        warnings = [e["message"] for e in events("run") if e["event"] == "warning"]
        assert any("step-00000006" in w and name.split("/")[-1] in w for w in warnings), (name, warnings)
        assert [e["from_step"] for e in events("run") if e["event"] == "resume"] == [4], name
        assert adapter("run") == whole, name
        shutil.rmtree(here / "run")
    shutil.copytree(here / "whole", here / "run")
    for directory, name in zip(sorted((here / "run/checkpoints").iterdir()), files):
        flip(directory / name)
    refused(["train", "--output", "run", "--resume"], 3, "run", "damaged", "step-00000006", "--output")
    for directory in (here / "run/checkpoints").iterdir():
        (directory / "MANIFEST").unlink()
    refused(["train", "--output", "run", "--resume"], 3, "MANIFEST")


@case
def a_checkpoint_of_another_run_is_skipped():
    """A folder that was copied from a run on other data, or in another order."""
    whole = tiny_run("own")
    (here / "more.jsonl").write_text("".join((LLAMA / "rows.jsonl").read_text().splitlines(keepends=True)[1:]))
    for name, flags, told in (("rows", ["--data", "more.jsonl"], "on other data"), ("order", ["--seed", "5"], "--seed")):
        tiny_run(name, *flags)
        for place in "checkpoints/step-00000006", "adapter":
            shutil.rmtree(here / "own" / place)
        shutil.copytree(here / name / "checkpoints/step-00000006", here / "own/checkpoints/step-00000006")
        done("train", "--output", "own", "--resume")
        assert any("step-00000006" in e["message"] and told in e["message"] for e in events("own") if e["event"] == "warning"), name
        assert adapter("own") == whole, name


@case
def a_checkpoint_of_a_later_version_is_not_passed_over():
    """To go on from the one before would remove it."""
    tiny_run("later")
    path = here / "later/checkpoints/step-00000006/MANIFEST"
    path.write_text(re.sub('"version": *1', '"version": 2', path.read_text()))
    refused(["train", "--output", "later", "--resume"], 2, "MANIFEST", "version 2")


@case
def a_file_that_is_missing_in_a_checkpoint_is_named():
    """Also one that nothing is read from."""
    for name in ("tokenizer_config.json", "model.safetensors"):
        done(*BARE, "--method", "full", "--output", "gap", "--batch-size", "2", "--max-steps", "4", "--save-every", "2")
        (here / "gap/checkpoints/step-00000004/model" / name).unlink()
        shutil.rmtree(here / "gap/model")
        done("train", "--output", "gap", "--resume")
        told, = [e["message"] for e in events("gap") if e["event"] == "warning" and "step-00000004" in e["message"]]
        assert name in told and "missing" in told, told
        shutil.rmtree(here / "gap")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def events(name):
    return [json.loads(line) for line in (here / name / "events.jsonl").read_text().splitlines()]


# ---- memory and disk ----

@case
def memory_that_cannot_suffice_is_refused():
    refused([*TRAIN, "--output", "out", "--memory", "1KiB"], 4, "KiB", "--memory")
    refused(["eval", "--model", LLAMA, "--data", LLAMA / "rows.jsonl", *FAST, "--memory", "1KiB"], 4, "--memory")
    refused(["generate", "--model", LLAMA, "--prompt", "a", *FAST, "--memory", "1KiB"], 4, "--memory")
    least = lambda: resource.setrlimit(resource.RLIMIT_AS, (100 << 20, 100 << 20))  # of which the libraries take about half
    refused([*BARE, "--output", "out", "--max-steps", "2", "--micro-batch-tokens", "20000"], 4, "memory", limits=least)
    shutil.copytree(LLAMA, here / "long")
    config = json.loads((here / "long/config.json").read_text())
    (here / "long/config.json").write_text(json.dumps({**config, "max_position_embeddings": 200000}))
    refused(["generate", "--model", "long", "--prompt", "a", *FAST, "--context", "200000"], 4, "memory", limits=least)


@case
def a_file_that_may_not_grow_is_refused():
    none = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Output to a pipe is not bounded by this.
    refused([*TRAIN, "--output", "a/run"], 4, "a/run", code="disk", limits=none)
    (here / "in.jsonl").write_text('{"prompt":"a"}\n')
    refused(["generate", "--model", LLAMA, *FAST, "--batch", "in.jsonl", "--output", "out.jsonl", "--max-tokens", "1"], 4, "out.jsonl", code="disk", limits=none)
    (here / "home/models").mkdir(parents=True)
    refused(["pull", LLAMA, "--name", "tiny"], 4, "tiny", code="disk", limits=none)


class Disk:
    """A disk of so many KiB at here/disk; None where the system mounts nothing."""

    def __init__(self, kib):
        self.path = here / "disk"
        self.path.mkdir()
        self.mounted = os.environ[INSIDE] == "1" and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", self.path], capture_output=True).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], check=True)

    def fill(self):
        with open(self.path / "filler", "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return


@case
def answers_without_a_place_are_refused_before_the_first():
    (here / "in.jsonl").write_text('{"prompt":"a"}\n')
    (here / "link.jsonl").symlink_to("in.jsonl")
    (here / "there").mkdir()
    os.mkfifo(here / "pipe")
    batch = ["generate", "--model", LLAMA, *FAST, "--batch", "in.jsonl", "--max-tokens", "1", "--output"]
    for output, mention in (("in.jsonl", "written over"), ("./in.jsonl", "written over"), ("link.jsonl", "written over"),
                            ("absent/out.jsonl", "no directory absent"), ("there", "is a directory"), ("pipe", "a device or a pipe")):
        refused([*batch, output], 2, output, mention)
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


@case
def answers_go_where_a_link_leads():
    (here / "in.jsonl").write_text('{"prompt":"a"}\n')
    (here / "far").mkdir()
    (here / "far/answers.jsonl").write_text("old\n")
    (here / "link.jsonl").symlink_to("far/answers.jsonl")
    done("generate", "--model", LLAMA, *FAST, "--batch", "in.jsonl", "--max-tokens", "1", "--output", "link.jsonl")
    assert (here / "link.jsonl").is_symlink() and "generated_tokens" in (here / "far/answers.jsonl").read_text()
    assert sorted(f.name for f in (here / "far").iterdir()) == ["answers.jsonl"]


@case
def a_full_disk_refuses_the_start():
    with Disk(96) as disk:
        if not disk.mounted:
            return print("      skipped: no mounts here")
        for lora_rank in (1, 16):  # too little for the checkpoints; for the recipe too
            refused([*BARE, "--lora-rank", lora_rank, "--output", "disk/runs/one"], 4, "disk/runs/one", "Free space", code="disk")
        disk.fill()
        refused([*TRAIN, "--output", "disk/run"], 4, "disk/run", code="disk")
        (here / "in.jsonl").write_text('{"prompt":"a"}\n')
        refused(["generate", "--model", LLAMA, *FAST, "--batch", "in.jsonl", "--output", "disk/out.jsonl", "--max-tokens", "1"], 4, "disk/out.jsonl", code="disk")


@case
def a_disk_needs_room_for_no_more_checkpoints_than_a_run_makes():
    with Disk(4096) as disk:
        if not disk.mounted:
            return print("      skipped: no mounts here")
        refused([*TRAIN, "--max-steps", "60", "--save-every", "1", "--keep", "50", "--output", "disk/run"], 4, "disk/run", "Free space", code="disk")
        done(*TRAIN, "--max-steps", "3", "--save-every", "1", "--keep", "1000000", "--output", "disk/run")
        assert len(list((here / "disk/run/checkpoints").iterdir())) == 3


@case
def a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on():
    flags = [*TRAIN, "--max-steps", "80", "--save-every", "1", "--eval-every", "80"]
    with Disk(2048) as disk:
        if not disk.mounted:
            return print("      skipped: no mounts here")
        done(*flags, "--output", "whole")
        process = subprocess.Popen([hone, *text([*flags, "--output", "disk/run", "--json"])], cwd=here, env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        wait_for_step(here / "disk/run", 5)
        lines, end = [], time.time() + 600
        os.set_blocking(process.stdout.fileno(), False)
        out = b""
        while process.poll() is None and time.time() < end:
            disk.fill()
            out += process.stdout.read() or b""
        out += process.stdout.read() or b""
        assert process.wait(5) == 4, (process.returncode, out[-500:])
        assert process.stderr.read() == b""
        lines = out.decode().splitlines()
        error = json.loads(lines[-1])["error"]
        assert error["code"] == "disk" and "disk/run" in error["what"] and "--resume" in error["fix"], error
        left = sorted(p.name for p in (here / "disk/run/checkpoints").iterdir())
        assert left and all(name.startswith("step-") and "partial" not in name for name in left), left
        assert not list((here / "disk/run").rglob("*partial*")), list((here / "disk/run").rglob("*partial*"))
        check_error(run("train", "--output", "disk/run", "--resume", "--json"), 4, "disk", ["disk/run"], "still full")
        (disk.path / "filler").unlink()
        done("train", "--output", "disk/run", "--resume")
        resumed = [e["from_step"] for e in events("disk/run") if e["event"] == "resume"]
        assert f"step-{resumed[-1]:08d}" == left[-1], (resumed, left)
        assert adapter("disk/run") == adapter("whole")


# ---- converted models ----

SHAPE = dict(model_type="llama", hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, vocab_size=512)


@case
def what_convert_cannot_do_is_said_before_anything_is_written():
    (here / "config.json").write_text(json.dumps(SHAPE))
    random = ["convert", "--config", "config.json", "--random-weights"]
    refused(["convert", "--output", "m.gguf"], 2, "--model")
    refused(["convert", "--model", LLAMA], 2, "--output")
    refused([*random, "--model", LLAMA, "--output", "m.gguf"], 2, "--model")
    refused(["convert", "--config", "config.json", "--output", "m.gguf"], 2, "--random-weights")
    refused(["convert", "--model", LLAMA, "--type", "q4_k", "--output", "m"], 2, "q4_k", "safetensors", "bf16")
    refused(["convert", "--model", LLAMA, "--type", "q4k", "--output", "m.gguf"], 2, "q4k", "q4_k")
    refused(["convert", "--model", "absent", "--output", "m.gguf"], 3, "absent")
    refused(["convert", "--model", LLAMA, "--output", "absent/m.gguf"], 2, "absent")
    refused(["convert", "--model", LLAMA, "--output", "m", "--shard-size", "0"], 2, "shard-size", "between 1 and")
    (here / "there").mkdir()
    refused(["convert", "--model", LLAMA, "--output", "there"], 2, "there", "exists")
    for key, value, mention in (("vocab_size", 256, "257"), ("hidden_size", 0, "hidden size"), ("initializer_range", "x", "initializer_range"),
                                ("model_type", "gpt2", "gpt2"), ("vocab_size", 1 << 40, "vocabulary size")):
        (here / "config.json").write_text(json.dumps({**SHAPE, key: value}))
        refused([*random, "--output", "m.gguf"], 3, "config.json", mention, quick=True)
    refused(["convert", "--config", "none.json", "--random-weights", "--output", "m.gguf"], 3, "none.json")


@case
def a_rotary_scaling_without_a_place_is_refused():
    shutil.copytree(QWEN, here / "m")
    config = json.loads((QWEN / "config.json").read_text())
    config["rope_scaling"] = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    (here / "m/config.json").write_text(json.dumps(config))
    refused(["convert", "--model", "m", "--output", "m.gguf"], 3, "llama3", "safetensors")
    done("convert", "--model", "m", "--output", "n", "--type", "f16")
    done("eval", "--model", "n", "--data", QWEN / "rows.jsonl", *FAST)


@case
def a_full_disk_leaves_no_converted_model():
    (here / "config.json").write_text(json.dumps(SHAPE))
    random = ["convert", "--config", "config.json", "--random-weights"]
    with Disk(1024) as disk:
        if not disk.mounted:
            return print("      skipped: no mounts here")
        for output in ("disk/m.gguf", "disk/m"):
            refused([*random, "--type", "f16", "--output", output], 4, output, "MB", code="disk")
        (here / "config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 1}))
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300 << 10, 300 << 10))
        for output in ("disk/m.gguf", "disk/m"):  # a write that fails half way
            refused([*random, "--type", "f16", "--output", output, "--shard-size", "1GiB"], 4, code="disk", limits=limit)


@case
def an_interrupted_conversion_leaves_nothing():
    (here / "config.json").write_text(json.dumps({**SHAPE, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 64}))
    for output in ("m.gguf", "m"):
        before = standing()
        process = subprocess.Popen([hone, "convert", "--config", "config.json", "--random-weights", "--output", output], cwd=here, env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        end = time.time() + 600
        while not list(here.glob("*partial*")) and time.time() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 130, process.stderr.read()
        assert standing() == before, set(standing()) ^ set(before)


# ---- names ----

@case
def names_that_are_no_utf8_are_refused():
    name = b"r\xff\xfe.jsonl"
    (here / os.fsdecode(name)).write_bytes((LLAMA / "rows.jsonl").read_bytes())
    for arguments in ([*TRAIN, "--output", name], ["train", "--model", LLAMA, "--data", name, "--output", "out"], ["pull", name], ["data", "check", name]):
        refused(arguments, 2, "r\\xff\\xfe.jsonl", "UTF-8")


def clear():
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()


def main():
    failed = run_cases(sys.argv[2:], clear)
    shutil.rmtree(work, ignore_errors=True)
    return failed


sys.exit(main())
