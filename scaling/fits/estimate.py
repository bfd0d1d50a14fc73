"""One law through one table: its point estimate and its resampled draws, in plain arrays.

Everything else that fits a law (intervals, back-test, leave-out studies) calls this, so that there is one definition of
its objective, bounds and starts.

Shapes: n points, V inputs of the law, P constants, K draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling.errors import UserError
from scaling.fits.bootstrap import (
    Resampling,
    draw_jackknife,
    resample_points,
    resample_residuals,
    resample_wild,
    unknowns_with_clusters,
)
from scaling.fits.huber import solve_huber, sum_of_huber
from scaling.laws.law import Box, FloatArray, Law

__all__ = ["LEAST_SQUARES", "Estimate", "draw", "estimate", "refit"]

LEAST_SQUARES = 1e3
"""A delta beyond every residual: the Huber objective is then half the sum of squares."""
_STARTS = 40
_DRAW_ITERATIONS = 100
_POINTS_THAT_NEED_MORE_STARTS = 60


@dataclass(frozen=True)
class Estimate:
    """The minimiser over n points: ``theta`` (P,) as the law defines its constants."""

    law: Law
    theta: FloatArray
    free: FloatArray
    """The searched coordinates at the centre of the data, (P,)."""
    objective: float
    residuals: FloatArray
    """Response less fitted response, (n,): ln L − ln L̂ for a law of loss."""
    at_bound: tuple[str, ...]
    box: Box
    """Where ``free`` was searched; constants held fixed have equal bounds."""
    centre: tuple[float, ...]
    """What was taken from the logarithm of each input."""
    alternatives: FloatArray
    """Another local minimum within 1% of the objective, in searched coordinates (0 or 1, P)."""

    @property
    def unknowns(self) -> int:
        """How many constants were fitted: those that no bounds hold fixed."""
        return int((self.box.low < self.box.high).sum())

    def centred(self, *inputs: FloatArray) -> FloatArray:
        """Logarithms of inputs, (n,) each, as the searched coordinates mean them: (V, n)."""
        return np.asarray(np.log(np.stack(inputs)) - np.array(self.centre)[:, None])

    def theta_of(self, free: FloatArray) -> FloatArray:
        """Constants (..., P) from searched coordinates (..., P)."""
        return self.law.theta_of(self.law.uncentred(free, self.centre))


def _bounds_met(law: Law, free_P: FloatArray, box: Box) -> tuple[str, ...]:
    met = ((free_P <= box.low + 1e-9) | (free_P >= box.high - 1e-9)) & (box.low < box.high)
    return tuple(name for name, hit in zip(law.NAMES, met, strict=True) if hit)


def _held(law: Law, fixed: Mapping[str, float], centre: tuple[float, ...]) -> FloatArray:
    """The searched coordinates of the constants in ``fixed``, (P,), NaN where the constant is free."""
    theta_P = np.array([fixed.get(name, np.nan) for name in law.NAMES])
    held_P = law.uncentred(law.free_of(theta_P), tuple(-shift for shift in centre))
    for i in np.flatnonzero(np.isnan(held_P) & ~np.isnan(theta_P)):
        others = ", ".join(name for name in law.NAMES if name not in fixed)
        raise UserError(
            f"{law.NAMES[i]} of {law.name} can't be held alone: its unit depends on a constant that is free "
            f"({others}); hold the exponent too"
        )
    return held_P


def estimate(
    law: Law,
    inputs: tuple[FloatArray, ...],
    value: FloatArray,
    delta: float,
    *,
    weights: FloatArray | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Estimate:
    """Minimise Σ w Huber_δ(response − fitted response) over all points, from many starts.

    ``inputs`` are the law's own, (n,) each; ``value`` (n,) what it predicts; ``weights`` (n,), 1 by default; ``fixed``
    holds constants by name at a value; :class:`UserError` if it holds one whose unit depends on a free one.
    """
    ln_inputs_Vn = np.log(np.stack(inputs))
    centre = tuple(float(shift) for shift in law.centre(ln_inputs_Vn))
    ln_inputs_Vn = ln_inputs_Vn - np.array(centre)[:, None]
    held_P = _held(law, fixed or {}, centre)
    weight_n = np.ones(len(value)) if weights is None else weights
    target_n = law.to_response(value)
    box = law.box(ln_inputs_Vn, value)
    box = Box(np.where(np.isnan(held_P), box.low, held_P), np.where(np.isnan(held_P), box.high, held_P))
    starts = law.starts(ln_inputs_Vn, value, _STARTS)
    solution = solve_huber(law, starts, ln_inputs_Vn, target_n, weight_n, delta, box)
    order = np.argsort(solution.objective_K, kind="stable")
    best = solution.free_KP[order[0]]
    fitted_n, _ = law.response_and_gradient(best, ln_inputs_Vn)
    near = solution.free_KP[order[solution.objective_K[order] < 1.01 * solution.objective_K[order[0]]]]
    searched = box.low < box.high
    distinct = [row for row in near if np.abs(row[searched] - best[searched]).max(initial=0.0) > 0.05][:1]
    residuals = target_n - fitted_n
    return Estimate(
        law=law,
        theta=law.theta_of(law.uncentred(best, centre)),
        free=best,
        objective=float(solution.objective_K[order[0]] if weights is not None else sum_of_huber(residuals, delta)),
        residuals=residuals,
        at_bound=_bounds_met(law, best, box),
        box=box,
        centre=centre,
        alternatives=np.array(distinct).reshape(-1, len(best)),
    )


def draw(
    found: Estimate,
    inputs: tuple[FloatArray, ...],
    value: FloatArray,
    delta: float,
    *,
    draws: int,
    rng: np.random.Generator,
    method: Resampling = "residuals",
    clusters: np.ndarray | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """``draws`` refits of resampled data, (K, P) as the law defines its constants, each started from the estimate."""
    points = len(value)
    base_n = np.ones(points) if weights is None else weights
    target_n = found.law.to_response(value)
    if method == "points":
        weight_Kn = resample_points(points, draws, rng, clusters) * base_n
        return refit(found, inputs, np.broadcast_to(target_n, weight_Kn.shape), weight_Kn, delta)
    if method == "jackknife":
        return _jackknife(found, inputs, target_n, base_n, delta, draws, rng, clusters)
    fitted_n = target_n - found.residuals
    unknowns: float = found.unknowns
    if clusters is not None:
        _, jacobian_nP = found.law.response_and_gradient(found.free, found.centred(*inputs))
        unknowns = unknowns_with_clusters(jacobian_nP[:, found.box.low < found.box.high], clusters)
    resample = resample_wild if method == "wild" else resample_residuals
    target_Kn = resample(fitted_n, found.residuals, unknowns, draws, rng, clusters)
    return refit(found, inputs, target_Kn, np.broadcast_to(base_n, target_Kn.shape), delta)


def _jackknife(
    found: Estimate,
    inputs: tuple[FloatArray, ...],
    target_n: FloatArray,
    base_n: FloatArray,
    delta: float,
    draws: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None,
) -> FloatArray:
    """Draws of the searched coordinates in the law's own units, so that positive constants stay positive."""
    labels = np.arange(len(target_n)) if clusters is None else np.asarray(clusters)
    each = np.unique(labels)
    if len(each) < 2:
        raise UserError("resample 'jackknife' was given one cluster: it takes two or more, as seeds of one experiment")
    weight_Cn = base_n * (labels != each[:, None])
    left_out_CP = refit(found, inputs, np.broadcast_to(target_n, weight_Cn.shape), weight_Cn, delta)
    law = found.law
    return law.theta_of(draw_jackknife(law.free_of(found.theta), law.free_of(left_out_CP), draws, rng))


