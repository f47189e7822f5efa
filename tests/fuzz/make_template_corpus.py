"""Writes corpus/template from the hand-written language cases, a few per subject, variables included."""
import json
import os

here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "../golden/template_cases.json"), encoding="utf-8") as file:
    data = json.load(file)
subjects = {}
for row in data["cases"]:
    subjects.setdefault(row["name"].rsplit(" ", 1)[0], []).append(row)
target = os.path.join(here, "corpus/template")
os.makedirs(target, exist_ok=True)
for subject, rows in sorted(subjects.items()):
    for part in range(0, len(rows), 40):
        chosen = [row for row in rows[part : part + 40] if "text" in row] or rows[part : part + 4]
        source = "\n".join(row["template"] for row in chosen)
        used = {k: v for k, v in data["variables"][chosen[0]["variables"]].items() if k in source}
        name = f"{subject.replace(' ', '_')}_{part // 40}"
        with open(os.path.join(target, name), "w", encoding="utf-8", newline="") as file:
            file.write(source + "\n---\n" + json.dumps(used, ensure_ascii=False))
