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

from scaling.errors import UserError
from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = [
    "MAX_DRAWS",
    "SHARED_VARIANCE",
    "BootstrapMethod",
    "Resampling",
    "check_intervals",
    "draw_jackknife",
    "interval_of",
    "resample_points",
    "resample_residuals",
    "resample_wild",
    "residual_scale",
    "stored_draws",
    "unknowns_with_clusters",
]

Resampling = Literal["residuals", "wild", "points", "jackknife"]
"""``jackknife`` draws around the estimate by how much each cluster, left out, moves it."""
BootstrapMethod = Literal["residuals", "wild", "points", "size", "budget", "trunk"]
"""``size``, ``budget`` and ``trunk`` draw points in whole clusters: runs of one size, of one compute, of one trunk."""
MAX_DRAWS = 1000
"""Draws kept in a fit's record; intervals are computed from all of them first."""
SHARED_VARIANCE = 0.5
"""Part of the noise variance that branches of one trunk have in common, as in the simulations of the design."""


def check_intervals(bootstrap: int, level: float) -> None:
    """Raises ``UserError`` where the number of resamples or the level of an interval is out of range."""
    if bootstrap != 0 and not 20 <= bootstrap <= 100_000:
        raise UserError(f"bootstrap is {bootstrap}: give 20 to 100000 resamples, or 0 for no intervals")
    if not 0.5 <= level < 1:
        raise UserError(f"level is {level}: an interval's level lies from 0.5 to below 1, usually 0.9")


def resample_points(
    points: int, draws: int, rng: np.random.Generator, clusters: np.ndarray | None = None
) -> FloatArray:
    """How often each point occurs in each resample, (K, n). With ``clusters`` (n,) whole clusters are drawn."""
    if clusters is None:
        return rng.multinomial(points, np.full(points, 1.0 / points), size=draws).astype(np.float64)
    _, member_N = np.unique(clusters, return_inverse=True)
    count = int(member_N.max()) + 1
    return rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)[:, member_N]


def residual_scale(residuals: FloatArray, unknowns: float) -> float:
    """SD of the noise behind the residuals of a fit with ``unknowns`` parameters, not set by a few bad runs.

    The root mean square over n − p, but at most twice the median absolute residual scaled to a normal's SD. Least
    absolute deviations, which the Huber fit at δ = 1e-3 nearly is, passes through as many points as it has parameters:
    the median is over the others.
    """
    spare = max(1.0, len(residuals) - unknowns)
    size = np.sort(np.abs(residuals))
    median = float(np.median(size[-round(spare) :])) * 1.482602
    root_mean_square = math.sqrt(float((size * size).sum()) / spare)
    return min(root_mean_square, 2.0 * median) if median > 0 else root_mean_square


def unknowns_with_clusters(jacobian_nP: FloatArray, clusters_n: np.ndarray) -> float:
    """How many parameters a fit spends where the noise of clusters is partly shared: n − tr((I − H)R).

    H projects onto the columns of ``jacobian_nP``, R is the noise's correlation. A fit follows what a trunk and its
    branches share more easily than what they do not, so that less noise is left in the residuals than n − P says.
    """
    basis_nQ, _ = np.linalg.qr(jacobian_nP)
    same_nn = clusters_n[:, None] == clusters_n[None, :]
    correlation_nn = np.where(same_nn, SHARED_VARIANCE, 0.0)
    np.fill_diagonal(correlation_nn, 1.0)
    return float(np.einsum("iq,ij,jq->", basis_nQ, correlation_nn, basis_nQ))


def resample_residuals(
    fitted_N: FloatArray,
    residuals_N: FloatArray,
    unknowns: float,
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
    spare = max(1.0, points - unknowns)
    scale_K1 = np.sqrt(spare / rng.chisquare(spare, size=(draws, 1))) * residual_scale(residuals_N, unknowns)
    noise_KN = rng.standard_normal((draws, points))
    if clusters is not None:
        _, member_N = np.unique(clusters, return_inverse=True)
        shared_KN = rng.standard_normal((draws, int(member_N.max()) + 1))[:, member_N]
        noise_KN = math.sqrt(1 - SHARED_VARIANCE) * noise_KN + math.sqrt(SHARED_VARIANCE) * shared_KN
    return np.asarray(fitted_N + scale_K1 * noise_KN)


def resample_wild(
    fitted_N: FloatArray,
    residuals_N: FloatArray,
    unknowns: float,
    draws: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> FloatArray:
    """New targets (K, n): the fitted values plus each residual with a random sign, one sign a cluster (Wu 1986,
    Rademacher weights), scaled by sqrt(n / (n − p)). Noise that grows to one side of the design stays there."""
    points = len(fitted_N)
    member_N = np.arange(points) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    signs_KN = rng.choice([-1.0, 1.0], size=(draws, int(member_N.max()) + 1))[:, member_N]
    return np.asarray(fitted_N + signs_KN * residuals_N * math.sqrt(points / max(1.0, points - unknowns)))


def draw_jackknife(estimate_P: FloatArray, left_out_CP: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws (K, P) of Student's t around the estimate, from the C estimates with one cluster left out each.

    Their covariance is (C − 1)/C·Σ(θ_c − θ̄)(θ_c − θ̄)ᵀ and the degrees of freedom C − 1. With clusters of one design it
    is the t interval of the clusters' own estimates (Ibragimov & Müller 2010), which holds from two clusters on and
    whatever the noise within them is; resampling a handful of clusters gives intervals that are too narrow.
    """
    clusters = len(left_out_CP)
    centred_CP = left_out_CP - left_out_CP.mean(axis=0)
    # A square root of the covariance, (C, P): normals times it have that covariance.
    root_CP = math.sqrt((clusters - 1) / clusters) * centred_CP
    scale_K1 = np.sqrt((clusters - 1) / rng.chisquare(clusters - 1, size=(draws, 1)))
    return np.asarray(estimate_P + scale_K1 * (rng.standard_normal((draws, clusters)) @ root_CP))


def interval_of(estimate: float, draws: FloatArray, level: float) -> Interval:
    """The percentile interval of ``draws`` (K,) at ``level``, widened where needed to hold the estimate itself."""
    if not len(draws):
        return Interval(estimate=estimate, low=None, high=None)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate))


def stored_draws(draws_KP: FloatArray) -> tuple[tuple[float, ...], ...]:
    """At most ``MAX_DRAWS`` rows, rounded to 10 significant digits: a fit's JSON stays small and exact."""
    return tuple(tuple(float(f"{value:.10g}") for value in row) for row in draws_KP[:MAX_DRAWS])
