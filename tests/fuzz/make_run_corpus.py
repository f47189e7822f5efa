#!/usr/bin/env python3
"""Writes corpus/quantised, corpus/report, corpus/sketch and, of corpus/recipe, the seeds of groups, methods and memory; without any
package. The forms stand in fuzz_format_quantised.c, fuzz_job_report.c, fuzz_model_sketch.c and fuzz_train_recipe.c."""
import json
import pathlib
import struct

here = pathlib.Path(__file__).parent / "corpus"


def put(folder, name, data):
    (here / folder).mkdir(parents=True, exist_ok=True)
    (here / folder / name).write_bytes(data)


# ---- weights of bitsandbytes and MLX ----
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495,
       0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
       0.7229568362236023, 1.0]


def floats(numbers):
    return struct.pack("<%df" % len(numbers), *numbers)


def directory(config, tensors):
    header, data = {}, b""
    for name, (dtype, shape, numbers) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    return b"\n====\n".join([json.dumps(config).encode(), json.dumps(header, separators=(",", ":")).encode(), data])


def nf4(state, nested):
    text = json.dumps(state).encode()
    tensors = {"l.weight": ("U8", [64, 1], bytes(range(64))), "l.weight.quant_map": ("F32", [16], floats(NF4)),
               "l.weight.quant_state.bitsandbytes__nf4": ("U8", [len(text)], text)}
    tensors["l.weight.absmax"] = ("U8", [2], b"\3\200") if nested else ("F32", [2], floats([0.5, 2]))
    if nested:
        tensors["l.weight.nested_absmax"] = ("F32", [1], floats([0.25]))
        tensors["l.weight.nested_quant_map"] = ("F32", [256], floats([i / 256 for i in range(256)]))
    return tensors


bits_and_bytes = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
whole = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 64], "nested_blocksize": 256, "nested_dtype": "float32",
         "nested_offset": 0.04}
put("quantised", "nf4", directory(bits_and_bytes, nf4(whole, True)))
put("quantised", "nf4_single", directory(bits_and_bytes, nf4({k: v for k, v in whole.items() if "nested" not in k}, False)))
put("quantised", "nf4_block", directory(bits_and_bytes, nf4({**whole, "blocksize": 128}, True)))
put("quantised", "nf4_shape", directory(bits_and_bytes, nf4({**whole, "shape": [1 << 40, 1 << 40]}, True)))
put("quantised", "int8", directory(bits_and_bytes, {"l.weight": ("I8", [2, 3], b"\1\2\3\200\5\6"), "l.SCB": ("F32", [2], floats([1, 2])),
                                                    "l.weight_format": ("U8", [1], b"\0")}))
put("quantised", "fp4", directory(bits_and_bytes, {"l.weight": ("U8", [1, 1], b"\1"), "l.weight.quant_state.bitsandbytes__fp4": ("U8", [2], b"{}")}))


