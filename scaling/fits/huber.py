"""Batched minimisation of approach 3's objective: many starts, or many resamples, advance together.

    minimise over (a, b, e, α, β)   Σ_i w_i · Huber_δ(ln L(N_i, D_i) − ln L_i)

A damped Newton iteration in plain NumPy. Its curvature is the exact Hessian plus μ times that of the iteratively
reweighted least squares (weights min(1, δ/|r|), Holland & Welsch 1977). The latter majorises the objective, so for a
large μ every step descends; as μ shrinks steps become Newton's and convergence is quadratic, where reweighted least
squares alone crawls because most residuals lie on the linear arm of the Huber loss (δ = 1e-3 is below typical noise).

Shapes: K problems, n points, P = 5 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray

__all__ = ["Box", "HuberSolution", "solve_huber", "sum_of_huber"]

_ELEMENTS_AT_ONCE = 60_000
"""Problems times points in one batch: the arrays of one batch stay within a core's cache."""
_P = 5
_LARGEST_DAMPING = 1e10


@dataclass(frozen=True)
class Box:
    """Bounds of (a, b, e, α, β), a and b at the centre of the data: each (5,)."""

    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class HuberSolution:
    """Minimisers (K, 5) as (a, b, e, α, β) at the centre of the data, and objectives (K,)."""

    logs_KP: FloatArray
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
    logs_KP: FloatArray, x_N: FloatArray, y_N: FloatArray, target_KN: FloatArray, weight_KN: FloatArray, delta: float
) -> _State:
    """Objective, gradient and both curvatures. The law's own second derivative is Mᵀ(diag p − ppᵀ)M."""
    log_loss_KN, jacobian_KNP = CHINCHILLA.log_loss_and_gradient(logs_KP, x_N, y_N)
    residual_KN = log_loss_KN - target_KN
    size_KN = np.abs(residual_KN)
    inside_KN = size_KN <= delta
    huber_KN = np.where(inside_KN, 0.5 * size_KN * size_KN, delta * (size_KN - 0.5 * delta))
    psi_KN = weight_KN * np.clip(residual_KN, -delta, delta)
    jacobian_t_KPN = np.swapaxes(jacobian_KNP, 1, 2)
    reweight_KN = weight_KN * (delta / np.maximum(size_KN, delta))
    reweighted_KPP = np.matmul(jacobian_t_KPN * reweight_KN[:, None, :], jacobian_KNP)
    exact_KN = weight_KN * inside_KN - psi_KN
    newton_KPP = np.matmul(jacobian_t_KPN * exact_KN[:, None, :], jacobian_KNP)
    share_n_KN, share_d_KN = psi_KN * jacobian_KNP[..., 0], psi_KN * jacobian_KNP[..., 1]
    for share_KN, z_N, i, j in ((share_n_KN, x_N, 0, 3), (share_d_KN, y_N, 1, 4)):
        cross_K = share_KN @ z_N
        newton_KPP[:, i, i] += share_KN.sum(axis=1)
        newton_KPP[:, i, j] -= cross_K
        newton_KPP[:, j, i] -= cross_K
        newton_KPP[:, j, j] += share_KN @ (z_N * z_N)
    newton_KPP[:, 2, 2] += (psi_KN * jacobian_KNP[..., 2]).sum(axis=1)
    return _State(
        (weight_KN * huber_KN).sum(axis=1),
        np.matmul(jacobian_t_KPN, psi_KN[..., None])[..., 0],
        newton_KPP,
        reweighted_KPP,
    )


