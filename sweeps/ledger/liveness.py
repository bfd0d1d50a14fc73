"""Which workers hang: those whose run has not moved for too long, by this process's own clock.

Heartbeats are written by other hosts' clocks, and any clock may jump by a day. So a heartbeat is never held against
the time of day: what counts is how long, on the monotonic clock of the process that looks, it has been the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sweeps.ledger.ledger import Held

__all__ = ["Liveness"]


class Liveness:
    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_seconds = limit_seconds
        self._clock = clock
        self._seen: dict[Held, float] = {}

    def silent(self, held: Sequence[Held]) -> list[Held]:
        """Those of the runs that are being trained whose heartbeat has stood still for ``limit_seconds``."""
        now = self._clock()
        self._seen = {one: self._seen.get(one, now) for one in held}
        return [one for one, since in self._seen.items() if now - since > self.limit_seconds]
