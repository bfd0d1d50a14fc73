"""``scaling synthesise``, ``review``, ``judge`` and ``prefer`` as processes, against a real server."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from trainer.posttrain.json_lines import as_lines, read_json_lines

from ..trainer.posttrain.endpoint_server import ChatServer, status
from ..trainer.posttrain.test_synthesis import SEEDS, written
from .conftest import scaling

COMMAND = [sys.executable, "-m", "scaling.cli.main"]
KEY = "sk-never-say-this"


def reply(body: dict[str, Any]) -> str:
    if "<answer_1>" in body["messages"][0]["content"]:
        return '{"reason": "r", "better": "1"}'
    return written(9, 4, random.Random(body["seed"]))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(reply, wait=0.02) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "seeds.jsonl").write_text(as_lines(task.model_dump() for task in SEEDS))
    pairs = [{"prompt": f"p{n}", "first": "a", "second": "b"} for n in range(3)]
    (tmp_path / "in.jsonl").write_text(as_lines(pairs))
    return tmp_path


def test_tasks_are_made_stopped_continued_and_reviewed(folder: Path, server: ChatServer) -> None:
    command = ["synthesise", "made", "--seeds", "seeds.jsonl", "--endpoint", server.base_url, "--model", "m"]
    with subprocess.Popen(
        [*COMMAND, *command, "--count", "90000"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as one:
        log = folder / "made" / "requests.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < 3:
            assert one.poll() is None, one.stderr and one.stderr.read()
        one.send_signal(signal.SIGINT)
        said = one.communicate(timeout=30)[1]
    assert one.returncode == 130 and "the same command goes on" in said
    before = len(read_json_lines(log))
    kept = len(read_json_lines(folder / "made" / "tasks.jsonl"))
    done = scaling(*command, "--count", str(kept + 10), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["requests"] > before and told["kept"] >= kept + 10 == told["wanted"]
    assert told["diversity"]["tasks"] == told["kept"]
    shown = scaling(*command, "--count", str(kept), cwd=folder)
    assert "next: scaling review made" in shown.stdout and "ways to begin" in shown.stdout

    with _served("review", "made", cwd=folder) as (process, address):
        task = _ask(address, "state.json")["task"]["id"]
        assert _ask(address, "decide", {"task": task, "decision": "drop"})["drop"] == 1
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert len(read_json_lines(folder / "made" / "examples.jsonl")) == told["kept"] - 1


def test_pairs_are_judged_and_preferred_into_one_file(folder: Path, server: ChatServer) -> None:
    judged = scaling(
        "judge", "in.jsonl", "--endpoint", server.base_url, "--model", "m", "--out", "out.jsonl", "--json", cwd=folder
    )
    assert judged.returncode == 0, judged.stderr
    told = json.loads(judged.stdout)
    assert (told["judged"], told["ties"], told["consistency"], told["prompt_tokens"]) == (3, 3, 0.0, 600)
    with _served("prefer", "in.jsonl", "--out", "out.jsonl", "--annotator", "ada", cwd=folder) as (process, address):
        shown = _ask(address, "state.json")["shown"]
        assert _ask(address, "choose", {"pair": shown["pair"], "side": "left"})["voted"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    (row,) = read_json_lines(folder / "out.jsonl")
    assert row["chosen"] == shown["left"] and row["annotator"] == "ada"
    assert len(read_json_lines(folder / "out.votes.jsonl")) == 4


def test_a_key_is_never_said_and_mistakes_are_a_line(
    folder: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.always = status(401, f"bad key {KEY}")
    judge = ("judge", "in.jsonl", "--model", "m", "--endpoint", server.base_url)
    for command, part in (
        ((*judge, "--key-from", "MY_KEY"), "look at the key in MY_KEY"),
        ((*judge, "--key-from", "NO_KEY"), "--key-from NO_KEY"),
        (("judge", "in.jsonl", "--model", "m"), "--model m is no folder"),
        (("judge", "none.jsonl", "--model", "m"), "none.jsonl can't be read"),
        (("prefer", "none.jsonl"), "none.jsonl can't be read"),
        (("prefer", "in.jsonl", "--out", "in.txt"), "--out in.txt"),
        (("review", "nowhere"), "nowhere holds no synthesis"),
        (("synthesise", "made", "--seeds", "none.jsonl", "--model", "m"), "none.jsonl can't be read"),
    ):
        done = scaling(*command, cwd=folder)
        assert done.returncode == 2 and part in done.stderr, (command, done.stderr)
        assert len(done.stderr.splitlines()) == 1 and KEY not in done.stderr + done.stdout
    assert not (folder / "nowhere").exists()
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY in path.read_text()]


class _served:
    """A command that serves a page, and its address."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        command = [*COMMAND, *arguments, "--port", "0", "--json"]
        self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, env=os.environ)

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self.process.stdout is not None
        return self.process, json.loads(self.process.stdout.readline())["address"]

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def _ask(address: str, path: str, sent: Any = None) -> Any:
    data = None if sent is None else json.dumps(sent).encode()
    with urlopen(Request(address + path, data, {"Content-Type": "application/json"}), timeout=10) as answer:
        return json.load(answer)
