"""Runs one stage of a study to its end: starts workers, counts failures, and stops without leaving anything behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sweeps.executors import Executor
from sweeps.ledger import Ledger, RunRow, Stage

__all__ = ["Interrupted", "StageFailed", "run_stage"]

POLL_SECONDS = 0.25
REPORT_SECONDS = 0.5
MAX_IDLE_DEATHS = 3


class Interrupted(Exception):
    """The user or the system asked to stop; everything was saved. ``exit_code`` is 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StageFailed(Exception):
    """Workers die before they take up a run: a fault of the installation, not of a run."""


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
) -> None:
    """Train every run of ``stage`` that isn't trained yet, ``workers`` at a time.

    Raises :class:`Interrupted` after a clean stop, :class:`StageFailed` if workers can't even start. A run that fails
    ``MAX_FAILURES`` times is left ``failed`` and does not stop the others. ``advance`` is called before each look at
    the stage, and may plan more runs of it.
    """
    with _stop_on_signals() as stopping:
        try:
            _until_done(ledger, executor, study, stage, workers, stopping, report, advance)
        finally:
            executor.stop()


def _until_done(
    ledger: Ledger,
    executor: Executor,
    study: str,
    stage: Stage,
    workers: int,
    stopping: _Stopping,
    report: Callable[[list[RunRow]], None],
    advance: Callable[[], None],
) -> None:
    idle_deaths = 0
    reported = 0.0
    while True:
        for death in executor.collect_dead():
            held = ledger.owned_by(death.owner)
            idle_deaths = 0 if held else idle_deaths + 1
            for key in held:
                ledger.fail(key, death.owner, death.cause)
            if idle_deaths >= MAX_IDLE_DEATHS:
                raise StageFailed(f"{MAX_IDLE_DEATHS} workers died before taking up a run: {death.cause}")
        if stopping.is_set():
            raise Interrupted(stopping.number)
        ledger.reap()
        advance()
        rows = ledger.runs(study, stage)
        planned = sum(row.state == "planned" for row in rows)
        running = sum(row.state == "running" for row in rows)
        if time.monotonic() - reported > REPORT_SECONDS or not planned + running:
            report(rows)
            reported = time.monotonic()
        if not planned + running:
            return
        # A worker that has just started may not have leased yet, so it counts against what is planned.
        if executor.alive() < min(workers, planned + running):
            executor.start(stage)
            continue
        stopping.wait(POLL_SECONDS)
