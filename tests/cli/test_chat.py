"""``scaling chat`` as a process: a pipe, and a terminal in which an answer is stopped."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from ..trainer.posttrain.tiny_models import tiny_model

pytest.importorskip("transformers", reason="transformers is not installed (the posttrain extra)")
COMMAND = [sys.executable, "-m", "scaling.cli.main", "chat"]


def piped(*arguments: str, said: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], input=said, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_pipe_says_one_thing(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny")
    done = piped(str(model), "--json", "--max-tokens", "8", "--seed", "3", "--system", "S", said="hi\n", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["chat_template"] is True and answer["model"] == "tiny"
    assert [message["role"] for message in answer["messages"]] == ["system", "user", "assistant"]
    assert answer["messages"][1]["content"] == "hi"
    assert answer["text"] == answer["messages"][2]["content"]
    assert 1 <= answer["completion_tokens"] <= 8


def test_mistakes_are_a_line(tmp_path: Path) -> None:
    done = piped("nowhere", said="hi", cwd=tmp_path)
    assert done.returncode == 2 and "RUN 'nowhere'" in done.stderr and len(done.stderr.splitlines()) == 1


class Terminal:
    """A process under a pseudo-terminal, and all that it wrote there."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=os.environ | {"TERM": "dumb"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, part: str, *, after: int = 0) -> int:
        """Where ``part`` ends in what was written."""
        until = time.monotonic() + 90
        while part not in self.text[after:]:
            assert time.monotonic() < until, self.text
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.text += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended before {part!r}: {self.text}") from None
        return self.text.index(part, after) + len(part)


@pytest.mark.slow
def test_in_a_terminal_an_answer_is_stopped_and_the_conversation_goes_on(tmp_path: Path) -> None:
    endless = tiny_model(tmp_path / "endless", context=30_000, ends=False)
    terminal = Terminal([*COMMAND, str(endless), "--max-tokens", "20000"], tmp_path)
    at = terminal.wait_for("> ")
    assert "answers by its chat template" in terminal.text and "/reset" in terminal.text
    terminal.type("hello\n")
    until = time.monotonic() + 60
    while len(terminal.text) < at + 60 and time.monotonic() < until:
        terminal.text += os.read(terminal._ours, 65536).decode(errors="replace")
    terminal.type("\x03")
    at = terminal.wait_for("[stopped]")
    at = terminal.wait_for("> ", after=at)
    terminal.type("/save talk.json\n")
    at = terminal.wait_for("wrote talk.json", after=at)
    terminal.type("/nonsense\n")
    at = terminal.wait_for("/nonsense is no command", after=at)
    terminal.type("/reset\n")
    terminal.wait_for("forgotten", after=at)
    terminal.type("/quit\n")
    assert terminal.process.wait(30) == 0
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    assert saved["messages"][1]["content"]
