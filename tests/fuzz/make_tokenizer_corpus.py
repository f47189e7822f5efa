"""Writes corpus/tokenizer: a small vocabulary as tables for several pre-tokenizers, and as tokenizer.json with
each part that is understood. The form of the files stands in fuzz_text_tokenizer.c."""
import json
import os
import random

target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus/tokenizer")
os.makedirs(target, exist_ok=True)

plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [b for b in range(256) if b not in plain]
BYTES = [chr(b) if b in plain else chr(256 + others.index(b)) for b in range(256)]
MERGES = ["t h", "th e", "Ġ the", "a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ", "i n", "in g", "Ã ©", "ä ¸", "ä¸ Ń", "1 2", "12 3", "' s", "- -", "e Ì", "eÌ ģ"]
MADE = [m.replace(" ", "") for m in MERGES]
SPECIAL = ["<|end|>", "<|im_start|>"]
TEXT = "the thing's there — aaaaaaaaaaaaa  é e\u0301 中文 12345 <|im_start|>x<|end|>\n\n   y --- 👍🏽\r\n\tZ"


def write(name, *parts):
    with open(os.path.join(target, name), "w", encoding="utf-8", newline="") as file:
        file.write("\n---\n".join(parts))


def tables(name, pre, flags, tokens, merges, text=TEXT):
    write(name, "\n".join([f"{pre} 0 1 -1 {flags}", *tokens]), "\n".join(merges), text)


def tokenizer(pre, text=TEXT, config="", vocab=None, **more):
    vocab = vocab or BYTES + MADE
    model = {"type": "BPE", "unk_token": None, "vocab": {t: i for i, t in enumerate(vocab)}, "merges": MERGES}
    root = {"added_tokens": [{"id": len(vocab) + i, "content": t, "special": True} for i, t in enumerate(SPECIAL)],
            "normalizer": None, "pre_tokenizer": pre, "post_processor": None, "decoder": {"type": "ByteLevel"}, "model": model}
    model.update(more.pop("model", {}))
    root.update(more)
    return json.dumps(root, ensure_ascii=False, separators=(",", ":")), json.dumps(config) if config else "", text


for pre in "gpt-2 smollm llama-bpe qwen2 deepseek-llm deepseek-v3 falcon gpt-4o tekken default bailingmoe qwen35".split():
    tables(f"tables_{pre}", pre, "ba", MADE + ["3:" + t for t in SPECIAL] + ["4:user"], MERGES)
tables("tables_few", "gpt-2", "-", ["t", "h", "e", "th", "the", "Ġ", "2:<unk>", "5:unused"], MERGES[:2], "the <unk> het hat")
tables("tables_none", "gpt-2", "-", [], [])

byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
bytes_alone = {**byte_level, "use_regex": False}
split = lambda pattern, behavior="Isolated", kind="Regex", invert=False: {
    "type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}
sequence = lambda *steps: {"type": "Sequence", "pretokenizers": list(steps)}
llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [275], "tokens": ["<|end|>"]}}}
config = {"bos_token": "<|end|>", "eos_token": {"content": "<|im_start|>"}, "add_bos_token": True}
added = [{"id": 275 + i, "content": t, **flags} for i, (t, flags) in enumerate([
    ("<|end|>", {"special": True}), ("<mask>", {"lstrip": True, "rstrip": True, "special": True}), ("ing", {"single_word": True, "normalized": False}),
    ("é", {"normalized": True}), ("the", {"normalized": False}), ("  ", {"normalized": True, "special": False})])]

write("json_gpt2", *tokenizer(byte_level))
write("json_prefix_space", *tokenizer({**byte_level, "add_prefix_space": True}))
write("json_llama3", *tokenizer(sequence(split(llama3), bytes_alone), config=config, post_processor=post, model={"ignore_merges": True}))
write("json_qwen2", *tokenizer(sequence(split(llama3.replace("{1,3}", "")), bytes_alone), normalizer={"type": "NFC"}))
write("json_digits", *tokenizer(sequence({"type": "Digits", "individual_digits": True}, byte_level)))
write("json_punctuation", *tokenizer(sequence({"type": "Punctuation", "behavior": "Contiguous"}, bytes_alone)))
write("json_added", *tokenizer(byte_level, text="the <mask> ing thing e\u0301 é  the\u3000<mask>\u2003x", added_tokens=added, normalizer={"type": "NFC"}))
few = ["t", "h", "e", "th", "the", "Ġ", "Ġthe", "<unk>"]
write("json_unknown", *tokenizer(byte_level, vocab=few, text="the zzz thézz", added_tokens=[], model={"unk_token": "<unk>", "fuse_unk": True, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"]]}))
for behavior in "Removed MergedWithPrevious MergedWithNext Contiguous".split():
    write(f"json_{behavior.lower()}", *tokenizer(sequence(split(" +", behavior), split("a", "Isolated", "String", True), bytes_alone)))

# fuzz_text_tokenizer_made.c reads each byte as a choice, so any bytes are a seed.
made = os.path.join(target, "../tokenizer_made")
os.makedirs(made, exist_ok=True)
rng = random.Random(3)
for i in range(16):
    with open(os.path.join(made, f"random_{i}"), "wb") as file:
        file.write(rng.randbytes(60 + 10 * i) + TEXT.encode()[: 3 * i])