def mlx(bits, group, rows=2, groups=2, settings=None, scales="F16"):
    codes = ("U32", [rows, groups * group * bits // 32], bytes(i % 251 for i in range(rows * groups * group * bits // 8)))
    some = (scales, [rows, groups], bytes([0, 60] * (rows * groups)) if scales != "F32" else floats([1.0] * (rows * groups)))
    return directory({"quantization": settings or {"bits": bits, "group_size": group}}, {"l.weight": codes, "l.scales": some, "l.biases": some})


for width in (2, 3, 4, 5, 6, 8):
    put("quantised", f"mlx_{width}", mlx(width, 64 if width != 3 else 32))
put("quantised", "mlx_f32", mlx(4, 128, scales="F32"))
put("quantised", "mlx_of_module", mlx(4, 32, settings={"bits": 8, "group_size": 64, "l": {"bits": 4, "group_size": 32}}))
put("quantised", "mlx_mode", mlx(4, 32, settings={"bits": 4, "group_size": 32, "mode": "mxfp4"}))
micro = {"bits": 4, "group_size": 32, "mode": "mxfp4"}
for name, settings, scales in (("mlx_mxfp4", micro, [0, 127, 254, 255]), ("mlx_mxfp4_short", micro, [127, 127]),
                               ("mlx_mxfp4_of_module", {"bits": 4, "group_size": 64, "l": micro}, [120, 121, 122, 123]), ("mlx_nvfp4", {**micro, "mode": "nvfp4"}, [1] * 4)):
    put("quantised", name, directory({"quantization": settings}, {"l.weight": ("U32", [2, 8], bytes(range(64))), "l.scales": ("U8", [2, len(scales) // 2], bytes(scales))}))
put("quantised", "other_method", directory({"quantization_config": {"quant_method": "gptq"}}, {"l.weight": ("F32", [1, 1], floats([1]))}))


# ---- events.jsonl ----
def event(name, step, **fields):
    return {"event": name, "version": 1, "time": 1.7e9 + step, "step": step, **fields}


plan = event("plan", 0, weights_bytes=1000, adapter_bytes=10, gradient_bytes=10, optimizer_bytes=20, activation_bytes=500, workspace_bytes=60,
             process_bytes=300, peak_bytes=1900, mapped_bytes=5000, offloaded_bytes=0, host_bytes=0, flops=1e9, seconds=3, steps=4,
             profile={"position": [0, 1, 2], "activation_bytes": [1, 500, 3], "workspace_bytes": [0, 60, 0], "backward_from": 1, "update_from": 2})
steps = [event("step", i, loss=3 / i, learning_rate=1e-3, gradient_norm=1.0, tokens=100, supervised_tokens=50, tokens_per_second=33.0,
               memory_bytes=1800 + i, seconds=3.0) for i in range(1, 5)]
done = event("done", 4, adapter="adapter", loss=0.75, seconds=12, result_step=4, eval_loss=1.0)


def lines(*events, tail=b""):
    return b"".join(json.dumps(e).encode() + b"\n" for e in events) + tail


put("report", "done", lines(plan, steps[0], steps[1], event("eval", 2, loss=1.5), event("checkpoint", 2, path="checkpoints/step-00000002"), *steps[2:], done))
put("report", "torn", lines(plan, steps[0], tail=b'{"event":"st'))
put("report", "resumed", lines(plan, *steps[:3], plan, event("resume", 1, from_step=1, changed=["threads"]), *steps[1:], done))
put("report", "notes", lines(plan, event("warning", 0, message="<fuzz> & \u202e"), event("save_failed", 1, message="full", best_step=0),
                             event("nonfinite", 2, operation="norm", value="x", number="nan")))
put("report", "extremes", lines({**plan, "peak_bytes": -1, "seconds": 1e308, "steps": -5, "time": 1e300}, {**steps[0], "loss": 1e308, "step": -9},
                                {**steps[1], "loss": -1e308, "step": 1 << 62, "gradient_norm": -1, "learning_rate": None}))
put("report", "types", lines({"event": 3}, [1], {"event": "step", "step": "x", "loss": []}, {"event": "plan", "profile": {"position": 7}}))
put("report", "zero", lines(plan, steps[0], tail=bytes(40) + b"\n") + lines(steps[1]))

# ---- config.json ----
llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5, "max_position_embeddings": 128,
         "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu"}
put("sketch", "llama", json.dumps(llama).encode())
put("sketch", "tied", json.dumps({**llama, "tie_word_embeddings": True, "initializer_range": 0.5, "head_dim": 16}).encode())
put("sketch", "qwen2", json.dumps({**llama, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}).encode())
put("sketch", "scaled", json.dumps({**llama, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                               "original_max_position_embeddings": 64}}).encode())
put("sketch", "huge", json.dumps({**llama, "hidden_size": 1 << 40, "vocab_size": 1 << 40, "num_hidden_layers": 1 << 30}).encode())
put("sketch", "none", b"{}")

# ---- recipe.yaml: methods, groups, memory ----
put("recipe", "groups.yaml", b"""model: m
data: [a.jsonl]
method: full
lora: {rank: 8, alpha: 16, rank_pattern: ["q_proj=4"]}
learning_rate_pattern: ["down_proj=0.5", "lora_B=2"]
weight_decay_pattern: ["layers\\\\.0\\\\..*=0"]
loraplus_ratio: 4
ema_decay: 0.999
""")
put("recipe", "memory.yaml", b"""base_type: nf4
recompute: offload
offload_optimizer: true
memory: 600MiB
compute: f16
early_stopping: 3
early_stopping_threshold: 0.01
neftune_alpha: 5
nan_policy: rollback
""")
