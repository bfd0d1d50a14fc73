"""Processes killed, stopped and interrupted: faults 1, 2, 3, 15, 17, 18 and 19."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.worker_exit import STOPPED

from .conftest import RUNS, Outcome, Site, eventually, finish


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_a_worker_killed_at_a_random_step_is_replaced_and_its_run_ends_the_same(
    site: Site, control: Outcome, attempt: int
) -> None:
    engine = site.sweep()
    eventually(site.under_way)
    time.sleep(random.Random(attempt).uniform(0.0, 1.0))
    site.suspended().kill()
    finish(engine)
    site.assert_unharmed(control)
    assert sum(row.failures for row in site.rows()) >= 1, "the fault must really have hit a run"
    assert {row.failure_kind for row in site.rows()} == {None, "machine"}


@pytest.mark.slow
def test_all_workers_killed_at_once_as_by_the_oom_killer_are_replaced(site: Site, control: Outcome) -> None:
    engine = site.sweep()
    eventually(lambda: len(site.under_way()) == 2)
    for worker in site.workers():
        worker.kill()
    finish(engine)
    site.assert_unharmed(control)
    assert sum(row.failures for row in site.rows()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_an_engine_killed_at_a_random_moment_leaves_no_orphan_and_resumes(
    site: Site, control: Outcome, attempt: int
) -> None:
    engine = site.sweep()
    eventually(site.workers)
    time.sleep(random.Random(attempt).uniform(0.5, 5.0))
    engine.kill()
    engine.communicate()
    eventually(lambda: not site.workers(), seconds=30)
    finish(site.sweep())
    site.assert_unharmed(control)
    assert {row.failures for row in site.rows()} == {0}


@pytest.mark.slow
def test_an_engine_and_its_workers_killed_together_are_found_out_and_resumed(site: Site, control: Outcome) -> None:
    engine = site.sweep()
    eventually(lambda: len(site.under_way()) == 2)
    workers = site.workers()
    engine.kill()
    for worker in workers:
        worker.kill()
    engine.communicate()
    assert [row.state for row in site.rows()].count("running") == 2, "the ledger can't know yet"
    finish(site.sweep())
    site.assert_unharmed(control)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is what kills between two system calls")
@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_worker_killed_in_the_middle_of_a_save_goes_on_from_the_checkpoint_before(
    site: Site, control: Outcome, tmp_path: Path, call: str
) -> None:
    """Before the rename the file is written whole under its temporary name; at an fsync it is not even that."""
    engine = site.sweep()
    saved = site.workspace / "runs"
    # Whichever worker is killed, its run has something to go on from.
    eventually(
        lambda: site.under_way() and all(list((saved / row.key[:16]).glob("*.checkpoint")) for row in site.under_way())
    )
    trace = tmp_path / "trace"
    calls = "rename,renameat,renameat2" if call == "rename" else "fsync,fdatasync"
    pid = site.workers()[0].pid
    strace = ["strace", "-f", "-o", str(trace), "-p", str(pid)]
    strace += ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when=2"]
    subprocess.run(strace, timeout=60, stderr=subprocess.DEVNULL, check=False)
    finish(engine)
    site.assert_unharmed(control)
    assert re.search("killed by SIGKILL", trace.read_text(encoding="utf-8"))
    rows = site.rows()
    assert sum(row.failures for row in rows) >= 1
    assert any((row.result or {})["resumed"] for row in rows), "a checkpoint was there to go on from"


@pytest.mark.slow
def test_a_worker_told_to_stop_saves_says_so_by_its_exit_code_and_resumes(site: Site, control: Outcome) -> None:
    engine = site.sweep()
    eventually(site.workers)
    engine.kill()
    engine.communicate()
    eventually(lambda: not site.workers(), seconds=30)
    # As a batch system starts one: without an engine.
    command = [sys.executable, "-m", "sweeps.worker", "--workspace", str(site.workspace), "--study", "tiny"]
    worker = subprocess.Popen([*command, "--stage", "sweep", "--parent", str(os.getpid())], stdout=subprocess.DEVNULL)
    (row, *_) = eventually(lambda: [row for row in site.under_way() if row.step > 20])
    worker.terminate()
    assert worker.wait(30) == STOPPED
    (stopped,) = [one for one in site.rows() if one.key == row.key]
    assert (stopped.state, stopped.failures) == ("planned", 0)
    assert stopped.step >= row.step
    finish(site.sweep())
    site.assert_unharmed(control)
    (finished,) = [one for one in site.rows() if one.key == row.key]
    assert (finished.result or {})["resumed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_with_its_exit_code_and_the_sweep_resumes(
    site: Site, control: Outcome, number: signal.Signals, code: int
) -> None:
    engine = site.sweep()
    eventually(site.under_way)
    os.killpg(engine.pid, number)
    output = finish(engine, code)
    assert "Traceback" not in output
    assert site.workers() == []
    assert "running" not in {row.state for row in site.rows()}
    finish(site.sweep())
    site.assert_unharmed(control)
    assert {row.failures for row in site.rows()} == {0}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_an_interrupted_study_is_killed_in_mlflow_too_and_its_runs_there_go_on(site: Site, control: Outcome) -> None:
    site.settings = site.settings | {"track": {"mlflow": "sqlite:///mlflow.db"}}
    site.write()
    engine = site.sweep()
    eventually(site.under_way)
    database = site.workspace / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")

    def is_set_up() -> bool:
        """Whoever opens a new database sets it up, and two at once trip over each other."""
        count = "select count(*) from experiments where name = 'scaling/tiny'"
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db,
        ):
            return bool(db.execute(count).fetchone()[0])
        return False

    def told() -> dict[str, tuple[str, str]]:
        experiment = client.get_experiment_by_name("scaling/tiny")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return {run.info.run_id: (run.data.tags["scaling.kind"], run.info.status) for run in found}

    eventually(is_set_up)
    eventually(lambda: any(kind == "run" for kind, _ in told().values()))
    os.killpg(engine.pid, signal.SIGINT)
    finish(engine, 130)
    assert site.workers() == []
    before = told()
    assert {status for _, status in before.values()} <= {"KILLED", "FINISHED"}
    assert ("study", "KILLED") in before.values()
    finish(site.sweep())
    site.assert_unharmed(control)
    after = told()
    assert before.keys() <= after.keys(), "the same MLflow runs go on"
    assert sorted(after.values()) == sorted([*[("run", "FINISHED")] * RUNS, ("study", "FINISHED")])
