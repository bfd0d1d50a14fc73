"""What a large run was asked to cost or to reach."""

from __future__ import annotations

from scaling.record import Interval, Record

__all__ = ["Target"]


class Target(Record):
    """``flops`` and how they were asked for; ``interval`` where they are themselves an estimate."""

    flops: float
    asked: str
    interval: Interval | None = None
    held: tuple[str, ...] = ()
    """Limits on power, energy or carbon that hold it below what was asked for, a sentence each."""