def refit(
    found: Estimate, inputs: tuple[FloatArray, ...], target_Kn: FloatArray, weight_Kn: FloatArray, delta: float
) -> FloatArray:
    """The estimate anew for each of K sets of responses and weights, (K, P), started from it (and, with few points, to
    either side of it). A run of weight zero is left out."""
    draws, points = target_Kn.shape
    ln_inputs_Vn = found.centred(*inputs)
    starts = [found.free]
    if points <= _POINTS_THAT_NEED_MORE_STARTS:
        starts.extend(_spread(found, found.box))
    solutions = [
        solve_huber(
            found.law,
            np.repeat(start[None], draws, axis=0),
            ln_inputs_Vn,
            target_Kn,
            weight_Kn,
            delta,
            found.box,
            iterations=_DRAW_ITERATIONS,
            tolerance=1e-9,
        )
        for start in starts
    ]
    best_K = np.argmin([solution.objective_K for solution in solutions], axis=0)
    free_SKP = np.stack([solution.free_KP for solution in solutions])
    return found.theta_of(free_SKP[best_K, np.arange(draws)])


def _spread(found: Estimate, box: Box) -> list[FloatArray]:
    """Starts to either side of the estimate: with few points a resample may have its minimum in another basin."""
    exponents = np.array([not parameter.log for parameter in found.law.parameters])
    searched, margin = box.low < box.high, np.zeros(len(box.low))
    margin[searched] = 0.01 * (box.high[searched] - box.low[searched])
    sides = [np.where(exponents, found.free * factor, found.free) for factor in (0.5, 1.8)]
    return [np.clip(side, box.low + margin, box.high - margin) for side in sides]