def _steps(state: _State, damping_K: FloatArray, frozen_KP: np.ndarray) -> FloatArray:
    """Damped Newton steps (K, 5); frozen parameters, held by a bound, do not move."""
    curvature_KPP = state.newton_KPP + damping_K[:, None, None] * state.reweighted_KPP
    diagonal = np.arange(_P)
    scale_KP = state.reweighted_KPP[:, diagonal, diagonal]
    # A ridge far below any real curvature, so that a parameter the data say nothing about has a step of nothing.
    ridge_KP = 1e-9 * damping_K[:, None] * scale_KP + 1e-13 * scale_KP.sum(axis=1, keepdims=True) + 1e-300
    curvature_KPP[:, diagonal, diagonal] += ridge_KP
    free_KP = ~frozen_KP
    curvature_KPP *= free_KP[:, :, None] & free_KP[:, None, :]
    curvature_KPP[:, diagonal, diagonal] += frozen_KP * (scale_KP.max(axis=1, keepdims=True) + 1e-300)
    gradient_KP = state.gradient_KP * free_KP
    try:
        return np.asarray(-np.linalg.solve(curvature_KPP, gradient_KP[..., None])[..., 0])
    except np.linalg.LinAlgError:
        return np.asarray(-np.einsum("kij,kj->ki", np.linalg.pinv(curvature_KPP), gradient_KP))


def _solve_batch(
    logs_KP: FloatArray,
    x_N: FloatArray,
    y_N: FloatArray,
    target_KN: FloatArray,
    weight_KN: FloatArray,
    delta: float,
    box: Box,
    iterations: int,
    tolerance: float,
) -> HuberSolution:
    best_KP = np.clip(logs_KP, box.low, box.high)
    best_K = np.empty(len(best_KP))
    active_K = np.arange(len(best_KP))
    now_KP = best_KP.copy()
    state = _evaluate(now_KP, x_N, y_N, target_KN, weight_KN, delta)
    damping_K = np.ones(len(now_KP))
    small_K = np.zeros(len(now_KP), dtype=int)
    for _ in range(iterations):
        frozen_KP = ((now_KP <= box.low) & (state.gradient_KP > 0)) | ((now_KP >= box.high) & (state.gradient_KP < 0))
        trial_KP = np.clip(now_KP + np.clip(_steps(state, damping_K, frozen_KP), -2.0, 2.0), box.low, box.high)
        trial = _evaluate(trial_KP, x_N, y_N, target_KN[active_K], weight_KN[active_K], delta)
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
        state = _State(
            state.objective_K[going_K],
            state.gradient_KP[going_K],
            state.newton_KPP[going_K],
            state.reweighted_KPP[going_K],
        )
    return HuberSolution(best_KP, best_K)


def solve_huber(
    starts_KP: FloatArray,
    x_N: FloatArray,
    y_N: FloatArray,
    targets: FloatArray,
    weights: FloatArray,
    delta: float,
    box: Box,
    *,
    iterations: int = 300,
    tolerance: float = 1e-13,
) -> HuberSolution:
    """Minimise K problems from ``starts_KP`` (a, b, e, α, β).

    ``x_N``, ``y_N`` are ln N and ln D, centred; ``targets`` is ln L, (n,) or one row a problem (K, n) for resampled
    residuals; ``weights`` (n,) or (K, n), the counts of a resample of points. A problem ends when two accepted steps in
    turn gain less than ``tolerance`` of its objective, or when no step however short gains anything.
    """
    problems, points = len(starts_KP), len(x_N)
    size = max(1, _ELEMENTS_AT_ONCE // max(1, points))
    parts = []
    for begin in range(0, problems, size):
        rows = slice(begin, min(begin + size, problems))
        count = rows.stop - begin
        target_KN = targets[rows] if targets.ndim == 2 else np.broadcast_to(targets, (count, points))
        weight_KN = weights[rows] if weights.ndim == 2 else np.broadcast_to(weights, (count, points))
        parts.append(_solve_batch(starts_KP[rows], x_N, y_N, target_KN, weight_KN, delta, box, iterations, tolerance))
    return HuberSolution(
        np.concatenate([part.logs_KP for part in parts]), np.concatenate([part.objective_K for part in parts])
    )
