"""The tracking store is away, silent, locked or new: nothing waits longer than is stated, all is sent once, later.

Faults 8, 9, 10 and 11. The projection runs in processes of its own, which end as a study's process does.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..sweeps.conftest import Silent, write_text
from ..sweeps.large import Large
from ..sweeps.projected import STUDY, Projected, frozen_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

PROJECT = """
import sys, time
from sweeps.ledger.ledger import Ledger
from sweeps.tracking.thread import ProjectionThread
from sweeps.planning.plan import Plan
ledger_url, uri, study, patience, starts_at = sys.argv[1:]
plan = Plan.model_validate(Ledger(ledger_url).plan_of("tiny")[1])
import mlflow
time.sleep(max(0.0, float(starts_at) - time.time()))
thread = ProjectionThread(ledger_url, uri, None, study, plan, every_seconds=0.2)
time.sleep(1)  # training, which asks the thread for nothing
began = time.monotonic()
projection = thread.finish(float(patience))
print(f"waited {time.monotonic() - began:.2f}", flush=True)
if projection is None:
    print(f"fault {thread.fault}", flush=True)
    sys.exit(3)
projection.end("FINISHED")
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    text = write_text(tmp_path_factory.mktemp("text"))
    return frozen_study(text, tmp_path_factory.mktemp("frozen"), Silent())


@pytest.fixture
def projected(frozen: tuple[Any, Path], tmp_path: Path) -> Projected:
    return Projected(*frozen, tmp_path / "workspace")


def start(projected: Projected, uri: str, *, study: str = STUDY, patience: float = 60, at: float = 0) -> Any:
    command = [sys.executable, "-c", PROJECT, projected.ledger.url, uri, study, str(patience), str(at)]
    environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def project(projected: Projected, uri: str, *, patience: float = 60) -> tuple[int, float]:
    """(exit code, seconds that the study's end waited)."""
    process = start(projected, uri, patience=patience)
    output, _ = process.communicate(timeout=300)
    waited = [float(line.split()[1]) for line in output.splitlines() if line.startswith("waited")]
    assert waited, output
    return process.returncode, waited[0]


def as_without_faults(projected: Projected) -> Any:
    """What a store that was always there shows."""
    uri, projected.uri = projected.uri, projected.workspace.tracking_uri("sqlite:///control.db")
    again = projected.projection()
    again.sync()
    again.end("FINISHED")
    control = projected.shown()
    projected.uri = uri
    return control


def test_a_server_that_takes_requests_and_never_answers_costs_the_stated_time_and_no_more(
    projected: Projected,
) -> None:
    projected.train_all()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        code, waited = project(projected, f"http://127.0.0.1:{port}", patience=4)
    assert code == 3
    assert waited < 4 + 2
    code, _ = project(projected, projected.uri)
    assert code == 0
    assert projected.shown() == as_without_faults(projected)


def test_a_locked_database_is_tried_again_then_left_and_a_later_process_sends_everything_once(
    projected: Projected,
) -> None:
    key = projected.lease()
    projected.points(key, range(1, 11))
    assert project(projected, projected.uri)[0] == 0
    projected.points(key, range(11, 21))
    projected.ledger.release(key, projected.owner)
    projected.train_all()
    holder = sqlite3.connect(projected.uri.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    code, waited = project(projected, projected.uri, patience=4)
    holder.execute("ROLLBACK")
    holder.close()
    assert code == 3
    assert waited < 4 + 2
    assert project(projected, projected.uri)[0] == 0
    assert projected.shown() == as_without_faults(projected)


def test_processes_that_start_together_on_a_new_database_set_it_up_once_and_none_fails(projected: Projected) -> None:
    projected.train_all()
    with sqlite3.connect(projected.workspace.root / "ledger.db") as db:
        for number in range(4):
            db.execute(
                "INSERT INTO study_runs SELECT ?, run_key, stage, label, budget_flops FROM study_runs WHERE study = ?",
                (f"study-{number}", STUDY),
            )
    db.close()
    at = time.time() + 15
    processes = [start(projected, projected.uri, study=f"study-{number}", at=at) for number in range(4)]
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    names = {experiment.name for experiment in projected.client.search_experiments()}
    assert names >= {f"scaling/study-{number}" for number in range(4)}


@contextmanager
def server(projected: Projected | Large, port: int, *options: str) -> Iterator[str]:
    """A real MLflow server on the workspace's database; killed, not asked, at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", projected.uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", *options]
    process = subprocess.Popen(
        command, cwd=projected.workspace.root, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_is_away_at_the_start_in_the_middle_and_at_the_end_gets_everything_once(
    projected: Projected,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    key = projected.lease()
    projected.points(key, range(1, 11))
    code, waited = project(projected, uri, patience=20)
    assert code == 3
    assert waited < 20 + 2
    with server(projected, port):
        assert project(projected, uri, patience=60)[0] == 0
    projected.points(key, range(11, 21))
    assert project(projected, uri, patience=20)[0] == 3
    projected.ledger.release(key, projected.owner)
    projected.train_all()
    with server(projected, port):
        assert project(projected, uri, patience=60)[0] == 0
    assert projected.shown() == as_without_faults(projected)
