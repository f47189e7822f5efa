#!/usr/bin/env python3
"""Writes corpus/checkpoint, without any package: a whole checkpoint and what can be wrong with one. The form of
the files stands in fuzz_train_checkpoint.c."""
import json
import pathlib
import struct

here = pathlib.Path(__file__).parent / "corpus/checkpoint"
HIDDEN, LAYERS = 48, 2
MODULE = "base_model.model.model.layers.%d.self_attn.q_proj.lora_%s.weight"
PARAMETERS = LAYERS * 2 * HIDDEN


def floats(count, step):
    return struct.pack("<%df" % count, *(((i * step) % 17 - 8) / 64 for i in range(count)))


def safetensors(tensors):
    header, data = {}, b""
    for name, (shape, numbers) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


config = {"base_model_name_or_path": "model", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
          "init_lora_weights": True, "lora_alpha": 2.0, "lora_dropout": 0.0, "modules_to_save": None,
          "peft_type": "LORA", "r": 1, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "use_dora": False,
          "use_rslora": False}
adapter = {MODULE % (i, ab): (shape, floats(HIDDEN, 3 + i)) for i in range(LAYERS)
           for ab, shape in (("A", [1, HIDDEN]), ("B", [HIDDEN, 1]))}
moments = {"moment1": ([PARAMETERS], floats(PARAMETERS, 5)), "moment2": ([PARAMETERS], floats(PARAMETERS, 7))}
state = {"version": 1, "step": 2, "epoch": 0, "cursor": 6, "tokens": 320, "best_step": 2, "evaluated": 2, "stale": 0, "loss": 3.5,
         "eval_loss": 3.25, "best_loss": 3.25, "seconds": 1.5}


def seed(name, kinds="ffffmo", config=config, adapter=adapter, moments=moments, state=state, manifest=b""):
    text = lambda value: value if isinstance(value, bytes) else json.dumps(value).encode()
    tensors = lambda value: value if isinstance(value, bytes) else safetensors(value)
    parts = [text(config), tensors(adapter), tensors(moments), text(state), text(manifest)]
    (here / name).write_bytes(kinds.encode() + b"\n" + b"\n====\n".join(parts))


here.mkdir(parents=True, exist_ok=True)
seed("whole")
seed("alone", "ffffm-")
for i, name in enumerate(("config", "adapter", "optimizer", "state", "manifest")):
    seed("no_" + name, "ffffmo"[:i] + "-" + "ffffmo"[i + 1:])
    seed("pipe_" + name, "ffffmo"[:i] + "p" + "ffffmo"[i + 1:])
    seed("directory_" + name, "ffffmo"[:i] + "d" + "ffffmo"[i + 1:])
seed("all_absent", "------")
seed("manifest_empty", "fffffo")
seed("manifest_list", "fffffo", manifest=[])
seed("manifest_wrong", "fffff-", manifest={"version": 1, "files": {
    "adapter/adapter_config.json": {"bytes": 3, "digest": "00"}, "state.json": None}})
seed("manifest_huge", "fffffo", manifest=b'{"version": 1, "files": {"adapter/adapter_config.json": {"bytes": 9223372036854775807}}}')
seed("rank_2", config={**config, "r": 2})
seed("other_targets", config={**config, "target_modules": ["v_proj"]})
seed("one_layer", adapter={k: v for k, v in adapter.items() if ".0." in k})
seed("layer_7", adapter={k.replace(".1.", ".7."): v for k, v in adapter.items()})
seed("other_module", adapter={k.replace("q_proj", "k_proj"): v for k, v in adapter.items()})
seed("other_shape", adapter={k: ([HIDDEN // 2, 2], v[1]) for k, v in adapter.items()})
seed("short_moments", moments={k: ([8], floats(8, 3)) for k in moments})
seed("one_moment", moments={"moment1": moments["moment1"]})
seed("cut_moments", moments=safetensors(moments)[:-40])
seed("state_negative", state={**state, "step": -1})
seed("state_late", state={**state, "step": 2**31 - 1, "epoch": 2**31 - 1, "cursor": 2**32 - 1, "tokens": 2**63 - 1})
seed("state_beyond", state={**state, "step": 2**31})
seed("state_text", state={**state, "step": "2"})
seed("state_real", state={**state, "cursor": 6.0})
seed("state_bare", state={k: state[k] for k in ("version", "step", "epoch", "cursor", "tokens", "best_step")})
seed("state_stale", state={**state, "stale": "many"})
seed("state_list", state=[])
