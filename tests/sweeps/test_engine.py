"""The engine under real faults: processes killed for real, and the same losses and weights as an unfaulted control."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sweeps.conduct import Conductor
from sweeps.engine import run_stage
from sweeps.executors.local import LocalExecutor
from sweeps.ledger import MAX_FAILURES, Ledger, PlannedRun
from sweeps.owner import Owner
from sweeps.study import Study
from sweeps.workspace import Workspace

Outcome = dict[str, tuple[Any, ...]]


def outcome(workspace: Path, study: str = "tiny") -> Outcome:
    """What must not depend on faults: each run's state, weights and every point of its curve, but for its speed."""
    ledger = Ledger(Workspace(workspace).ledger_url)

    def curve(key: str) -> Iterator[tuple[int, str, float]]:
        for point in sorted(ledger.points(key), key=lambda p: (p.step, p.name)):
            if point.name not in ("tokens_per_second", "mfu"):
                yield point.step, point.name, point.value

    return {
        row.key: (
            row.state,
            row.loss,
            (row.result or {}).get("weights_hash"),
            tuple(curve(row.key)),
        )
        for row in ledger.runs(study)
    }


def workers_of(workspace: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "sweeps.worker" in line and str(workspace) in line and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s")


def a_run_is_under_way(workspace: Path) -> list[Any]:
    ledger = Ledger(Workspace(workspace).ledger_url)
    return [row for row in ledger.runs("tiny") if row.state == "running" and row.step > 0]


@pytest.fixture(scope="module")
def study_file(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {
        "name": "tiny",
        "question": {"flops": 1e15},
        "corpus": {"source": str(tiny_text), "vocabulary": 300, "held_out": 0.2},
        "model": {"context": 32},
        "budget": {"flops": 6e10},
        "design": {
            "kind": "isoflop",
            "budgets": 3,
            "ratio": 1.3,
            "sizes": 4,
            "size_step": 1.5,
            "tokens_per_param": 2,
            "replicates": 1,
        },
        "hyperparameters": {"learning_rate": 0.01, "global_batch_tokens": 128},
        "execute": {"workers": 2},
        "track": {"mlflow": None},
    }
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def one_calibration(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All of this module plans from one calibration, as one machine would."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


def sweep(study_file: Path, workspace: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "scaling.cli.main", "sweep", str(study_file), "--workspace", str(workspace)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()


@pytest.fixture(scope="module")
def control(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The study's sweep, trained without a fault."""
    workspace = tmp_path_factory.mktemp("control")
    finish(sweep(study_file, workspace))
    found = outcome(workspace)
    assert len(found) == 12
    assert {state for state, *_ in found.values()} == {"finished"}
    return found


def test_a_worker_killed_in_the_middle_is_replaced_and_its_run_ends_the_same(
    study_file: Path, control: Outcome, tmp_path: Path
) -> None:
    engine = sweep(study_file, tmp_path)
    row = eventually(lambda: a_run_is_under_way(tmp_path))[-1]
    victim = eventually(lambda: workers_of(tmp_path))[0]
    victim.kill()
    finish(engine)
    assert outcome(tmp_path) == control
    rows = Ledger(Workspace(tmp_path).ledger_url).runs("tiny")
    assert sum(one.failures for one in rows) == 1, f"the fault must really have hit a run, such as {row.key[:8]}"


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_an_engine_killed_at_a_random_moment_leaves_no_orphan_and_resumes_bit_for_bit(
    study_file: Path, control: Outcome, tmp_path: Path, attempt: int
) -> None:
    engine = sweep(study_file, tmp_path)
    eventually(lambda: workers_of(tmp_path))
    time.sleep(random.Random(attempt).uniform(0.5, 8.0))
    engine.kill()
    engine.communicate()
    eventually(lambda: not workers_of(tmp_path), seconds=30)
    finish(sweep(study_file, tmp_path))
    assert outcome(tmp_path) == control


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_with_its_exit_code_and_the_sweep_resumes(
    study_file: Path, control: Outcome, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    engine = sweep(study_file, tmp_path)
    eventually(lambda: a_run_is_under_way(tmp_path))
    os.killpg(engine.pid, number)
    output, _ = engine.communicate(timeout=60)
    assert engine.returncode == code, output.decode()
    assert b"Traceback" not in output
    assert workers_of(tmp_path) == []
    states = {row.state for row in Ledger(Workspace(tmp_path).ledger_url).runs("tiny")}
    assert "running" not in states
    finish(sweep(study_file, tmp_path))
    assert outcome(tmp_path) == control


@pytest.mark.slow
def test_two_terminals_train_each_run_exactly_once(study_file: Path, control: Outcome, tmp_path: Path) -> None:
    first, second = sweep(study_file, tmp_path), sweep(study_file, tmp_path)
    finish(first)
    finish(second)
    assert outcome(tmp_path) == control
    results = [row.result or {} for row in Ledger(Workspace(tmp_path).ledger_url).runs("tiny")]
    assert [result["resumed"] for result in results] == [0] * 12


def test_a_run_that_always_fails_is_given_up_and_the_others_complete(
    study_file: Path, tiny_study: Study, silent: Any, tmp_path: Path
) -> None:
    conductor = Conductor(tiny_study, Workspace(tmp_path), silent)
    plan = conductor.plan()
    smallest = min(plan.sweep, key=lambda planned: planned.point.flops).point
    from sweeps.plan import run_spec

    good = run_spec(tiny_study, plan, smallest.shape, 128 * 40, 0.01, 0)
    poisoned = good.model_copy(update={"data_key": "another corpus"})
    poisoned = type(good).model_validate(poisoned.model_dump())
    conductor.ledger.add(
        "tiny", [PlannedRun(spec=one, stage="sweep", label="one") for one in (good, poisoned)]
    )  # fmt: skip
    executor = LocalExecutor(conductor.workspace, "tiny", 1)
    run_stage(conductor.ledger, executor, "tiny", "sweep", workers=1, report=lambda rows: None)
    rows = {row.key: row for row in conductor.ledger.runs("tiny")}
    assert rows[good.key].state == "finished"
    assert (rows[poisoned.key].state, rows[poisoned.key].failures) == ("failed", MAX_FAILURES)
    assert "data_key" in (rows[poisoned.key].error or "")


def test_a_stopped_worker_gives_its_run_back_without_a_failure(tiny_study: Study, silent: Any, tmp_path: Path) -> None:
    from sweeps.plan import run_spec
    from sweeps.worker import work

    conductor = Conductor(tiny_study, Workspace(tmp_path), silent)
    plan = conductor.plan()
    shape = plan.sweep[0].point.shape
    long = run_spec(tiny_study, plan, shape, 128 * 4000, 0.01, 0)
    conductor.ledger.add("tiny", [PlannedRun(spec=long, stage="sweep", label="long")])
    stopping = threading.Event()

    def stop_on_the_way() -> None:
        while conductor.ledger.runs("tiny")[0].step == 0:
            time.sleep(0.05)
        stopping.set()

    threading.Thread(target=stop_on_the_way, daemon=True).start()
    work(conductor.workspace, "tiny", "sweep", stopping)
    (row,) = conductor.ledger.runs("tiny")
    assert (row.state, row.failures) == ("planned", 0)
    assert 0 < row.step < long.steps
    assert conductor.ledger.lease("tiny", "sweep", Owner.me()) is not None
