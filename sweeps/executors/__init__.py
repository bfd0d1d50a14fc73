"""Where workers run. Each executor starts and stops worker processes; what they train is the ledger's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sweeps.ledger import Stage
from sweeps.owner import Owner

__all__ = ["DeadWorker", "Executor"]


@dataclass(frozen=True)
class DeadWorker:
    """A worker that ended by itself with an error: who it was, and how it ended in words."""

    owner: Owner
    cause: str


class Executor(Protocol):
    """Starts workers that lease runs of one stage from the ledger until there are none."""

    def start(self, stage: Stage) -> None:
        """Start one more worker."""

    def alive(self) -> int:
        """How many workers are running."""

    def collect_dead(self) -> Sequence[DeadWorker]:
        """The workers that ended with an error since the last call."""

    def stop(self) -> None:
        """Ask all workers to save and end, wait, and kill what does not; returns when none is left."""
