#!/usr/bin/env python3
"""Functions that have a safer form here, and, in the library, those that a library must not call."""
import pathlib
import re
import sys

EVERYWHERE = "strcpy strcat strncpy strncat sprintf vsprintf strtok atoi atol atoll atof gets system popen alloca tmpnam"
LIBRARY = "assert exit _exit abort printf vprintf puts putchar perror signal sigaction rand srand setlocale"
root = pathlib.Path(__file__).resolve().parent.parent
wrong = []


def code_alone(text):
    """The text with comments, strings and characters blanked; lines stay where they are."""
    blank = lambda m: re.sub(r"[^\n]", " ", m[0])
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


for path in sorted([*root.glob("src/**/*.[ch]"), *root.glob("examples/*.c"), *root.glob("tests/**/*.[ch]")]):
    name = str(path.relative_to(root))
    library = name.startswith("src/") and not name.startswith("src/cli/")
    words = (EVERYWHERE + " " + LIBRARY if library else EVERYWHERE).split()
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(words) + r")\s*\(")
    for number, line in enumerate(code_alone(path.read_text()).splitlines(), 1):
        for found in pattern.finditer(line):
            wrong.append(f"{name}:{number}: {found[1]}")

print("\n".join(wrong) or "none is called")
sys.exit(bool(wrong))
