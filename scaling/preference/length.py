"""Length beside preference: are longer answers chosen, and how strongly?

Lengths are in any one unit (characters, words, tokens). Shapes: n pairs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from scaling.laws.law import FloatArray
from scaling.preference.intervals import bootstrap_interval, one_column, wilson
from scaling.record import Interval, Record

__all__ = ["LengthBias", "LengthStatistics", "length_bias", "length_statistics"]

_STEPS = 60


class LengthStatistics(Record):
    """Of one kind of text, in the unit it was measured in."""

    mean: float
    sd: float
    least: float
    p05: float
    median: float
    p95: float
    most: float


class LengthBias(Record):
    """How length goes with being chosen."""

    pairs: int
    chosen: LengthStatistics
    rejected: LengthStatistics
    chosen_longer: Interval
    """Share of all pairs whose chosen answer is the longer, those of equal length counted as not."""
    equally_long: int
    longer_of_unequal: Interval | None
    """The same among pairs of unequal length: 0.5 where length does not matter."""
    point_biserial: Interval | None
    """Correlation of an answer's length with having been chosen; None where every answer is equally long."""
    logistic_slope: Interval | None
    """Change of the logit of being preferred for a length difference of one SD; None where it has no end."""
    level: float


def length_statistics(lengths: ArrayLike) -> LengthStatistics:
    """Moments and quantiles of ``lengths`` (n,)."""
    column = one_column(lengths, "length")
    low, median, high = np.quantile(column, [0.05, 0.5, 0.95])
    return LengthStatistics(
        mean=float(column.mean()), sd=float(column.std()), least=float(column.min()), p05=float(low),
        median=float(median), p95=float(high), most=float(column.max()),
    )  # fmt: skip


def length_bias(
    chosen: ArrayLike, rejected: ArrayLike, *, level: float = 0.9, bootstrap: int = 1000, seed: int = 0
) -> LengthBias:
    """Lengths of the chosen and the rejected answers of n pairs, (n,) each.

    Shares have Wilson's intervals, correlation and slope come with a bootstrap over pairs. The slope b is of
    P(preferred) = σ(b·Δlength/sd(Δlength)), without a constant, since which answer comes first says nothing.
    """
    chosen_n = one_column(chosen, "chosen length")
    rejected_n = one_column(rejected, "rejected length", len(chosen_n))
    difference_n = chosen_n - rejected_n
    pairs, equal, longer = len(chosen_n), int((difference_n == 0).sum()), int((difference_n > 0).sum())
    return LengthBias(
        pairs=pairs,
        chosen=length_statistics(chosen_n),
        rejected=length_statistics(rejected_n),
        chosen_longer=wilson(longer, pairs, level),
        equally_long=equal,
        longer_of_unequal=wilson(longer, pairs - equal, level) if pairs > equal else None,
        point_biserial=_point_biserial(chosen_n, rejected_n, bootstrap, level, seed),
        logistic_slope=_slope(difference_n, bootstrap, level, seed) if 0 < longer < pairs - equal else None,
        level=level,
    )


def _point_biserial(
    chosen_n: FloatArray, rejected_n: FloatArray, bootstrap: int, level: float, seed: int
) -> Interval | None:
    if np.ptp(np.concatenate((chosen_n, rejected_n))) == 0:
        return None
    sum_n, square_n = chosen_n + rejected_n, chosen_n**2 + rejected_n**2

    def correlation(times_Kn: FloatArray) -> FloatArray:
        # Half of the answers are chosen: r = (mean chosen − mean rejected) / (2 SD of all).
        rows_K = times_Kn.sum(axis=1)
        mean_K = times_Kn @ sum_n / (2 * rows_K)
        variance_K = times_Kn @ square_n / (2 * rows_K) - mean_K**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(times_Kn @ (chosen_n - rejected_n) / rows_K / (2 * np.sqrt(variance_K)))

    return bootstrap_interval(len(chosen_n), correlation, bootstrap=bootstrap, level=level, seed=seed)


def _slope(difference_n: FloatArray, bootstrap: int, level: float, seed: int) -> Interval:
    scaled_n = difference_n / math.sqrt(float((difference_n**2).mean()))

    def slope(times_Kn: FloatArray) -> FloatArray:
        b_K = np.zeros(len(times_Kn))
        for _ in range(_STEPS):
            miss_Kn = expit(-b_K[:, None] * scaled_n)
            gradient_K = (times_Kn * miss_Kn) @ scaled_n
            curvature_K = (times_Kn * miss_Kn * (1 - miss_Kn)) @ scaled_n**2
            step_K = np.clip(gradient_K / np.maximum(curvature_K, 1e-12), -1.0, 1.0)
            b_K = b_K + step_K
            if float(np.abs(step_K).max()) < 1e-10:
                break
        # A resample in which one side is always longer has no finite slope.
        one_way = ((times_Kn * (scaled_n > 0)).sum(axis=1) == 0) | ((times_Kn * (scaled_n < 0)).sum(axis=1) == 0)
        return np.where(one_way, np.nan, b_K)

    return bootstrap_interval(len(scaled_n), slope, bootstrap=bootstrap, level=level, seed=seed)
