"""Runs between a sweep and its large run: a recipe that breaks shows there before the money is spent.

Delphi's first recipe diverged at 30 times the compute it was fitted on; the rungs before would have told.
"""

from __future__ import annotations

from scaling.record import Interval, Record

__all__ = ["Rung", "rung_budgets"]

RUNGS = 3
NEAR = 10.0
"""Up to this factor beyond the fitted runs rungs would cost nearly as much as the run, and the hold-out is one."""


class Rung(Record):
    """One run to train before the large one: if its loss leaves the interval, stop and find out why."""

    flops: float
    params: float
    tokens: float
    loss: Interval | None
    share: float
    """Of the large run's compute."""


def rung_budgets(largest: float, target: float) -> tuple[float, ...]:
    """Three budgets in FLOPs, evenly by their log from the ``largest`` fitted run to half of the way to ``target``.

    Half of the way by its log: further up a rung costs a good part of the run that it protects. Empty where the target
    lies within ``NEAR`` times the fitted runs.
    """
    ratio = target / largest
    if ratio <= NEAR:
        return ()
    return tuple(largest * ratio ** (rung / (2 * RUNGS)) for rung in range(1, RUNGS + 1))
