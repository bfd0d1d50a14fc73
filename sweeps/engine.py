"""Runs one stage of a study to its end: starts workers, counts failures, and stops without leaving anything behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scaling.errors import UserError
from sweeps.executors import Executor
from sweeps.ledger.ledger import Ledger, RunRow, Stage
from sweeps.ledger.liveness import Liveness

__all__ = ["Interrupted", "StageFailed", "run_stage"]

POLL_SECONDS = 0.25
REPORT_SECONDS = 0.5
MAX_IDLE_DEATHS = 3


class Interrupted(Exception):
    """The user or the system asked to stop; everything was saved. ``exit_code`` is 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StageFailed(UserError):
    """Workers die before they take up a run: a fault of the installation or of their host, not of a run."""


class _Stopping(threading.Event):
    """Set by a signal, whose number it keeps."""

    number: int = signal.SIGTERM


@contextmanager
def _stop_on_signals() -> Iterator[_Stopping]:
    """While inside, SIGINT and SIGTERM set the flag instead of raising in the middle of something."""
    stopping = _Stopping()

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.number = number
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_stage(
    ledger: Ledger,
    executor: Executor,
    study: str,
    stage: Stage,
    *,
    workers: int,
    report: Callable[[list[RunRow]], None],
    advance: Callable[[], None] = lambda: None,
    hang_seconds: float = 300.0,
) -> None:
    """Train every run of ``stage`` that isn't trained yet, ``workers`` at a time.

    Raises :class:`Interrupted` after a clean stop, :class:`StageFailed` if workers can't even start. A run that fails
    as often as ``sweeps.failures`` allows is left ``failed`` and does not stop the others. A worker of which nothing is
    heard for ``hang_seconds`` is killed. ``advance`` is called before each look at the stage, and may plan more of it.
    """
    liveness = Liveness(hang_seconds)
    with _stop_on_signals() as stopping:
        try:
            _until_done(ledger, executor, study, stage, workers, liveness, stopping, report, advance)
        finally:
            executor.stop()


def _until_done(
    ledger: Ledger,
    executor: Executor,
    study: str,
    stage: Stage,
    workers: int,
    liveness: Liveness,
    stopping: _Stopping,
    report: Callable[[list[RunRow]], None],
    advance: Callable[[], None],
) -> None:
    idle_deaths = ended = 0
    reported = 0.0
    while True:
        for death in executor.collect_dead():
            held = [one for one in ledger.held() if one.owner == death.owner]
            idle_deaths = 0 if held else idle_deaths + 1
            for key, owner, *_ in held:
                ledger.fail(key, owner, death.cause, "machine")
            if idle_deaths >= MAX_IDLE_DEATHS:
                raise StageFailed(f"{MAX_IDLE_DEATHS} workers died before taking up a run: {death.cause}")
        if stopping.is_set():
            raise Interrupted(stopping.number)
        _take_back(ledger, executor, liveness)
        advance()
        rows = ledger.runs(study, stage)
        planned = sum(row.state == "planned" for row in rows)
        running = {row.key for row in rows if row.state == "running"}
        if len(rows) - planned - len(running) != ended:
            ended, idle_deaths = len(rows) - planned - len(running), 0
        if time.monotonic() - reported > REPORT_SECONDS or not planned + len(running):
            report(rows)
            reported = time.monotonic()
        if not planned + len(running):
            return
        # A worker that has just started may not have leased yet, so it counts against what is planned. Runs that others
        # train (another study, or an engine that was killed and whose jobs the cluster still runs) need no worker here.
        ours = sum(held.key in running and executor.holds(held.owner) for held in ledger.held())
        missing = min(workers, planned + ours) - executor.alive()
        if missing > 0:
            executor.start(stage, missing)
        stopping.wait(POLL_SECONDS)


def _take_back(ledger: Ledger, executor: Executor, liveness: Liveness) -> None:
    """Take runs from workers that are gone without an executor to tell of it, and from those that hang."""
    ledger.reap(watched=executor.holds)
    for (key, owner, *_), why in liveness.silent(ledger.held()).items():
        executor.kill(owner)
        owner.kill()
        ledger.fail(key, owner, why, "machine")
