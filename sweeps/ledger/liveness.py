"""Which workers hang: those of which nothing was heard for too long, by this process's own clock.

Heartbeats are written by other hosts' clocks, and any clock may jump by a day. So a heartbeat is never held against
the time of day: what counts is how long, on the monotonic clock of the process that looks, it has been the same. A
worker whose step is long renews it as long as it computes (``sweeps.ledger.pulse``); one that computes for ever without
a step done hangs too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sweeps.ledger.ledger import Held
from sweeps.ledger.owner import Owner

__all__ = ["STUCK_TIMES", "Liveness"]

STUCK_TIMES = 12
"""So many times the limit may pass without a step while the worker computes: an hour, by the limit's default."""


class Liveness:
    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_seconds = limit_seconds
        self._clock = clock
        self._heard: dict[Held, float] = {}
        self._moved: dict[tuple[str, Owner, int], float] = {}

    def silent(self, held: Sequence[Held]) -> dict[Held, str]:
        """Those of the runs that are being trained whose worker hangs, and why that is thought."""
        now, limit = self._clock(), self.limit_seconds
        self._heard = {one: self._heard.get(one, now) for one in held}
        steps = [(one.key, one.owner, one.step) for one in held]
        self._moved = {step: self._moved.get(step, now) for step in steps}
        hung = {}
        for one, step in zip(held, steps, strict=True):
            if now - self._heard[one] > limit:
                hung[one] = f"no sign of life for {limit:g} s (execute.hang_seconds)"
            elif now - self._moved[step] > STUCK_TIMES * limit:
                hung[one] = f"computes, but no step done for {STUCK_TIMES * limit:g} s ({STUCK_TIMES} hang_seconds)"
        return hung
