"""Small model files whose every size and count can be lied about: where each field lies, and what it says.

Made from the tiny models of tests/golden/data, without any library."""
import json
import struct

GGUF_TYPES = {"u32": 4, "f32": 6, "bool": 7, "text": 8, "array": 9, "i32": 5}
TENSOR_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
                "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


class Recorder:
    """Bytes, and the places of numbers that say how much follows: (name, offset, width, value)."""

    def __init__(self):
        self.bytes, self.fields = bytearray(), []

    def number(self, name, width, value):
        self.fields.append((name, len(self.bytes), width, value))
        self.bytes += value.to_bytes(width, "little")

    def text(self, name, text, note=True):
        data = text.encode()
        if note:
            self.number(f"{name} length", 8, len(data))
        else:
            self.bytes += len(data).to_bytes(8, "little")
        self.bytes += data


def split_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + size]), data[8 + size:]


def join_safetensors(header, payload):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def gguf_name(name):
    if name in TENSOR_NAMES:
        return TENSOR_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{TENSOR_NAMES[rest.removesuffix('.weight')]}.weight"


def tiny_gguf(directory, architecture="llama", template=None):
    """A GGUF of the tied llama model in `directory`: (bytes, fields). The head's rows are not permuted as the
    format wants, which only a use of the model would show."""
    config = json.loads((directory / "config.json").read_text())
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    header, payload = split_safetensors(directory / "model.safetensors")
    vocabulary = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    special = {t["id"] for t in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    head = config["hidden_size"] // config["num_attention_heads"]
    keys = [("general.architecture", "text", architecture), (f"{architecture}.embedding_length", "u32", config["hidden_size"]),
            (f"{architecture}.block_count", "u32", config["num_hidden_layers"]),
            (f"{architecture}.attention.head_count", "u32", config["num_attention_heads"]),
            (f"{architecture}.attention.head_count_kv", "u32", config["num_key_value_heads"]),
            (f"{architecture}.feed_forward_length", "u32", config["intermediate_size"]),
            (f"{architecture}.context_length", "u32", config["max_position_embeddings"]),
            (f"{architecture}.attention.layer_norm_rms_epsilon", "f32", config["rms_norm_eps"]),
            (f"{architecture}.rope.freq_base", "f32", config["rope_theta"]),
            (f"{architecture}.rope.dimension_count", "u32", head), ("general.alignment", "u32", 32),
            ("tokenizer.ggml.model", "text", "gpt2"), ("tokenizer.ggml.pre", "text", "gpt-2"),
            ("tokenizer.ggml.tokens", "array", ("text", tokens)),
            ("tokenizer.ggml.token_type", "array", ("i32", [3 if i in special else 1 for i in range(len(tokens))])),
            ("tokenizer.ggml.merges", "array", ("text", merges)), ("tokenizer.ggml.eos_token_id", "u32", max(special)),
            ("tokenizer.ggml.bos_token_id", "u32", max(special)), ("tokenizer.ggml.add_bos_token", "bool", False)]
    if template is not None:
        keys.append(("tokenizer.chat_template", "text", template))
    out = Recorder()
    out.bytes += b"GGUF"
    out.number("version", 4, 3)
    out.number("tensor count", 8, len(header) - ("__metadata__" in header))
    out.number("key count", 8, len(keys))
    for name, kind, value in keys:
        write_key(out, name, kind, value)
    write_tensors(out, header, payload)
    return bytes(out.bytes), out.fields


def write_key(out, name, kind, value):
    out.text(f"name of {name}", name)
    out.number(f"type of {name}", 4, GGUF_TYPES[kind])
    if kind == "u32":
        out.number(name, 4, value)
    elif kind == "f32":
        out.bytes += struct.pack("<f", value)
    elif kind == "bool":
        out.bytes += bytes([value])
    elif kind == "text":
        out.text(name, value)
    else:
        element, values = value
        out.number(f"element type of {name}", 4, GGUF_TYPES[element])
        out.number(f"count of {name}", 8, len(values))
        for i, one in enumerate(values):
            noted = i in (0, len(values) // 2, len(values) - 1)
            if element == "text":
                out.text(f"{name}[{i}]", one, noted)
            else:
                out.bytes += struct.pack("<i", one)


def write_tensors(out, header, payload):
    blocks, offset = [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        name, shape, (first, end) = gguf_name(name), entry["shape"], entry["data_offsets"]
        out.text(f"name of {name}", name)
        out.number(f"rank of {name}", 4, len(shape))
        for i, dim in enumerate(reversed(shape)):
            out.number(f"dimension {i} of {name}", 8, dim)
        out.number(f"type of {name}", 4, 0)
        out.number(f"offset of {name}", 8, offset)
        blocks.append(payload[first:end] + bytes(-(end - first) % 32))
        offset += len(blocks[-1])
    out.bytes += bytes(-len(out.bytes) % 32)
    for block in blocks:
        out.bytes += block


def number_lies(value, width):
    """Other values of an unsigned field: near, far, and where sums of sizes overflow."""
    most = (1 << (8 * width)) - 1
    lies = {0, 1, value - 1, value + 1, 2 * value, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63,
            most - 7, most - 1, most}
    return sorted(lie for lie in lies if 0 <= lie <= most and lie != value)


def gguf_lies(data, fields):
    """(name, bytes): each field of the file saying each other thing."""
    for name, at, width, value in fields:
        for lie in number_lies(value, width):
            yield f"{name} = {lie}", data[:at] + lie.to_bytes(width, "little") + data[at + width:]


def cuts(data, fields):
    """(name, bytes): the file ending in and behind every field, and in the tensors."""
    ends = {0, 1, 3, 4, len(data) // 2, len(data) - 1}
    for _, at, width, _ in fields:
        ends |= {at, at + 1, at + width}
    for end in sorted(ends):
        yield f"cut at byte {end}", data[:end]


JSON_LIES = [0, -1, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 64, 1e300, -1e300, 2.5, "many", None, [], {}, True]


def json_lies(value):
    """Other values of a number in JSON."""
    return [lie for lie in [value - 1, value + 1, value * 2, *JSON_LIES] if type(lie) is not type(value) or lie != value]


def safetensors_lies(header, payload):
    """(name, bytes): each number of the header saying each other thing, and the length in front."""
    whole = join_safetensors(header, payload)
    size = int.from_bytes(whole[:8], "little")
    for lie in number_lies(size, 8):
        yield f"header length = {lie}", lie.to_bytes(8, "little") + whole[8:]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        for key in ("shape", "data_offsets"):
            for i, value in enumerate(entry[key]):
                for lie in json_lies(value):
                    changed = entry[key][:i] + [lie] + entry[key][i + 1:]
                    yield f"{key}[{i}] of {name} = {lie}", join_safetensors({**header, name: {**entry, key: changed}}, payload)
            for lie in (None, [], {}, "none", [1], [1, 2, 3], [1] * 9):
                yield f"{key} of {name} = {lie}", join_safetensors({**header, name: {**entry, key: lie}}, payload)
        for lie in ("F16", "F64", "Q4", "", None, 4):
            yield f"dtype of {name} = {lie}", join_safetensors({**header, name: {**entry, "dtype": lie}}, payload)
