"""Where workers run. Each executor starts and stops worker processes; what they train is the ledger's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sweeps.ledger.ledger import Stage
from sweeps.ledger.owner import Owner

__all__ = ["DeadWorker", "Executor"]


@dataclass(frozen=True)
class DeadWorker:
    """A worker that ended by itself with an error: who it was, if that is known, and how it ended in words."""

    owner: Owner | None
    cause: str


class Executor(Protocol):
    """Starts workers that lease runs of one stage from the ledger until there are none."""

    def start(self, stage: Stage, count: int) -> None:
        """Start ``count`` more workers."""

    def alive(self) -> int:
        """How many workers are running, or wait for the cluster to give them a place."""

    def holds(self, owner: Owner) -> bool:
        """Whether ``owner`` is a worker of this executor, whose end ``collect_dead`` will tell."""

    def collect_dead(self) -> Sequence[DeadWorker]:
        """The workers that ended with an error since the last call."""

    def kill(self, owner: Owner) -> None:
        """End a worker that hangs, at once; its end is not told again. Not one of this executor's: nothing happens."""

    def stop(self) -> None:
        """Ask all workers to save and end, wait, and kill what does not; returns when none is left."""
