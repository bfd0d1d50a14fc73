"""A process that computes keeps its runs' heartbeat, though they report nothing; one that waits does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from sweeps.ledger import pulse as module
from sweeps.ledger.pulse import Pulse
from sweeps.ledger.tracker import LedgerTracker

from ..projected import Projected

SECONDS = 2.0


def compute() -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        sum(range(1000))


def let_a_child_compute() -> None:
    script = f"import time\nuntil = time.monotonic() + {SECONDS}\nwhile time.monotonic() < until: sum(range(1000))"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("doing", "alive"),
    [(compute, True), (let_a_child_compute, True), (lambda: time.sleep(SECONDS), False)],
    ids=["computes", "waits for a child that computes", "waits"],
)
def test_who_computes_is_alive_and_who_waits_is_not(
    projected: Projected, monkeypatch: pytest.MonkeyPatch, doing: Callable[[], None], alive: bool
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.3)
    key = projected.lease()
    tracker = LedgerTracker(projected.ledger, key, projected.owner)
    with Pulse(projected.ledger, projected.owner) as pulse:
        pulse.watch([tracker])
        time.sleep(0.7)  # what the test did before is not to count
        (before,) = projected.ledger.held()
        doing()
        (after,) = projected.ledger.held()
    assert (after.heartbeat > before.heartbeat) == alive
    assert after.step == before.step


class Reporting:
    """Has told of itself just now, whenever it is asked."""

    @property
    def told_at(self) -> float:
        return time.monotonic()


def test_a_run_that_reports_needs_no_pulse(projected: Projected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.3)
    projected.lease()
    (before,) = projected.ledger.held()
    with Pulse(projected.ledger, projected.owner) as pulse:
        pulse.watch([Reporting()])  # type: ignore[list-item]
        compute()
    assert projected.ledger.held() == [before]


def test_a_pulse_is_for_the_runs_that_its_owner_still_holds(projected: Projected) -> None:
    key, other = projected.lease(), projected.lease()
    projected.ledger.release(key, projected.owner)
    (before,) = projected.ledger.held()
    projected.ledger.pulse(projected.owner._replace(pid=projected.owner.pid + 1))
    assert projected.ledger.held() == [before]
    projected.ledger.pulse(projected.owner)
    (after,) = projected.ledger.held()
    assert after.key == other
    assert after.heartbeat > before.heartbeat
