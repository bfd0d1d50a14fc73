"""Amounts of training compute that laws name, from ``data/thresholds.toml``, and which of them a run crosses."""

from __future__ import annotations

import datetime
from functools import cache

from scaling.cost.tables import table
from scaling.record import Record

__all__ = ["Threshold", "crossed", "thresholds"]


class Threshold(Record):
    """``since`` is the day from which its duties apply, ``until`` the day on which it was revoked."""

    name: str
    flops: float
    comparison: str
    instrument: str
    since: datetime.date
    until: datetime.date | None = None
    duties: str

    def standing(self, on: datetime.date) -> str:
        """In force on a day, from when it will be, or since when it is no more."""
        if self.until is not None and on >= self.until:
            return f"revoked {self.until.isoformat()}"
        return "in force" if on >= self.since else f"from {self.since.isoformat()}"


@cache
def thresholds() -> tuple[Threshold, ...]:
    """Every one of the table, smallest first, those revoked among them."""
    rows = [Threshold.model_validate(row) for row in table("thresholds")["threshold"]]
    return tuple(sorted(rows, key=lambda row: row.flops))


def crossed(flops: float) -> tuple[Threshold, ...]:
    """Those that a run of ``flops`` goes over and that were not revoked."""
    return tuple(row for row in thresholds() if row.until is None and flops > row.flops)
