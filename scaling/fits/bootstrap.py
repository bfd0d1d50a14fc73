"""Resampling: whole points (or clusters of them), or residuals around the fitted law.

Points, as Besiroglu et al. (2404.10102) did: each resample draws the runs anew. With the 12 to 20 runs of a designed
sweep it drops whole corners of the design and its intervals are erratic. Residuals keep the design and redraw the
noise.

Shapes: K resamples, n points.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = [
    "MAX_DRAWS",
    "BootstrapMethod",
    "interval_of",
    "resample_points",
    "resample_residuals",
    "residual_scale",
    "stored_draws",
]

BootstrapMethod = Literal["residuals", "points"]
MAX_DRAWS = 1000
"""Draws kept in a fit's record; intervals are computed from all of them first."""
_SHARED_VARIANCE = 0.5
"""Part of the noise variance that branches of one trunk have in common, as in the simulations of the design."""


def resample_points(
    points: int, draws: int, rng: np.random.Generator, clusters: np.ndarray | None = None
) -> FloatArray:
    """How often each point occurs in each resample, (K, n). With ``clusters`` (n,) whole clusters are drawn."""
    if clusters is None:
        return rng.multinomial(points, np.full(points, 1.0 / points), size=draws).astype(np.float64)
    _, member_N = np.unique(clusters, return_inverse=True)
    count = int(member_N.max()) + 1
    return rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)[:, member_N]


def residual_scale(residuals: FloatArray, unknowns: int) -> float:
    """SD of the noise behind the residuals of a fit with ``unknowns`` parameters, not set by a few bad runs.

    The root mean square over n − p, but at most twice the median absolute residual scaled to a normal's SD. Least
    absolute deviations, which the Huber fit at δ = 1e-3 nearly is, passes through as many points as it has parameters:
    the median is over the others.
    """
    spare = max(1, len(residuals) - unknowns)
    size = np.sort(np.abs(residuals))
    median = float(np.median(size[-spare:])) * 1.482602
    root_mean_square = math.sqrt(float((size * size).sum()) / spare)
    return min(root_mean_square, 2.0 * median) if median > 0 else root_mean_square


def resample_residuals(
    fitted_N: FloatArray,
    residuals_N: FloatArray,
    unknowns: int,
    draws: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> FloatArray:
    """New targets (K, n): the fitted values plus noise of the size the residuals show after ``unknowns`` were fitted.

    The noise is normal with the SD of ``residual_scale`` times sqrt(ν/χ²_ν), drawn once a resample, ν = n − p: its own
    uncertainty with few spare runs, which makes the intervals of a linear model Student's. Among runs of one of the
    ``clusters`` (n,), such as a trunk and its branches, half of the variance is shared.
    """
    points = len(fitted_N)
    spare = max(1, points - unknowns)
    scale_K1 = np.sqrt(spare / rng.chisquare(spare, size=(draws, 1))) * residual_scale(residuals_N, unknowns)
    noise_KN = rng.standard_normal((draws, points))
    if clusters is not None:
        _, member_N = np.unique(clusters, return_inverse=True)
        shared_KN = rng.standard_normal((draws, int(member_N.max()) + 1))[:, member_N]
        noise_KN = math.sqrt(1 - _SHARED_VARIANCE) * noise_KN + math.sqrt(_SHARED_VARIANCE) * shared_KN
    return np.asarray(fitted_N + scale_K1 * noise_KN)


def interval_of(estimate: float, draws: FloatArray, level: float) -> Interval:
    """The percentile interval of ``draws`` (K,) at ``level``, widened where needed to hold the estimate itself."""
    if not len(draws):
        return Interval(estimate=estimate, low=None, high=None)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate))


def stored_draws(draws_KP: FloatArray) -> tuple[tuple[float, ...], ...]:
    """At most ``MAX_DRAWS`` rows, rounded to 10 significant digits: a fit's JSON stays small and exact."""
    return tuple(tuple(float(f"{value:.10g}") for value in row) for row in draws_KP[:MAX_DRAWS])
