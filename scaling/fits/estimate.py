"""One law through one table: the point estimate of approach 3 and its resampled draws, in plain arrays.

Everything else that fits the parametric law (intervals, back-test, leave-out studies) calls this, so that there is one
definition of its objective, bounds and starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fits.bootstrap import BootstrapMethod, resample_points, resample_residuals
from scaling.fits.huber import Box, solve_huber, sum_of_huber
from scaling.fits.starts import projected_starts
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray

__all__ = ["Estimate", "draw", "estimate"]

_STARTS = 40
_DRAW_ITERATIONS = 100
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.01, 3.0
_POINTS_THAT_NEED_MORE_STARTS = 60


@dataclass(frozen=True)
class Estimate:
    """The minimiser over n points; ``theta`` is (A, B, E, α, β), ``logs`` (a, b, e, α, β) at the centre of the data."""

    theta: FloatArray
    logs: FloatArray
    objective: float
    residuals: FloatArray
    """ln L − ln L̂ (n,)."""
    at_bound: tuple[str, ...]
    centre: tuple[float, float]
    """Mean ln N and mean ln D."""
    alternatives: FloatArray
    """Other local minima within 1% of the objective, as starts for resamples (M, 5)."""


def _box(ln_loss: FloatArray) -> Box:
    """Each term is at most the loss and at least e^-12 of it; exponents lie within 0.01 to 3."""
    low, high = float(ln_loss.min()), float(ln_loss.max())
    exponents = np.array([_SMALLEST_EXPONENT] * 2), np.array([_LARGEST_EXPONENT] * 2)
    return Box(
        np.concatenate(([low - 12, low - 12, low - 7], exponents[0])),
        np.concatenate(([high + 3, high + 3, low + 0.05], exponents[1])),
    )


def _theta(logs_KP: FloatArray, centre: tuple[float, float]) -> FloatArray:
    theta_KP = np.array(logs_KP, dtype=np.float64)
    theta_KP[..., 0] = np.exp(logs_KP[..., 0] + logs_KP[..., 3] * centre[0])
    theta_KP[..., 1] = np.exp(logs_KP[..., 1] + logs_KP[..., 4] * centre[1])
    theta_KP[..., 2] = np.exp(logs_KP[..., 2])
    return theta_KP


def _bounds_met(logs_P: FloatArray, box: Box) -> tuple[str, ...]:
    met = (logs_P <= box.low + 1e-9) | (logs_P >= box.high - 1e-9)
    return tuple(name for name, hit in zip(CHINCHILLA.NAMES, met, strict=True) if hit)


def estimate(params: FloatArray, tokens: FloatArray, loss: FloatArray, delta: float) -> Estimate:
    """Minimise Σ Huber_δ(ln L − ln L̂) over all points, from many starts. Arrays are (n,), n ≥ 5."""
    ln_params, ln_tokens, ln_loss = np.log(params), np.log(tokens), np.log(loss)
    centre = (float(ln_params.mean()), float(ln_tokens.mean()))
    x_N, y_N = ln_params - centre[0], ln_tokens - centre[1]
    box = _box(ln_loss)
    starts = projected_starts(x_N, y_N, ln_loss, _STARTS)
    solution = solve_huber(starts, x_N, y_N, ln_loss, np.ones(len(loss)), delta, box)
    order = np.argsort(solution.objective_K, kind="stable")
    best = solution.logs_KP[order[0]]
    fitted, _ = CHINCHILLA.log_loss_and_gradient(best, x_N, y_N)
    residuals = ln_loss - fitted
    near = solution.logs_KP[order[solution.objective_K[order] < 1.01 * solution.objective_K[order[0]]]]
    distinct = [row for row in near if np.abs(row - best).max() > 0.05][:1]
    return Estimate(
        _theta(best, centre),
        best,
        float(sum_of_huber(residuals, delta)),
        residuals,
        _bounds_met(best, box),
        centre,
        np.array(distinct).reshape(-1, 5),
    )


def draw(
    found: Estimate,
    params: FloatArray,
    tokens: FloatArray,
    loss: FloatArray,
    delta: float,
    *,
    draws: int,
    rng: np.random.Generator,
    method: BootstrapMethod = "residuals",
    clusters: np.ndarray | None = None,
) -> FloatArray:
    """``draws`` refits of resampled data, (K, 5) as (A, B, E, α, β), each started from the estimate."""
    ln_loss = np.log(loss)
    x_N, y_N = np.log(params) - found.centre[0], np.log(tokens) - found.centre[1]
    points = len(loss)
    if method == "points":
        targets, weights = ln_loss, resample_points(points, draws, rng, clusters)
    else:
        fitted = ln_loss - found.residuals
        unknowns = len(CHINCHILLA.NAMES)
        targets = resample_residuals(fitted, found.residuals, unknowns, draws, rng, clusters)
        weights = np.ones(points)
    starts = [found.logs]
    if points <= _POINTS_THAT_NEED_MORE_STARTS:
        starts.extend(_spread(found.logs))
    box = _box(ln_loss)
    solutions = [
        solve_huber(
            np.repeat(start[None], draws, axis=0),
            x_N,
            y_N,
            targets,
            weights,
            delta,
            box,
            iterations=_DRAW_ITERATIONS,
            tolerance=1e-9,
        )
        for start in starts
    ]
    best_K = np.argmin([solution.objective_K for solution in solutions], axis=0)
    logs_SKP = np.stack([solution.logs_KP for solution in solutions])
    return _theta(logs_SKP[best_K, np.arange(draws)], found.centre)


def _spread(logs_P: FloatArray) -> list[FloatArray]:
    """Starts to either side of the estimate: with few points a resample may have its minimum in another basin."""
    sides = []
    for factor in (0.5, 1.8):
        start = logs_P.copy()
        start[3:] = np.clip(start[3:] * factor, 2 * _SMALLEST_EXPONENT, 0.5 * _LARGEST_EXPONENT)
        sides.append(start)
    return sides
