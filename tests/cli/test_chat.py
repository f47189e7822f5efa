#!/usr/bin/env python3
"""At a terminal, which a pseudo-terminal is here: what a person types, what stands on the screen.

    test_chat.py PROGRAM"""
import fcntl
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

program = pathlib.Path(sys.argv[1]).resolve()
model = pathlib.Path(__file__).resolve().parent.parent / "golden/data/qwen2"  # has a chat template
home = tempfile.TemporaryDirectory(prefix="hone-chat-")
environment = {**os.environ, "HONE_HOME": home.name, "TERM": "xterm"}
FLAGS = ["--model", str(model), "--device", "ref", "--threads", "1"]
PROMPT = b"\n> "


class Terminal:
    def __init__(self, *arguments, columns=0):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.execve(program, [program, *arguments], environment)
        self.seen = b""

    def until(self, mark, what):
        """What is written up to and including the mark; lines end as the terminal ends them for a person."""
        end = time.time() + 300
        while mark not in self.seen:
            assert time.time() < end and select.select([self.screen], [], [], end - time.time())[0], f"{what}: {mark} did not come: {self.seen}"
            try:
                new = os.read(self.screen, 4096)
            except OSError:
                new = b""
            assert new, f"{what}: it ended: {self.seen}"
            self.seen += new.replace(b"\r\n", b"\n")
        at = self.seen.index(mark) + len(mark)
        text, self.seen = self.seen[:at], self.seen[at:]
        return text

    def say(self, line, what):
        os.write(self.screen, line + b"\n")
        self.until(line + b"\n", what)  # the terminal's echo
        self.seen = b"\n" + self.seen   # the prompt may follow at once
        return self.until(PROMPT, what)[1:-len(PROMPT)]

    def leave(self, what):
        os.write(self.screen, b"\x04")
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status == 0, f"{what}: status {status}"


def a_prompt_that_is_too_long_leaves_the_conversation_standing():
    chat = Terminal("chat", *FLAGS, "--context", "96", "--max-tokens", "2")
    assert b"/new" in chat.until(b"> ", "start")
    refusal = chat.say(b"word " * 60, "too long")
    assert b"the context 96" in refusal and b"/new starts over" in refusal, refusal
    assert b"context" not in chat.say(b"a", "after it"), "the turn that was refused is still part of the conversation"
    chat.leave("too long")


def words_and_blank_lines_are_no_turns():
    chat = Terminal("chat", *FLAGS, "--max-tokens", "2")
    chat.until(b"> ", "start")
    assert chat.say(b"", "empty") == b"" and chat.say(b"  ", "blanks") == b"" and chat.say(b"/new", "new") == b""
    assert b"Ctrl-D leaves" in chat.say(b"/help", "help")
    chat.leave("words")


def an_answer_that_is_interrupted_ends_its_line():
    chat = Terminal("chat", *FLAGS, "--context", "60000", "--max-tokens", "50000", "--temperature", "100", "--seed", "3")
    assert b"warning: --context 60000 is more than the model's context of" in chat.until(b"> ", "start")
    os.write(chat.screen, b"a\n")
    chat.until(b"a\n", "interrupted")
    while len(chat.seen) < 3:  # an answer has begun
        chat.seen += os.read(chat.screen, 100)
    os.write(chat.screen, b"\x03")
    text = chat.until(b"Stopped; that turn is left out.\n> ", "interrupted")
    assert text.split(b"\n")[-2] == b"Stopped; that turn is left out.", text
    chat.leave("interrupted")


def what_is_stopped_says_so_on_a_line_of_its_own():
    commands = {b"generate: stopped": (["generate", *FLAGS, "--prompt", "a", "--max-tokens", "50000", "--context", "60000", "--temperature", "100"], b"tokens\n"),
                b"train: stopped": (["train", *FLAGS, "--data", str(model / "rows.jsonl"), "--epochs", "9999", "--output", home.name + "/run"], b" left")}
    for last, (arguments, begun) in commands.items():
        screen = Terminal(*arguments)
        screen.until(begun, "stopped")
        while len(screen.seen) < 3:
            screen.seen += os.read(screen.screen, 100)
        os.write(screen.screen, b"\x03")
        text = screen.until(b": stopped", "stopped") + screen.until(b"\n", "stopped")
        assert text.split(b"\n")[-2].startswith(last), text
        assert os.waitstatus_to_exitcode(os.waitpid(screen.pid, 0)[1]) == 130


def the_bar_of_a_run_fits_the_terminal():
    """What is drawn over at the next step must not have gone on in a line below."""
    for columns in (1, 10, 20, 40, 80, 200):
        screen = Terminal("train", *FLAGS, "--data", str(model / "rows.jsonl"), "--max-steps", "3", "--epochs", "9", "--output",
                          f"{home.name}/run-{columns}", columns=columns)
        text = screen.until(b"Done in", "bar").decode()
        widest = max(len(b) for b in re.sub(r"\x1b\[[0-9]*m", "", text).split("\r\x1b[K")[1:-1])
        assert widest < max(columns, 2) and (columns < 80 or widest > 50), (columns, widest, text)
        assert os.waitstatus_to_exitcode(os.waitpid(screen.pid, 0)[1]) == 0


def a_pipe_ends_at_the_first_turn_that_fails():
    """Whoever reads would take the next answer for the one that is missing."""
    command = [program, "chat", *FLAGS, "--max-tokens", "2", "--json"]
    done = subprocess.run(command, env=environment, input=b"a\nb\xff\nc\n", capture_output=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and len(lines) == 2 and lines[0].startswith(b'{"text":'), done
    assert b'"code":"input"' in lines[1] and b"UTF-8" in lines[1] and done.stderr == b"", done
    done = subprocess.run(command, env=environment, input=b"a\nb\0b\nc\n", capture_output=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and len(lines) == 2 and b"NUL" in lines[1], done


for test in (a_prompt_that_is_too_long_leaves_the_conversation_standing, words_and_blank_lines_are_no_turns,
             an_answer_that_is_interrupted_ends_its_line, the_bar_of_a_run_fits_the_terminal, what_is_stopped_says_so_on_a_line_of_its_own, a_pipe_ends_at_the_first_turn_that_fails):
    test()
    print("ok   ", test.__name__)
