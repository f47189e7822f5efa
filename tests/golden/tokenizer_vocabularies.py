#!/usr/bin/env python3
"""Ids of llama.cpp's vocabulary files against the expected ids beside them.

    tokenizer_vocabularies.py DRIVER

HONE_TEST_FILES/llama-cpp-python/vendor/llama.cpp/models holds ggml-vocab-NAME.gguf with NAME.gguf.inp
(texts, divided by a marker line) and NAME.gguf.out (their ids, a line each). Every byte-level BPE
vocabulary that has them must give the same ids. Exit status 77: no such files.
"""
import os
import pathlib
import subprocess
import sys

NAMES = ("command-r deepseek-coder deepseek-llm falcon gpt-2 llama-bpe mpt qwen2 qwen35 refact starcoder").split()
MARKER = b"\n__ggml_vocab_test__\n"


def encode(driver, file, texts):
    stdin = b"".join(b"%d\n%s" % (len(t), t) for t in texts)
    out = subprocess.run([driver, file, "plain"], input=stdin, stdout=subprocess.PIPE, check=True).stdout
    return [[int(i) for i in line.split()] for line in out.decode().split("\n")[:-1]]


def main():
    root = os.environ.get("HONE_TEST_FILES")
    models = pathlib.Path(root or "/nonexistent") / "llama-cpp-python/vendor/llama.cpp/models"
    if not models.is_dir():
        print("skipped: HONE_TEST_FILES does not name the llama-cpp-python sources")
        return 77
    passed = failed = 0
    for name in NAMES:
        file = models / f"ggml-vocab-{name}.gguf"
        raw = pathlib.Path(f"{file}.inp").read_bytes()
        texts = raw.split(MARKER)
        lines = pathlib.Path(f"{file}.out").read_text().split("\n")
        expected = [[int(i) for i in line.split()] for line in lines[: len(texts)]]
        if texts[-1] == b"" and len(expected) < len(texts):
            texts.pop()
        if len(texts) != len(expected):
            sys.exit(f"{name}: {len(texts)} texts, {len(expected)} lines of ids")
        got = encode(sys.argv[1], file, texts)
        for text, want, have in zip(texts, expected, got):
            if want == have:
                passed += 1
                continue
            failed += 1
            print(f"{name}: {text!r}\n  expected {want}\n  got      {have}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
