#!/usr/bin/env python3
"""A million texts for each vocabulary: hone's ids against those of Hugging Face's `tokenizers`.

    tokenizer_million.py DRIVER [--lines N] [--texts DIRECTORY] [VOCABULARY…]

VOCABULARY: a name of the table below, whose GGUF is looked for below $HONE_TEST_FILES; all of them unless named. Each
line's ids of DRIVER on the GGUF must be those of `tokenizers` made in two ways: built here from the GGUF's
tables through the library's own classes, and read from the tokenizer.json that DRIVER writes.

At least half of the lines are found: words and sayings of many languages (tools/fetch.sh texts), sources and
documents in many programming languages, what the system has below /usr. The others are drawn with a fixed
seed: code points of every script that Python's unicodedata knows, emoji with joiners and modifiers, white space
and control characters, special tokens inside of text. Where a vocabulary composes its texts, every mark and every
character that decomposes is tried beside others too. Needs the packages tokenizers and gguf."""
import argparse
import glob
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

FILES = pathlib.Path(os.environ.get("HONE_TEST_FILES", "/nonexistent"))
LLAMA_CPP = "llama-cpp-python/vendor/llama.cpp"
ROOT = pathlib.Path(__file__).resolve().parents[2]
PER_FILE = 25_000  # lines, taken evenly; word lists have millions
BATCH = 20_000

byte_level = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")

# As in the tokenizer.json of the models: the file, the pre-tokenizer's name in it, its steps, what else is set.
VOCABULARIES = {
    "smollm2": ("smollm2.gguf", "smollm", lambda: [pre_tokenizers.Digits(individual_digits=True), byte_level(True)], {}),
    "gpt-2": (f"{LLAMA_CPP}/models/ggml-vocab-gpt-2.gguf", "gpt-2", lambda: [byte_level(True)], {}),
    "llama-bpe": (f"{LLAMA_CPP}/models/ggml-vocab-llama-bpe.gguf", "llama-bpe",
                  lambda: [split(WORDS % "{1,3}"), byte_level(False)], {"ignore_merges": True}),
    "qwen2": (f"{LLAMA_CPP}/models/ggml-vocab-qwen2.gguf", "qwen2",
              lambda: [split(WORDS % ""), byte_level(False)], {"nfc": True}),
}

SYSTEM = ("/usr/share/common-licenses/*", "/usr/include/**/*.h", "/usr/share/i18n/locales/*", "/usr/share/perl/**/*.p[lm]",
          "/usr/lib/python3*/**/*.py", "/usr/share/**/*.txt", "/usr/share/zoneinfo/*.tab", "/usr/share/cmake*/**/*")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "❤️", "🦙", "🫠", "✅"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "|>", "<file_sep>", "<|im_start|><|im_end|>",
           "<|begin_of_text|>", "<|eot_id|>", "<|reserved_special_token_7|>"]


def decoded(name):
    raw = pathlib.Path(name).read_bytes()
    for encoding in ("utf-8", "euc_jp"):  # edict is in the latter
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return ""


def found(patterns, share, seen):
    """At most `share` new lines of the files that match."""
    for pattern in patterns:
        for name in sorted(glob.glob(str(pattern), recursive=True)):
            if not os.path.isfile(name) or os.path.islink(name) or name.endswith((".gz", ".png", ".pyc", ".gguf", ".deb")):
                continue
            lines = decoded(name).split("\n")
            for line in lines[:: 1 + len(lines) // PER_FILE]:
                line = line[:2000]
                if share <= 0:
                    return
                if line and line not in seen:
                    seen.add(line)
                    share -= 1
                    yield line


def generated(rng):
    """Endless texts of mixed scripts."""
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    blocks = [assigned[i:i + 128] for i in range(0, len(assigned), 128)]
    ascii_text = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789'\"!?.,;:-_/\\()[]{}<>|@#$%^&*+=~`"
    contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "'ſ"]
    kinds = (lambda: "".join(rng.choices(rng.choice(blocks), k=rng.randint(1, 12))),
             lambda: "".join(rng.choices(assigned, k=rng.randint(1, 6))),
             lambda: rng.choice(SPACES) * rng.choice((1, 1, 2, 3, 9, 60)),
             lambda: rng.choice(EMOJI) * rng.choice((1, 1, 3)),
             lambda: "".join(rng.choices(ascii_text, k=rng.randint(1, 40))),
             lambda: rng.choice(contractions),
             lambda: rng.choice(SPECIAL),
             lambda: rng.choice(ascii_text + "é中") * rng.randint(1, 120))
    while True:
        yield "".join(rng.choice(kinds)() for _ in range(rng.randint(1, 12)))


