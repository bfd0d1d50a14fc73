"""Batched minimisation of a law's objective: many starts, or many resamples, advance together.

    minimise over free   Σ_i w_i · Huber_δ(response(free, inputs_i) − target_i)

A damped Newton iteration in plain NumPy. Its curvature is the exact Hessian plus μ times that of the iteratively
reweighted least squares (weights min(1, δ/|r|), Holland & Welsch 1977). The latter majorises the objective, so for a
large μ every step descends; as μ shrinks steps become Newton's and convergence is quadratic, where reweighted least
squares alone crawls because most residuals lie on the linear arm of the Huber loss (δ = 1e-3 is below typical noise).

Shapes: K problems, n points, V inputs, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.laws.law import Box, FloatArray, Law

__all__ = ["HuberSolution", "solve_huber", "sum_of_huber"]

_ELEMENTS_AT_ONCE = 60_000
"""Problems times points in one batch: the arrays of one batch stay within a core's cache."""
_LARGEST_DAMPING = 1e10


@dataclass(frozen=True)
class HuberSolution:
    """Minimisers (K, P) in the law's searched coordinates, and objectives (K,)."""

    free_KP: FloatArray
    objective_K: FloatArray


def sum_of_huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Σ Huber_δ over the last axis: r²/2 where |r| ≤ δ, else δ(|r| − δ/2). The sum, not the mean (2404.10102)."""
    size = np.abs(residuals)
    return np.asarray(np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta)).sum(axis=-1))


@dataclass
class _State:
    objective_K: FloatArray
    gradient_KP: FloatArray
    newton_KPP: FloatArray
    reweighted_KPP: FloatArray


def _evaluate(
    law: Law, free_KP: FloatArray, inputs_Vn: FloatArray, target_Kn: FloatArray, weight_Kn: FloatArray, delta: float
) -> _State:
    """Objective, gradient and both curvatures."""
    response_Kn, jacobian_KnP = law.response_and_gradient(free_KP, inputs_Vn)
    residual_Kn = response_Kn - target_Kn
    size_Kn = np.abs(residual_Kn)
    inside_Kn = size_Kn <= delta
    huber_Kn = np.where(inside_Kn, 0.5 * size_Kn * size_Kn, delta * (size_Kn - 0.5 * delta))
    psi_Kn = weight_Kn * np.clip(residual_Kn, -delta, delta)
    jacobian_t_KPn = np.swapaxes(jacobian_KnP, 1, 2)
    reweight_Kn = weight_Kn * (delta / np.maximum(size_Kn, delta))
    reweighted_KPP = np.matmul(jacobian_t_KPn * reweight_Kn[:, None, :], jacobian_KnP)
    squares_KPP = np.matmul(jacobian_t_KPn * (weight_Kn * inside_Kn)[:, None, :], jacobian_KnP)
    return _State(
        (weight_Kn * huber_Kn).sum(axis=1),
        np.matmul(jacobian_t_KPn, psi_Kn[..., None])[..., 0],
        squares_KPP + law.curvature(free_KP, inputs_Vn, jacobian_KnP, psi_Kn),
        reweighted_KPP,
    )


def _steps(state: _State, damping_K: FloatArray, frozen_KP: np.ndarray) -> FloatArray:
    """Damped Newton steps (K, P); frozen parameters, held by a bound, do not move."""
    curvature_KPP = state.newton_KPP + damping_K[:, None, None] * state.reweighted_KPP
    diagonal = np.arange(curvature_KPP.shape[-1])
    scale_KP = state.reweighted_KPP[:, diagonal, diagonal]
    # A ridge far below any real curvature, so that a parameter the data say nothing about has a step of nothing.
    ridge_KP = 1e-9 * damping_K[:, None] * scale_KP + 1e-13 * scale_KP.sum(axis=1, keepdims=True) + 1e-300
    curvature_KPP[:, diagonal, diagonal] += ridge_KP
    moving_KP = ~frozen_KP
    curvature_KPP *= moving_KP[:, :, None] & moving_KP[:, None, :]
    curvature_KPP[:, diagonal, diagonal] += frozen_KP * (scale_KP.max(axis=1, keepdims=True) + 1e-300)
    gradient_KP = state.gradient_KP * moving_KP
    try:
        return np.asarray(-np.linalg.solve(curvature_KPP, gradient_KP[..., None])[..., 0])
    except np.linalg.LinAlgError:
        return np.asarray(-np.einsum("kij,kj->ki", np.linalg.pinv(curvature_KPP), gradient_KP))


def _solve_batch(
    law: Law,
    free_KP: FloatArray,
    inputs_Vn: FloatArray,
    target_Kn: FloatArray,
    weight_Kn: FloatArray,
    delta: float,
    box: Box,
    iterations: int,
    tolerance: float,
) -> HuberSolution:
    low_KP, high_KP = (np.broadcast_to(bound, free_KP.shape) for bound in (box.low, box.high))
    best_KP = np.clip(free_KP, low_KP, high_KP)
    best_K = np.empty(len(best_KP))
    active_K = np.arange(len(best_KP))
    now_KP = best_KP.copy()
    state = _evaluate(law, now_KP, inputs_Vn, target_Kn, weight_Kn, delta)
    damping_K = np.ones(len(now_KP))
    small_K = np.zeros(len(now_KP), dtype=int)
    for _ in range(iterations):
        frozen_KP = ((now_KP <= low_KP) & (state.gradient_KP > 0)) | ((now_KP >= high_KP) & (state.gradient_KP < 0))
        trial_KP = np.clip(now_KP + np.clip(_steps(state, damping_K, frozen_KP), -2.0, 2.0), low_KP, high_KP)
        trial = _evaluate(law, trial_KP, inputs_Vn, target_Kn[active_K], weight_Kn[active_K], delta)
        gain_K = state.objective_K - trial.objective_K
        better_K = gain_K > 0
        small_K = np.where(better_K & (gain_K > tolerance * state.objective_K), 0, small_K + better_K)
        now_KP = np.where(better_K[:, None], trial_KP, now_KP)
        for name in ("objective_K", "gradient_KP", "newton_KPP", "reweighted_KPP"):
            new, old = getattr(trial, name), getattr(state, name)
            setattr(state, name, np.where(better_K.reshape((-1,) + (1,) * (new.ndim - 1)), new, old))
        damping_K = np.where(better_K, np.maximum(damping_K / 5, 1e-8), damping_K * 8)
        going_K = (damping_K < _LARGEST_DAMPING) & (small_K < 2)
        best_KP[active_K], best_K[active_K] = now_KP, state.objective_K
        if not going_K.any():
            break
        active_K, now_KP = active_K[going_K], now_KP[going_K]
        damping_K, small_K = damping_K[going_K], small_K[going_K]
        low_KP, high_KP = low_KP[going_K], high_KP[going_K]
        state = _State(
            state.objective_K[going_K],
            state.gradient_KP[going_K],
            state.newton_KPP[going_K],
            state.reweighted_KPP[going_K],
        )
    return HuberSolution(best_KP, best_K)


def solve_huber(
    law: Law,
    starts_KP: FloatArray,
    inputs_Vn: FloatArray,
    targets: FloatArray,
    weights: FloatArray,
    delta: float,
    box: Box,
    *,
    iterations: int = 300,
    tolerance: float = 1e-13,
) -> HuberSolution:
    """Minimise K problems from ``starts_KP``, in the law's searched coordinates.

    ``inputs_Vn`` are the logarithms of the law's inputs, centred as ``box`` and starts mean them; ``targets`` is the
    response to be met, (n,) or one row a problem (K, n) for resampled residuals; ``weights`` (n,) or (K, n), the counts
    of a resample of points; the bounds of ``box`` are (P,) or (K, P). A problem ends when two accepted steps in turn
    gain less than ``tolerance`` of its objective, or when no step however short gains anything.
    """
    problems, points = len(starts_KP), inputs_Vn.shape[1]
    size = max(1, _ELEMENTS_AT_ONCE // max(1, points))
    parts = []
    for begin in range(0, problems, size):
        rows = slice(begin, min(begin + size, problems))
        count = rows.stop - begin
        target_Kn = targets[rows] if targets.ndim == 2 else np.broadcast_to(targets, (count, points))
        weight_Kn = weights[rows] if weights.ndim == 2 else np.broadcast_to(weights, (count, points))
        parts.append(
            _solve_batch(
                law, starts_KP[rows], inputs_Vn, target_Kn, weight_Kn, delta, box.rows(rows), iterations, tolerance
            )
        )
    return HuberSolution(
        np.concatenate([part.free_KP for part in parts]), np.concatenate([part.objective_K for part in parts])
    )
