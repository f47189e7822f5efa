#!/usr/bin/env python3
"""The Devil's Dictionary (Ambrose Bierce, 1911, public domain) as chat rows.

Reads the dictd database of Debian's package dict-devil: devil.dict.dz, which is gzip, and
devil.index, whose lines are HEADWORD <tab> OFFSET <tab> SIZE with numbers in base 64. Writes
train.jsonl and valid.jsonl; every tenth headword, in the order of a hash, is held out, so the same
rows are held out on every machine, and the two spellings of one entry never lie on both sides.

    python3 prepare.py devil.dict.dz devil.index OUTPUT_DIRECTORY
"""
import gzip
import hashlib
import json
import os
import re
import sys

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
NOTICES = ("00database", "00-database")
EXPECTED_ENTRIES = 999  # dict-devil 1.0; another number means another database
LINE_WIDTH = 70  # the book's prose is filled to this column

# "HEADWORD, n.  …": the comma, the space behind it or both blanks are now and then missing.
WITH_PART_OF_SPEECH = re.compile(
    r"^([A-Z](?:[A-Z'., ()\-]|\bor\b)*?)(?:, ?| )"
    r"((?:n|adj|adv|v|pp|p\.p|pron|pro|x)\.(?:[a-z]+\.)?(?: and n\.)?)(?=\s|$)")
# "HABEAS CORPUS.  A writ …", "LL.D.  Letters …", "CUI BONO?  [Latin] …", "ABRACADABRA."
WITHOUT = re.compile(r"^([A-Z][A-Z. ]*[A-Z])([.?])(?=  |\n)")
# "I is the first letter …", "T, the twentieth letter …": the sentence itself is the answer.
LETTER = re.compile(r"^([A-Z])(?=,? )")


def base64_number(text):
    value = 0
    for digit in text:
        value = value * 64 + DIGITS.index(digit)
    return value


def read_entries(dict_path, index_path):
    with gzip.open(dict_path, "rb") as file:
        data = file.read()
    entries = []
    with open(index_path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            headword, offset, size = line.rstrip("\n").split("\t")
            if headword.startswith(NOTICES):
                continue
            first, count = base64_number(offset), base64_number(size)
            if first + count > len(data):
                raise SystemExit(f"{index_path}:{number}: the entry lies outside of {dict_path}")
            entries.append((headword, data[first:first + count].decode("utf-8")))
    return entries


def one_per_headword(entries):
    """The index names four headwords twice (two are one entry twice; under `laurel` stands LAUREATE
    too; REASON is a verb and a noun): the first entry that is printed under the headword stays."""
    chosen = {}
    for headword, text in entries:
        printed = re.match(r"[\w ]+", text).group().lower() == headword
        if headword not in chosen or (printed and not chosen[headword][0]):
            chosen[headword] = (printed, text)
    return [text for _, text in chosen.values()]


def is_filled(lines):
    """Prose: no line had room for the first word of the next one."""
    return len(lines) > 1 and all(
        len(line) + 1 + len(after.split()[0]) >= LINE_WIDTH - 1 for line, after in zip(lines, lines[1:]))


def join(lines):
    text = ""
    for line in (line.strip() for line in lines):
        broken_word = re.search(r"\w-$", text)
        text += line if not text or broken_word else " " + line
    return re.sub("   +", "  ", text)


def block_lines(lines):
    """One block between blank lines: prose is joined, verse and its signature stay lines."""
    paragraphs = []
    if all(line.startswith("    ") for line in lines):
        signature = [line for line in lines[-1:] if len(line) - len(line.lstrip()) >= 40]
        body = lines[:len(lines) - len(signature)]
        for line in body:
            if not paragraphs or line.startswith("     "):
                paragraphs.append([])
            paragraphs[-1].append(line)
        long = [paragraph for paragraph in paragraphs if len(paragraph) > 1]
        if not long or not all(is_filled(paragraph) for paragraph in long):
            paragraphs = [[line] for line in body]  # verse
        paragraphs += [[line] for line in signature]
    else:
        for line in lines:
            if not paragraphs or line.startswith("    "):
                paragraphs.append([])
            paragraphs[-1].append(line)
    return "\n".join(join(paragraph) for paragraph in paragraphs)


def body_text(text):
    text = re.sub(r"\{([^{}]*)\}", r"\1", text)  # dictd's cross references
    blocks, lines = [], []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            blocks.append(block_lines(lines))
            lines = []
    return "\n\n".join(blocks)


def split_entry(text):
    """(HEADWORD as printed, part of speech or "", the definition)"""
    match = WITH_PART_OF_SPEECH.match(text)
    if match:
        return match.group(1), match.group(2), text[match.end():]
    match = WITHOUT.match(text)
    if match:
        stands_with_stop = "." in match.group(1)  # LL.D., R.I.P.
        return match.group(1) + ("." if stands_with_stop else ""), "", text[match.end():]
    match = LETTER.match(text)
    if match:
        return match.group(1), "", text
    raise SystemExit(f"an entry without a headword: {text[:60]!r}")


def make_row(text):
    headword, part, rest = split_entry(text)
    on_first_line = bool(rest.split("\n", 1)[0].strip())
    definition = body_text(rest.lstrip(" "))
    answer = part + ("  " if on_first_line else "\n\n") + definition if part else definition
    question = f"Define {headword}" + ("" if headword.endswith(".") else ".")
    return headword, {"messages": [{"role": "user", "content": question},
                                   {"role": "assistant", "content": answer}]}


def held_out(headwords):
    ordered = sorted(set(headwords), key=lambda word: hashlib.sha256(word.encode()).digest())
    return set(ordered[::10])


def check(rows):
    """Fails loudly when the database or the reading of it is not what it should be."""
    if len(rows) != EXPECTED_ENTRIES:
        raise SystemExit(f"{len(rows)} entries, {EXPECTED_ENTRIES} were expected")
    for headword, row in rows:
        answer = row["messages"][1]["content"]
        if len(answer) < 10 or re.search(r"[{}\t\r]|^\s|\s$|   |\n ", answer):
            raise SystemExit(f"{headword}: an answer that looks wrong: {answer[:80]!r}")
        if not re.fullmatch(r"[A-Z](?:[A-Z'., ()\-]|\bor\b)*", headword):
            raise SystemExit(f"a headword that looks wrong: {headword!r}")


def main(arguments):
    if len(arguments) != 3:
        raise SystemExit(__doc__)
    rows = [make_row(text) for text in one_per_headword(read_entries(arguments[0], arguments[1]))]
    check(rows)
    held = held_out(headword for headword, _ in rows)
    os.makedirs(arguments[2], exist_ok=True)
    counts = {"train": 0, "valid": 0}
    for name in counts:
        path = os.path.join(arguments[2], name + ".jsonl")
        with open(path + ".part", "w", encoding="utf-8", newline="\n") as file:
            for headword, row in rows:
                if (headword in held) == (name == "valid"):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    counts[name] += 1
        os.replace(path + ".part", path)
    if not 95 <= counts["valid"] <= 105:
        raise SystemExit(f"{counts['valid']} rows held out, about 100 were expected")
    print(f"{counts['train']} rows in train.jsonl, {counts['valid']} in valid.jsonl")


if __name__ == "__main__":
    main(sys.argv[1:])
