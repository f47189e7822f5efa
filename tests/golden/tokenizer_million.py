#!/usr/bin/env python3
"""A million texts: hone's ids against those of Hugging Face's `tokenizers`.

    tokenizer_million.py DRIVER [--lines N] [--gguf FILE | --json FILE]

Texts come from this machine (word lists, documentation, headers, sources in many languages below /usr)
and from a seeded generator: code points of every script that Python's unicodedata knows, emoji with
joiners and modifiers, white space and control characters, special tokens inside of text.

Compared are, for a GGUF (HONE_TEST_FILES/smollm2.gguf unless named), the ids of DRIVER on the GGUF
with those of `tokenizers` made twice: from the tokenizer.json that DRIVER writes, and built here from the
GGUF's tables through the library's own classes. For a tokenizer.json, its own.
Needs the packages tokenizers and gguf. Exit status 77: no file.
"""
import argparse
import glob
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SOURCES = ("/usr/share/dict/*", "/usr/share/doc/**/*", "/usr/share/common-licenses/*", "/usr/include/**/*.h",
           "/usr/share/i18n/locales/*", "/usr/share/perl/**/*.p[lm]", "/usr/lib/python3*/**/*.py",
           "/usr/share/**/*.txt", "/usr/share/vim/**/*.vim", "/usr/share/hunspell/*", "/usr/share/unicode/**/*",
           "/usr/share/zoneinfo/*.tab", "/usr/share/iso-codes/**/*", "/usr/share/cmake*/**/*", "/usr/local/**/*.py")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "❤️", "🦙", "🫠", "✅"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "|>", "<file_sep>", "<|im_start|><|im_end|>"]


def gathered(limit):
    """Lines of files, at most a share of the limit from each pattern."""
    seen = set()
    for pattern in SOURCES:
        share = limit // 4
        for name in sorted(glob.glob(pattern, recursive=True)):
            if share <= 0:
                break
            if not os.path.isfile(name) or name.endswith((".gz", ".png", ".pyc")):
                continue
            try:
                text = pathlib.Path(name).read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            for line in text.split("\n"):
                line = line[:2000]
                if line in seen or not line:
                    continue
                seen.add(line)
                share -= 1
                yield line


def generated(rng):
    """Endless texts of mixed scripts."""
    assigned = [chr(c) for c in range(0x110000)
                if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    blocks = [assigned[i:i + 128] for i in range(0, len(assigned), 128)]
    ascii_text = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789'\"!?.,;:-_/\\()[]{}<>|@#$%^&*+=~`"
    contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "'ſ"]
    while True:
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.randrange(8)
            if kind == 0:
                block = rng.choice(blocks)
                parts.append("".join(rng.choices(block, k=rng.randint(1, 12))))
            elif kind == 1:
                parts.append("".join(rng.choices(assigned, k=rng.randint(1, 6))))
            elif kind == 2:
                parts.append(rng.choice(SPACES) * rng.choice((1, 1, 2, 3, 9, 60)))
            elif kind == 3:
                parts.append(rng.choice(EMOJI) * rng.choice((1, 1, 3)))
            elif kind == 4:
                parts.append("".join(rng.choices(ascii_text, k=rng.randint(1, 40))))
            elif kind == 5:
                parts.append(rng.choice(contractions))
            elif kind == 6:
                parts.append(rng.choice(SPECIAL))
            else:
                parts.append(rng.choice(ascii_text + "é中") * rng.randint(1, 120))
        yield "".join(parts)


def built(gguf_path):
    """SmolLM2's tokenizer from a GGUF's tables, by the library's own classes."""
    from gguf import GGUFReader
    reader = GGUFReader(gguf_path)
    field = lambda name: reader.get_field("tokenizer.ggml." + name).contents()
    if field("pre") != "smollm":
        return None
    tokens, kinds = field("tokens"), field("token_type")
    merges = [tuple(m.split(" ")) for m in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t, k in zip(tokens, kinds) if k == 3])
    return tokenizer


def encode(driver, file, texts):
    stdin = b"".join(b"%d\n%s" % (len(t), t) for t in (t.encode() for t in texts))
    out = subprocess.run([driver, file, "special"], input=stdin, stdout=subprocess.PIPE, check=True).stdout
    return [[int(i) for i in line.split()] for line in out.decode().split("\n")[:-1]]


def compare(driver, file, others, texts, counts):
    got = encode(driver, file, texts)
    assert len(got) == len(texts)
    wrong = set()
    for name, other in others.items():
        for i, one in enumerate(other.encode_batch(texts, add_special_tokens=False)):
            if one.ids != got[i]:
                wrong.add(i)
                if counts[1] + len(wrong) < 20:
                    print(f"{name}: {texts[i]!r}\n  expected {one.ids}\n  got      {got[i]}")
    counts[0] += len(texts) - len(wrong)
    counts[1] += len(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--gguf")
    parser.add_argument("--json")
    args = parser.parse_args()
    file = args.json or args.gguf or os.path.join(os.environ.get("HONE_TEST_FILES", "/nonexistent"), "smollm2.gguf")
    if not os.path.exists(file):
        print(f"skipped: no {file}; HONE_TEST_FILES names the directory of smollm2.gguf")
        return 77
    others = {}
    with tempfile.TemporaryDirectory() as directory:
        if args.json:
            others["tokenizer.json"] = Tokenizer.from_file(file)
        else:
            subprocess.run([args.driver, file, "write", directory], check=True)
            others["written tokenizer.json"] = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
            reference = built(file)
            if reference:
                others["built from tables"] = reference
    counts, batch, made = [0, 0], [], 0
    rng = random.Random(20240607)
    for lines, limit in ((gathered(args.lines * 3 // 4), args.lines * 3 // 4), (generated(rng), args.lines)):
        for line in lines:
            if made >= limit:
                break
            batch.append(line)
            made += 1
            if len(batch) == 20000:
                compare(args.driver, file, others, batch, counts)
                batch = []
    if batch:
        compare(args.driver, file, others, batch, counts)
    print(f"{counts[0]} passed, {counts[1]} failed")
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
