"""Who is alive: workers that hang, clocks that jump, pids used again: faults 16, 25 and 30."""

from __future__ import annotations

import json
import os
import sqlite3
import textwrap
from pathlib import Path

import pytest

from sweeps.ledger.ledger import Held
from sweeps.ledger.liveness import STUCK_TIMES, Liveness
from sweeps.ledger.owner import Owner

from .conftest import Outcome, Site, eventually, finish


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_run_goes_on_from_its_checkpoint(site: Site, control: Outcome) -> None:
    site.write(hang_seconds=12)
    engine = site.sweep()
    eventually(lambda: site.under_way() and list((site.workspace / "runs").glob("*/*.checkpoint")))
    hung = site.suspended()
    finish(engine)
    assert not hung.is_running() or hung.status() == "zombie"
    site.assert_unharmed(control)
    (row,) = [row for row in site.rows() if row.failures]
    assert row.failure_kind == "machine"


FAULTS = {
    "a slow step": """
        until = time.monotonic() + 30
        while time.monotonic() < until:
            torch.ones(300, 300) @ torch.ones(300, 300)
    """,
    "a deadlock": """
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_whose_step_is_long_is_left_alone_and_one_that_waits_for_itself_is_killed(
    site: Site, control: Outcome, tmp_path: Path, fault: str
) -> None:
    """At the thirtieth step of the first worker that comes so far."""
    hook = tmp_path / "hook"
    hook.mkdir()
    script = f"""
import sys
if "sweeps.worker" in sys.orig_argv:
    import itertools, pathlib, threading, time
    import torch
    from trainer.loop.step import TrainingStep
    steps, begin = itertools.count(1), TrainingStep.accumulate
    def fault():
{textwrap.indent(textwrap.dedent(FAULTS[fault]), " " * 8)}
    def accumulate(self, *batch):
        if next(steps) == 30:
            try:
                pathlib.Path({str(hook)!r}, "happened").touch(exist_ok=False)
            except FileExistsError:
                return begin(self, *batch)
            fault()
        return begin(self, *batch)
    TrainingStep.accumulate = accumulate
"""
    (hook / "sitecustomize.py").write_text(script, encoding="utf-8")
    site.write(hang_seconds=12)
    finish(site.sweep(PYTHONPATH=f"{hook}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"))
    assert (hook / "happened").exists()
    site.assert_unharmed(control)
    failures = [(row.failures, row.failure_kind) for row in site.rows() if row.failures]
    assert failures == ([] if fault == "a slow step" else [(1, "machine")])


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_a_day_makes_nobody_dead(site: Site, control: Outcome, tmp_path: Path, days: int) -> None:
    """The time of day of the engine and of every worker jumps three seconds after its process has begun."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import pathlib, time
            begun, real = time.monotonic(), time.time
            def jumping():
                jumped = time.monotonic() - begun > 3
                if jumped:
                    pathlib.Path({str(hook)!r}, "jumped").touch()
                return real() + jumped * {days} * 86400
            time.time = jumping
        """),
        encoding="utf-8",
    )
    finish(site.sweep(PYTHONPATH=f"{hook}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"))
    assert (hook / "jumped").exists()
    site.assert_unharmed(control)
    assert {row.failures for row in site.rows()} == {0}


def test_silence_is_measured_by_the_own_clock_whatever_the_heartbeat_says() -> None:
    now = [0.0]
    liveness = Liveness(10, clock=lambda: now[0])
    me = Owner.me()
    for tick in range(100):
        now[0] += 5
        beats = Held("beats", me, heartbeat=1e9 - 86400 * (tick % 2) + tick, step=tick)
        stands = Held("stands", me, heartbeat=5e9, step=7)
        silent = [held.key for held in liveness.silent([beats, stands])]
        assert silent == (["stands"] if tick > 2 else [])


def test_who_computes_for_ever_without_a_step_is_silent_too() -> None:
    now = [0.0]
    liveness = Liveness(10, clock=lambda: now[0])
    me = Owner.me()
    for tick in range(1, 60):
        now[0] += 5
        slow = Held("slow", me, heartbeat=tick, step=tick // 20)
        stuck = Held("stuck", me, heartbeat=tick, step=7)
        silent = liveness.silent([slow, stuck])
        assert list(silent) == ([stuck] if (tick - 1) * 5 > 10 * STUCK_TIMES else [])
        assert all("no step done for 120 s" in why for why in silent.values())


@pytest.mark.slow
@pytest.mark.parametrize("pid", ["used again", "gone"])
def test_a_run_held_by_a_forged_owner_and_a_stale_lock_are_seen_through(site: Site, control: Outcome, pid: str) -> None:
    """The owner's pid is that of a process which lives, but began at another time; the lock's file is there."""
    me = Owner.me()
    owner = me._replace(started=me.started - 1000) if pid == "used again" else me._replace(pid=2**22 - 1)
    engine = site.sweep()
    eventually(site.under_way)
    engine.kill()
    engine.communicate()
    eventually(lambda: not site.workers(), seconds=30)
    with sqlite3.connect(site.workspace / "ledger.db") as db:
        db.execute("UPDATE runs SET state = 'running', owner = ? WHERE state = 'planned'", [str(owner)])
    assert "running" in {row.state for row in site.rows()}
    assert (site.workspace / "studies" / "tiny" / ".lock").exists()
    finish(site.sweep())
    site.assert_unharmed(control)
    assert json.dumps([row.failures for row in site.rows()]) == "[0, 0, 0, 0]"
