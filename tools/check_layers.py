#!/usr/bin/env python3
"""Compares the includes of src/ with tools/layers.txt: a folder includes itself, what its row names, and what those may.
A name_internal.h is closed to other folders; src/cli sees nothing of src/ but itself; include/hone sees nothing."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
rows = re.findall(r"^([a-z]+):(.*)$", (root / "tools/layers.txt").read_text(), re.M)
allowed = {}
for name, below in rows:  # lowest first, so that what a named folder may include is known
    allowed[name] = {name}.union(*(allowed.get(lower, {lower}) for lower in below.split()))
api = {"job", "cli"}  # who sees include/hone: the program, and the folder that implements it
wrong = []

names = [name for name, _ in rows]
for at, (name, below) in enumerate(rows):
    wrong += [f"tools/layers.txt: {name} names {lower}, which has no row above it" for lower in below.split()
              if lower not in names[:at]]

for path in sorted([*root.glob("src/**/*.[ch]"), *root.glob("src/**/*.cpp"), *root.glob("src/**/*.cu"), *root.glob("include/**/*.h")]):
    parts = path.relative_to(root).parts
    folder = parts[1] if parts[0] == "src" else "include"
    if folder != "include" and folder not in allowed:
        wrong.append(f"{path.relative_to(root)}: tools/layers.txt has no row for {folder}")
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if not found:
            continue
        quoted, target = found[1] == '"', pathlib.PurePosixPath(found[2])
        where = f"{path.relative_to(root)}:{number}: includes {target}"
        top = target.parts[0]
        if top == "hone":
            if folder not in api | {"include"}:
                wrong.append(f"{where}, which belongs to the program and src/job")
        elif not quoted:
            if (root / "src" / target).exists():
                wrong.append(f"{where} with <>")
        elif folder == "include" or len(target.parts) == 1:
            wrong.append(f"{where}, not by its path below src/")
        elif top not in allowed[folder]:
            wrong.append(f"{where}, and {folder} may include {' '.join(sorted(allowed[folder]))}")
        elif target.stem.endswith("_internal") and top != folder:
            wrong.append(f"{where}, which is closed to other folders")

print("\n".join(wrong) or "every include goes down")
sys.exit(bool(wrong))
