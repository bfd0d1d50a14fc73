"""Faults on a real study of four runs: its command, its processes, and what an unfaulted control came to.

Each test starts from a copy of one planned workspace, so that corpus and calibration are made once, as on one machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from sweeps.ledger.ledger import Held, Ledger, RunRow
from sweeps.observations import observations
from sweeps.planning.plan import Plan
from sweeps.workspace import Workspace

from ..sweeps.conftest import write_text

Outcome = dict[str, tuple[Any, ...]]
RUNS = 4
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "question": {"flops": 1e15},
    "corpus": {"vocabulary": 300, "held_out": 0.2},
    "model": {"context": 32},
    "budget": {"flops": 1e12},
    "design": {"kind": "grid", "params": [15_000, 40_000], "tokens": [50_000, 100_000]},
    "hyperparameters": {"learning_rate": 0.01, "global_batch_tokens": 128},
    "execute": {"workers": 2, "checkpoint_seconds": 0.3},
    "track": {"mlflow": None},
}


class Site:
    """A workspace with the study in it, and what is done to it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.workspace = folder / "workspace"
        self.study_file = folder / "tiny.yaml"
        self.settings = settings
        self.engines: list[subprocess.Popen[bytes]] = []
        self.write()

    def write(self, **execute: Any) -> None:
        self.settings = self.settings | {"execute": self.settings["execute"] | execute}
        self.study_file.write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    def command(self, verb: str = "sweep") -> list[str]:
        python = [sys.executable, "-m", "scaling.cli.main", verb, str(self.study_file)]
        return [*python, "--workspace", str(self.workspace)]

    def sweep(self, **environment: str) -> subprocess.Popen[bytes]:
        """The engine in a session of its own, as a terminal would start it."""
        engine = subprocess.Popen(
            self.command(),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
        self.engines.append(engine)
        return engine

    def rows(self) -> list[RunRow]:
        ledger = Ledger(Workspace(self.workspace).ledger_url)
        try:
            return ledger.runs("tiny")
        finally:
            ledger.close()

    def under_way(self) -> list[RunRow]:
        """Runs that have told of a step."""
        return [row for row in self.rows() if row.state == "running" and row.step > 0]

    def suspended(self, steps: int = 1) -> psutil.Process:
        """A worker, stopped with a run of at least ``steps`` steps in its hands: what is done to it befalls that run.

        One that is only looked up may have ended its run, or taken up none, by the time that it is killed.
        """
        return eventually(lambda: self._suspended(steps))

    def _suspended(self, steps: int) -> psutil.Process | None:
        for key, owner, _, step in self._held():
            if step < steps:
                continue
            worker = psutil.Process(owner.pid)
            worker.suspend()
            if any((held.key, held.owner) == (key, owner) for held in self._held()):
                return worker
            worker.resume()
        return None

    def _held(self) -> list[Held]:
        ledger = Ledger(Workspace(self.workspace).ledger_url)
        try:
            return ledger.held()
        finally:
            ledger.close()

    def workers(self) -> list[psutil.Process]:
        """The worker processes of this workspace, whoever started them."""
        found = []
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
                if "sweeps.worker" in line and str(self.workspace) in line and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def outcome(self) -> Outcome:
        """What must not depend on faults: each run's state, weights and every point of its curve, but for its speed."""
        ledger = Ledger(Workspace(self.workspace).ledger_url)

        def curve(key: str) -> Iterator[tuple[int, str, float]]:
            for point in sorted(ledger.points(key), key=lambda p: (p.step, p.name)):
                if point.name not in ("tokens_per_second", "mfu"):
                    yield point.step, point.name, point.value

        rows = ledger.runs("tiny")
        found = {
            row.key: (row.state, row.loss, (row.result or {}).get("weights_hash"), tuple(curve(row.key)))
            for row in rows
        }
        ledger.close()
        return found

    def observations(self) -> pd.DataFrame:
        """The table that a fit would be given."""
        ledger = Ledger(Workspace(self.workspace).ledger_url)
        frozen = ledger.plan_of("tiny")
        assert frozen is not None
        table = observations(ledger, "tiny", Plan.model_validate(frozen[1]))
        ledger.close()
        return table

    def assert_unharmed(self, control: Outcome) -> None:
        """The invariant: losses and weights are the control's, each run ended once, and nobody is left behind."""
        eventually(lambda: not self.workers(), seconds=30)
        assert self.outcome() == control


def finish(process: subprocess.Popen[bytes], code: int = 0) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == code, output.decode()
    return output.decode()


def eventually(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s")


@pytest.fixture(scope="session", autouse=True)
def one_calibration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All plan from one calibration, as one machine would."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("planned")
    text = write_text(folder / "text", documents=150)
    site = Site(folder, SETTINGS | {"corpus": SETTINGS["corpus"] | {"source": str(text)}})
    subprocess.run(site.command("plan"), check=True, stdout=subprocess.DEVNULL)
    return site


@pytest.fixture(scope="session")
def control(planned: Site, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The study's sweep, trained without a fault."""
    site = _copy(planned, tmp_path_factory.mktemp("control"))
    finish(site.sweep())
    found = site.outcome()
    assert [state for state, *_ in found.values()] == ["finished"] * RUNS
    assert {row.failures for row in site.rows()} == {0}
    return found


@pytest.fixture
def site(planned: Site, control: Outcome, tmp_path: Path) -> Iterator[Site]:
    """A planned study of its own; whoever still trains it afterwards is killed."""
    made = _copy(planned, tmp_path)
    yield made
    for engine in made.engines:
        if engine.poll() is None:
            engine.kill()
            engine.communicate()
    for worker in made.workers():
        worker.kill()


def _copy(planned: Site, folder: Path) -> Site:
    shutil.copytree(planned.workspace, folder / "workspace")
    return Site(folder, planned.settings)
