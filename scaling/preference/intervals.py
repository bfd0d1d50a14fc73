"""Intervals that the statistics of preferences share: Wilson's of a share, and the bootstrap over prompts.

Shapes: n units (prompts, pairs or items), K resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from scaling.errors import UserError
from scaling.fits.bootstrap import check_intervals, interval_of
from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = ["bootstrap_interval", "mean_interval", "one_column", "wilson"]


def wilson(successes: float, trials: float, level: float = 0.9) -> Interval:
    """A share with Wilson's score interval (1927); half a success, as of a tie, may be counted.

    It stays within 0 and 1 and is not of zero width where all or none succeed.
    """
    if not (0 <= successes <= trials and trials > 0):
        raise UserError(f"{successes} of {trials} is no share: give 0 to as many successes as trials, of one or more")
    z, share = float(ndtri(0.5 + level / 2)), successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Interval(estimate=share, low=min(share, max(0.0, middle - half)), high=max(share, min(1.0, middle + half)))


def bootstrap_interval(
    units: int,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    bootstrap: int,
    level: float,
    seed: int,
    at_once: int = 4_000_000,
) -> Interval:
    """``statistic`` of units drawn anew, by percentiles.

    ``statistic`` takes how often each unit occurs, (K, n), and gives (K,); NaN where a resample has no answer, which
    is left out.
    """
    check_intervals(bootstrap, level)
    estimate = float(statistic(np.ones((1, units)))[0])
    rng, drawn = np.random.default_rng([seed, 7]), []
    for begin in range(0, bootstrap, size := max(1, at_once // units)):
        count = min(size, bootstrap - begin)
        drawn.append(statistic(rng.multinomial(units, np.full(units, 1 / units), size=count).astype(np.float64)))
    told_K = np.concatenate(drawn) if drawn else np.empty(0)
    return interval_of(estimate, told_K[np.isfinite(told_K)], level)


def mean_interval(values: FloatArray, *, bootstrap: int, level: float, seed: int) -> Interval:
    """The mean of ``values`` (n,), each a share from 0 to 1, with its bootstrap; where all agree, which no resample
    can doubt, Wilson's interval."""
    if np.ptp(values) == 0 and values[0] in (0.0, 1.0):
        return wilson(float(values.sum()), len(values), level)

    def mean(count_Kn: FloatArray) -> FloatArray:
        return np.asarray(count_Kn @ values / len(values))

    return bootstrap_interval(len(values), mean, bootstrap=bootstrap, level=level, seed=seed)


def one_column(values: ArrayLike, name: str, length: int | None = None, share: bool = False) -> FloatArray:
    """``values`` as numbers (n,), checked; rows count from 1."""
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} holds something that is not a number") from None
    if column.ndim != 1 or not len(column):
        raise UserError(f"{name} has shape {column.shape}: give one number a row, and at least one row")
    if length is not None and len(column) != length:
        raise UserError(f"{name} has {len(column)} rows where {length} were expected")
    wrong = ~np.isfinite(column) | (((column < 0) | (column > 1)) if share else False)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"row {row + 1}: {name} is {column[row]:g}; it must be {'from 0 to 1' if share else 'finite'}")
    return column
