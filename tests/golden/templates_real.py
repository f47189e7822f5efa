"""Renders real chat templates through transformers and through our renderer, and compares the bytes.

    python3 templates_real.py RENDERER [TEMPLATE…]

The templates are those of $HONE_TEST_FILES/llama-cpp-python unless named; of those there must be at least 60, so
that a folder that has moved is no success. Where Jinja2 raises, ours must fail too. The last line tells how many
were compared. Exit status: 0 all equal, 1 some not, or too few, 77 transformers is not installed."""
import difflib
import glob
import json
import os
import subprocess
import sys

try:
    import template_oracle

    template_oracle.environment()
except ImportError as cause:
    print(f"transformers is not installed ({cause}): the real templates are not compared")
    sys.exit(77)

LEAST = 60

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather <now> & \"then\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "minimum": 1},
                "options": {"type": "object", "properties": {"deep": {"type": "array", "items": {"type": "number"}}}},
                "either": {"type": ["string", "null"], "nullable": True},
            },
            "required": ["city"],
        },
    },
}
PLAIN = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}


def call(name, arguments, number="call00001"):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def conversations():
    turns = [user("Hello!"), assistant("Hi there."), user("And now?")]
    asked = [user("Weather in Zürich?"), assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": 2})])]
    result = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"temp\": 21.5}"}
    two = [call("get_weather", {"city": "Rome"}, "call00001"), call("now", {}, "call00002")]
    results = [result, {**result, "name": "now", "tool_call_id": "call00002", "content": "12:00"}]
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]
    yield "one turn", {"messages": turns[:1]}
    yield "several turns", {"messages": turns}
    yield "system", {"messages": [system("You are terse."), *turns]}
    yield "ends with the assistant", {"messages": [system("You are terse."), *turns, assistant("Later.")]}
    yield "unicode", {"messages": [system("“Ünïcödé” 🙂"), user("日本語\n\n  text\t"), assistant("e\u0301 — ok"), user(" \n")]}
    yield "quotes and tags", {"messages": [user("<b>\"a\" & 'c'</b> {{ x }} {% y %} \\n"), assistant("<|im_end|>"), user("\r\nx")]}
    yield "tools", {"messages": turns, "tools": [WEATHER, PLAIN]}
    yield "tools and system", {"messages": [system("Be kind."), *turns], "tools": [WEATHER]}
    yield "tool call", {"messages": asked, "tools": [WEATHER]}
    yield "tool result", {"messages": [*asked, result], "tools": [WEATHER]}
    yield "tool result and answer", {"messages": [system("S"), *asked, result, assistant("21.5 degrees."), user("Thanks")], "tools": [WEATHER]}
    yield "two calls", {"messages": [user("Both?"), assistant(None, tool_calls=two), *results], "tools": [WEATHER, PLAIN]}
    yield "two calls, text beside", {"messages": [user("Both?"), assistant("Let me see.", tool_calls=two), *results, assistant("So."), user("Ok")], "tools": [WEATHER, PLAIN]}
    yield "arguments as text", {"messages": [user("W?"), assistant("", tool_calls=[call("get_weather", "{\"city\": \"Rome\"}")]), result], "tools": [WEATHER]}
    yield "reasoning", {"messages": [user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?"), assistant("<think>\nEasy\n</think>\n\n6"), user("4+4?")]}
    yield "thinking off", {"messages": turns, "enable_thinking": False}
    yield "thinking on", {"messages": turns, "enable_thinking": True, "reasoning_effort": "high"}
    yield "content in parts", {"messages": [user(parts), assistant("A thing."), user(parts)]}
    yield "image", {"messages": [user([{"type": "image"}, {"type": "text", "text": "What?"}])]}
    yield "two of a role", {"messages": [user("a"), user("b")]}
    yield "assistant first", {"messages": [assistant("I begin."), user("b")]}
    yield "no messages", {"messages": []}
    yield "system alone", {"messages": [system("Only.")]}
    yield "developer", {"messages": [{"role": "developer", "content": "Dev."}, user("x")]}
    yield "unknown role", {"messages": [user("a"), {"role": "critic", "content": "c"}]}
    yield "documents", {"messages": turns, "documents": [{"title": "T", "text": "Body", "doc_id": 3}]}
    yield "no content", {"messages": [{"role": "user"}]}
    yield "empty tools", {"messages": turns, "tools": []}
    yield "null tools", {"messages": turns, "tools": None}
    yield "long", {"messages": [m for i in range(30) for m in (user(f"q{i}"), assistant(f"a{i} " * 3))] + [user("end")]}


def variables():
    for name, given in conversations():
        for prompt in (False, True):
            yield f"{name}, prompt {prompt}", {**given, "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}


def main(renderer, paths, least):
    child = subprocess.Popen([renderer, "--render"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    passed, refused, templates, failures = 0, 0, 0, []
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            source = file.read()
        before = len(failures)
        for name, given in variables():
            # What the renderer sees is JSON, so Jinja2 gets it through JSON too.
            given = json.loads(json.dumps(given))
            job = {"template": source, "name": os.path.basename(path), "variables": given, "now": template_oracle.NOW}
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
            ours = json.loads(child.stdout.readline())
            theirs = template_oracle.outcome(source, given)
            same = ("error" in ours) == ("error" in theirs) and ours.get("text") == theirs.get("text")
            same = same and ours.get("spans", []) == theirs.get("spans", [])
            refused += "error" in theirs
            passed += same
            if not same:
                failures.append((os.path.basename(path), name, theirs, ours))
        templates += len(failures) == before
    child.stdin.close()
    child.wait()
    for path, name, theirs, ours in failures[:40]:
        print(f"{path}: {name}")
        if "text" in theirs and "text" in ours:
            lines = difflib.unified_diff(theirs["text"].splitlines(True), ours["text"].splitlines(True), "jinja2", "ours", n=1)
            print("".join(repr(line) + "\n" for line in list(lines)[:12]))
            print(theirs.get("spans"), ours.get("spans"))
        else:
            print(f"  jinja2: {str(theirs)[:300]}\n  ours:   {str(ours)[:300]}")
    print(f"{passed} conversations equal ({refused} of them refused by Jinja2), {len(failures)} not")
    print(f"{len(paths)} templates compared, {templates} equal, at least {least} needed")
    return 1 if failures or len(paths) < least or not passed else 0


if __name__ == "__main__":
    files = os.path.join(os.environ.get("HONE_TEST_FILES", ""), "llama-cpp-python/vendor/llama.cpp/models/templates/*.jinja")
    named = sys.argv[2:]
    sys.exit(main(sys.argv[1], named or sorted(glob.glob(files)), 1 if named else LEAST))
