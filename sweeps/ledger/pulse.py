"""Says that a process computes while its runs can't say so themselves: a step, a compilation, an evaluation is long.

A run reports between its steps, so that a slow one looks like one that hangs. What tells them apart is processor time:
a process that is suspended, deadlocked or waits for a disk or a server uses none. The thread here lives in the process
that it speaks for, stops with it, and needs nothing of the host that looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType

import psutil
import sqlalchemy as sa

from sweeps.ledger.ledger import Ledger
from sweeps.ledger.owner import Owner
from sweeps.ledger.tracker import LedgerTracker

__all__ = ["Pulse"]

LOOK_SECONDS = 3.0
LEAST_SHARE = 0.01
"""Of one processor's time: a crowded machine leaves a process more, and one that hangs takes none."""


class Pulse:
    """While entered, renews the heartbeat of all runs that ``owner`` holds whenever none of those that are watched has
    reported for ``LOOK_SECONDS`` and the process, with what it started, has used processor time meanwhile."""

    def __init__(self, ledger: Ledger, owner: Owner) -> None:
        self._ledger, self._owner = ledger, owner
        self._trackers: tuple[LedgerTracker, ...] = ()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pulse")

    def watch(self, trackers: Iterable[LedgerTracker]) -> None:
        """The trackers of the runs that are trained from now on."""
        self._trackers = tuple(trackers)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        looked, own, others = time.monotonic(), _own_seconds(), None
        while not self._done.wait(LOOK_SECONDS):
            before, looked = looked, time.monotonic()
            own_before, own = own, _own_seconds()
            others_before, others = others, None
            if not self._trackers or any(looked - tracker.told_at < LOOK_SECONDS for tracker in self._trackers):
                continue
            least = LEAST_SHARE * (looked - before)
            if own - own_before < least:
                # To find the children, all processes of the host are looked through.
                others = _childrens_seconds()
                if others_before is None or others - others_before < least:
                    continue
            try:
                self._ledger.pulse(self._owner)
            except sa.exc.SQLAlchemyError as error:
                print(f"no pulse: {' '.join(str(error).split())[:200]}", flush=True)


def _own_seconds() -> float:
    """Processor time of this process so far, without that of the thread that asks."""
    return time.process_time() - time.thread_time()


def _childrens_seconds() -> float:
    """Processor time of what this process started: of those that run, and of those whose end it has seen."""
    me = psutil.Process()
    ended = me.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for child in me.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
