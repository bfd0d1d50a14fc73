"""A run's curve and progress on their way to the ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sweeps.ledger.ledger import Ledger
from sweeps.ledger.owner import Owner

__all__ = ["LedgerTracker"]

FLUSH_SECONDS, MOST_FLUSH_SECONDS = 1.0, 10.0
FLUSH_SHARE = 0.005


class LedgerTracker:
    """Reports a run's curve and progress to the ledger, in one transaction a second at most, and fewer where a busy
    disk would make them cost more than ``FLUSH_SHARE`` of the time."""

    def __init__(self, ledger: Ledger, key: str, owner: Owner) -> None:
        self._ledger, self._key, self._owner = ledger, key, owner
        self._points: list[dict[str, float | int | str]] = []
        self._progress: tuple[int, float | None, float | None] = (0, None, None)
        self.told_at, self._flush_every = time.monotonic(), FLUSH_SECONDS
        self.lease_lost = False

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        self._points += [
            {"step": step, "tokens": tokens, "flops": flops, "name": name, "value": float(value)}
            for name, value in values.items()
        ]
        self._flush_when_due()

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        self._progress = (step, tokens_per_second, loss)
        self._flush_when_due()

    def note(self, message: str) -> None:
        print(f"{self._key[:8]} {message}", flush=True)

    def _flush_when_due(self) -> None:
        if time.monotonic() - self.told_at >= self._flush_every:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered; after a lost lease nothing is sent any more."""
        started = time.monotonic()
        step, rate, loss = self._progress
        if not self.lease_lost:
            self.lease_lost = not self._ledger.heartbeat(
                self._key, self._owner, step=step, tokens_per_second=rate, loss=loss, points=self._points
            )
        self._points.clear()
        self.told_at = time.monotonic()
        affordable = (self.told_at - started) / FLUSH_SHARE
        self._flush_every = min(max(FLUSH_SECONDS, affordable), MOST_FLUSH_SECONDS)
