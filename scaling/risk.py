"""How likely a run is to end worse than another of the same compute, if the law holds."""

from __future__ import annotations

import numpy as np

from scaling.allocation.surface import LossSurface
from scaling.record import Interval, Record

__all__ = ["Risk", "risk_of_being_worse"]


class Risk(Record):
    """Over the fit's draws of the law; what the law does not know is in none of them."""

    worse: float
    """Share of the draws under which the run ends above the other one."""
    saved: Interval
    """Nats a token by which the run ends below the other one."""


def risk_of_being_worse(surface: LossSurface, run: tuple[float, float], other: tuple[float, float]) -> Risk:
    """``run`` and ``other`` as (N, D), counted as the fit counts."""
    saved_K = surface.loss(*other) - surface.loss(*run)
    draws_K = saved_K[1:] if len(saved_K) > 1 else saved_K
    return Risk(worse=float(np.mean(draws_K < 0)), saved=surface.interval(saved_K))
