#!/usr/bin/env python3
"""Long pieces merged window by window against the same pieces merged whole, with real vocabularies.

    tokenizer_windows.py DRIVER

Every byte-level BPE vocabulary of HONE_TEST_FILES (tokenizer_vocabularies.py) and SmolLM2's. The pieces are those
that a pre-tokenizer may hand over uncut, and worse: runs, random letters and characters, words without
spaces, texts with everything in them, bytes of characters cut in two. Exit status 77: no such files.
"""
import os
import pathlib
import random
import subprocess
import sys

from tokenizer_vocabularies import NAMES

SIZE = 40_000  # bytes; the smallest windows have 256, so that every piece has some 160 of them


def pieces():
    rng = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = pathlib.Path(__file__).read_text().split()
    fill = lambda make: "".join(make() for _ in range(SIZE)).encode()[:SIZE]
    for unit in ("a", "ab", "abc", "-", " ", "=", "\n", "0", "é", "中", "👍🏽", "aaab", "the", "\u0301", "ĠĠ"):
        yield (unit * SIZE).encode()[:SIZE]
        yield ("x" + unit * SIZE).encode()[:SIZE]
    yield fill(lambda: rng.choice(letters))
    yield fill(lambda: rng.choice("aeiou"))
    yield fill(lambda: rng.choice("ab"))
    yield fill(lambda: rng.choice("0123456789"))
    yield fill(lambda: chr(rng.randrange(0x4E00, 0x9FA5)))
    yield fill(lambda: chr(rng.randrange(0xAC00, 0xD7A3)))
    yield fill(lambda: chr(rng.randrange(0x400, 0x460)))
    yield fill(lambda: chr(rng.randrange(0x1F300, 0x1F700)))
    yield fill(lambda: rng.choice(words))
    yield fill(lambda: rng.choice(words) + " ")
    yield fill(lambda: rng.choice(letters) * rng.randint(1, 300))
    yield fill(lambda: rng.choice((" ", "-", "=", "\t")) * rng.choice((1, 7, 64, 130)))
    yield bytes(rng.randrange(256) for _ in range(SIZE))
    yield bytes(rng.randrange(128, 192) for _ in range(SIZE))


def main():
    root = pathlib.Path(os.environ.get("HONE_TEST_FILES") or "/nonexistent")
    models = root / "llama-cpp-python/vendor/llama.cpp/models"
    if not models.is_dir():
        print("skipped: HONE_TEST_FILES does not name the llama-cpp-python sources")
        return 77
    texts = list(pieces())
    stdin = b"".join(b"%d\n%s" % (len(t), t) for t in texts)
    same = differ = whole = 0
    for file in [root / "smollm2.gguf", *(models / f"ggml-vocab-{name}.gguf" for name in NAMES)]:
        out = subprocess.run([sys.argv[1], file, "windows"], input=stdin, stdout=subprocess.PIPE, check=True).stdout
        rows = [line.split() for line in out.decode().splitlines()]
        assert len(rows) == len(texts)
        for text, (outcome, often) in zip(texts, rows):
            same += outcome == "same"
            differ += outcome != "same"
            whole += float(often) >= 2  # the windows did not agree: it was merged at once after all
            assert float(often) > 1, "no windows"
            if outcome != "same":
                print(f"{file.name}: {text[:60]!r}…")
    print(f"windows of 256 bytes did not agree in {whole} of {same + differ} pieces")
    print(f"{same} passed, {differ} failed")
    return 1 if differ or whole > same // 10 else 0


if __name__ == "__main__":
    sys.exit(main())