def marks():
    """Each mark, each character that decomposes and each that is not assigned, where order and composition show."""
    for code in range(0x300, 0x20000):
        char = chr(code)
        plain, category = unicodedata.normalize("NFD", char), unicodedata.category(char)
        if category in ("Cs", "Co") or (category[0] != "M" and category != "Cn" and plain == char):
            continue
        yield from ("a\u0345" + char + "\u0301", "a" + char + "\u0334", "e" + char + "\u0323\u0302", plain,
                    plain + "\u0334", char + char)


def texts(directory, count):
    """`count` lines, and how many of them were found."""
    seen, lines = set(), []
    sources = FILES / LLAMA_CPP
    for patterns, share in (([directory / "**/*"], count * 2 // 5),
                            ([sources / "**/*.md", sources / "**/*.py", sources / "**/*.c*", sources / "**/*.h*", sources / "**/*"],
                             count * 3 // 20),
                            (SYSTEM, count * 3 // 20)):
        lines.extend(found(patterns, share, seen))
    had = len(lines)
    endless = generated(random.Random(20240607))
    while len(lines) < count:
        lines.append(next(endless))
    return lines, had


def built(file, pre, steps, nfc=False, ignore_merges=False):
    """The tokenizer of a GGUF's tables, by the library's own classes."""
    reader = GGUFReader(file)
    field = lambda name: reader.get_field("tokenizer.ggml." + name).contents()
    assert field("pre") == pre, f"{file}: the pre-tokenizer is {field('pre')}"
    tokens, kinds = field("tokens"), field("token_type")
    merges = [tuple(m.split(" ")) for m in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    return tokenizer


def references(driver, file, row):
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([driver, file, "write", directory], check=True)
        written = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    _, pre, steps, more = row
    return {"built from the tables": built(file, pre, steps, **more), "the written tokenizer.json": written}


def encode(driver, file, lines):
    stdin = b"".join(b"%d\n%s" % (len(t), t) for t in (t.encode() for t in lines))
    out = subprocess.run([driver, file, "special"], input=stdin, stdout=subprocess.PIPE, check=True).stdout
    return [[int(i) for i in line.split()] for line in out.decode().split("\n")[:-1]]


def compare(driver, name, lines):
    """How many lines have the same ids in all three."""
    file = FILES / VOCABULARIES[name][0]
    others = references(driver, file, VOCABULARIES[name])
    wrong = 0
    for start in range(0, len(lines), BATCH):
        batch = lines[start:start + BATCH]
        got, differ = encode(driver, file, batch), set()
        assert len(got) == len(batch)
        for other, tokenizer in others.items():
            for i, one in enumerate(tokenizer.encode_batch_fast(batch, add_special_tokens=False)):
                if one.ids == got[i]:
                    continue
                differ.add(i)
                if wrong + len(differ) < 20:
                    print(f"{name}, {other}: {batch[i]!r}\n  expected {one.ids}\n  got      {got[i]}")
        wrong += len(differ)
    print(f"{name}: {len(lines) - wrong} lines equal, {wrong} not", flush=True)
    return wrong == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("vocabularies", nargs="*", metavar="VOCABULARY", help=", ".join(VOCABULARIES))
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--texts", type=pathlib.Path, default=ROOT / ".cache/texts")
    args = parser.parse_args()
    lines, had = texts(args.texts, args.lines)
    print(f"{len(lines)} lines, {had} of them found on this machine, the others drawn")
    if had < args.lines // 2:
        sys.exit(f"at least {args.lines // 2} lines must be found: is {args.texts} there (tools/fetch.sh texts), and HONE_TEST_FILES?")
    equal = True
    for name in args.vocabularies or VOCABULARIES:
        equal &= compare(args.driver, name, lines)
        if VOCABULARIES[name][3].get("nfc"):
            equal &= compare(args.driver, name, list(marks()))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
