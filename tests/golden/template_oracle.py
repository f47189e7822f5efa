"""What transformers' chat template environment makes of a template: the text, or the error.

`python3 template_oracle.py write` fills in the expected outputs of template_cases.json, so that the C
test needs no Python. The cases themselves are written by hand in template_cases.py.
"""
import datetime
import json
import os
import sys

NOW = 1735787045.25  # 2025-01-02 03:04:05.25 UTC


def environment():
    """The environment that transformers compiles with, its clock held at NOW."""
    from transformers.utils import chat_template_utils as utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)

    utils.datetime = Clock
    return utils


def render(template, variables):
    """(text, spans in bytes) or an exception."""
    utils = environment()
    compiled = utils._compile_jinja_template(template)
    if "{% generation" not in template and "{%- generation" not in template:
        return compiled.render(**variables), []
    blocks, indices = [], []
    with compiled.environment.activate_tracker(blocks, indices):
        for block in compiled.generate(**variables):
            blocks.append(block)
    text = "".join(blocks)
    spans = [[len(text[:a].encode()), len(text[:b].encode())] for a, b in indices]
    return text, spans


def outcome(template, variables):
    try:
        text, spans = render(template, variables)
        text.encode()
    except Exception as cause:  # whatever the template did
        return {"error": f"{type(cause).__name__}: {cause}"}
    return {"text": text, "spans": spans} if spans else {"text": text}


def write():
    import template_cases

    here = os.path.dirname(os.path.abspath(__file__))
    rows = []
    sets = {"expressions": template_cases.V, "chat": template_cases.CHAT}
    for name, template, variables in template_cases.cases():
        row = {"name": name, "template": template, "variables": variables}
        result = outcome(template, json.loads(json.dumps(sets[variables])))
        if " at 0x" in result.get("text", ""):
            continue  # an address of that process
        row.update(result if "text" in result else {"error": True})
        rows.append(row)
    with open(os.path.join(here, "template_cases.json"), "w", encoding="utf-8") as out:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        out.write(json.dumps({"now": NOW, "variables": sets}, ensure_ascii=False)[:-1] + ',\n"cases": [\n' + lines + "\n]}\n")
    print(f"{len(rows)} cases")


if __name__ == "__main__":
    if sys.argv[1:] != ["write"]:
        sys.exit(__doc__)
    write()
