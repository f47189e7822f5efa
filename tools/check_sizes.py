#!/usr/bin/env python3
"""A file has at most 1,000 lines, a function at most 120. Files of tables (more than half of their lines
are rows in braces) may be longer. No link is tracked: one that stands where others keep a directory takes its place."""
import pathlib
import subprocess
import sys

FILE, FUNCTION = 1000, 120
root = pathlib.Path(__file__).resolve().parent.parent
names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h", "*.cpp", "*.cu", "*.py", "*.sh", "demo", "check", "bench"],
                       cwd=root, capture_output=True, text=True, check=True).stdout.split()
staged = subprocess.run(["git", "ls-files", "-s"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
wrong, longest = [f"{line.split(None, 3)[3]}: a link" for line in staged if line.startswith("120000")], (0, "")

for name in names:
    if not (root / name).is_file():
        continue
    lines = (root / name).read_text(errors="replace").splitlines()
    rows = sum(l.lstrip().startswith(("{", ".")) for l in lines)
    if len(lines) > FILE and rows * 2 < len(lines):
        wrong.append(f"{name}: {len(lines)} lines, at most {FILE}")
    begin = None
    for number, line in enumerate(lines, 1):
        if name.endswith((".c", ".h", ".cpp", ".cu")):
            if line.endswith(") {") and begin is None:  # a definition, or the last line of its head
                begin = number
            if line == "}" and begin:
                longest = max(longest, (number - begin + 1, f"{name}:{begin}"))
                if number - begin + 1 > FUNCTION:
                    wrong.append(f"{name}:{begin}: a function of {number - begin + 1} lines, at most {FUNCTION}")
            if line.startswith("}"):
                begin = None

print("\n".join(wrong) or f"{len(names)} files; the longest function has {longest[0]} lines ({longest[1]})")
sys.exit(bool(wrong))
