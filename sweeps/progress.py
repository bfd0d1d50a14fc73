"""What a study reports to while it is planned and trained."""

from __future__ import annotations

from typing import Protocol

from sweeps.ledger.ledger import RunRow, Stage
from sweeps.planning.plan import Plan

__all__ = ["NullProgress", "Progress"]


class Progress(Protocol):
    """What a study reports to: a terminal, a log, a notebook or nobody."""

    def planned(self, plan: Plan) -> None:
        """What is going to be trained, once it is known."""

    def step(self, what: str, share: float | None = None) -> None:
        """A piece of work that trains nothing, and the share of it that is done."""

    def runs(self, stage: Stage, rows: list[RunRow]) -> None:
        """The runs of the stage as they stand."""

    def say(self, message: str) -> None:
        """Something the user should know, once."""


class NullProgress:
    """Reports to nobody."""

    def planned(self, plan: Plan) -> None: ...
    def step(self, what: str, share: float | None = None) -> None: ...
    def runs(self, stage: Stage, rows: list[RunRow]) -> None: ...
    def say(self, message: str) -> None: ...
