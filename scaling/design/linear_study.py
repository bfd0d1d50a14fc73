"""A study as a linear model, before anything is trained: how the log loss of each possible run, and the answers at the
target, move with the law's constants and its drift.

Under each plausible truth (``law_prior``) ln L is taken linear in what a fit searches: the law's constants, and the
hinges of its drift (``scaling.fits.drift``), which stand for what the law misses. Every truth is taken twice, as it
stands and with a drift: a design for the law alone would spend little near the target, and be fooled by a truth
outside the law.

Shapes: S truths, K scenarios (truths, each with and without drift), C runs, M coefficients (constants, then hinges),
Q = 2 answers at the target: ln L of the optimal run, and ln N*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling.design.design import DesignPoint
from scaling.design.law_prior import LawPrior
from scaling.fits.drift import DriftPrior
from scaling.fits.hinges import Axis, axis_through
from scaling.laws.law import FloatArray, LossLaw

__all__ = ["LinearStudy", "linear_study"]

_STEP = 1e-4
_SLOPE_OVER = 0.1
"""Decades over which the slope of a drift is taken: its hinges are no finer."""


@dataclass(frozen=True)
class LinearStudy:
    """What a fit of some runs would know, for every run that could be chosen. Scenarios are all truths under the first
    drift, then all under the next; the gradients are those of the truths."""

    gradient_SCM: FloatArray
    noise_KC: FloatArray
    """Variance of log loss of each run."""
    target_KQM: FloatArray
    beyond_KQ: FloatArray
    """Variance of the answers that no run of these bears on: drift beyond the largest."""
    prior_KM: FloatArray
    """Variance of the coefficients before any run; that of absent hinges is nothing."""
    constants: int
    drifting_K: np.ndarray
    weight_K: FloatArray
    run_noise: float

    @cached_property
    def gradient_KCM(self) -> FloatArray:  # shapes are part of names here
        return np.tile(self.gradient_SCM, (len(self.weight_K) // len(self.gradient_SCM), 1, 1))


def linear_study(
    prior: LawPrior,
    points: Sequence[DesignPoint],
    *,
    target_flops: float,
    noise: float,
    taus: tuple[tuple[float, float, float], ...],
    excess_share: float = DriftPrior.excess_share,
    origin_ratio: float | None = None,
    knots: int = 12,
) -> LinearStudy:
    """The model of the runs ``points`` (C) for a target of ``target_flops``.

    ``taus`` are the drifts that each truth is taken with, as (τ_C, τ_R, weight); (0, 0) is the law alone.
    ``origin_ratio`` is the D/N around which the drift along D/N is taken, the runs' median by default.
    """
    law, theta_SP = prior.loss_law, prior.theta
    params_C = np.array([point.params.total for point in points], dtype=np.float64)
    tokens_C = np.array([point.tokens for point in points], dtype=np.float64)
    flops_per_param_token = float(np.median(np.array([point.flops for point in points]) / params_C / tokens_C))
    ln_runs_2C = np.log(np.stack((params_C, tokens_C)))
    centre = tuple(float(shift) for shift in law.centre(ln_runs_2C))
    free_SP = law.uncentred(law.free_of(theta_SP), tuple(-shift for shift in centre))
    compute_C, ratio_C = (ln_runs_2C.sum(axis=0)) / math.log(10), (ln_runs_2C[1] - ln_runs_2C[0]) / math.log(10)
    axis_c = axis_through(compute_C, float(compute_C.min()), two_sided=False, knots=knots)
    origin = float(np.median(ratio_C)) if origin_ratio is None else math.log10(origin_ratio)
    origin = min(max(origin, float(ratio_C.min())), float(ratio_C.max()))
    axis_r = axis_through(ratio_C, origin, two_sided=True, knots=knots)
    features_CH = np.concatenate((axis_c.features(compute_C), axis_r.features(ratio_C)), axis=1)
    knots_c = axis_c.features(np.zeros(1)).shape[1]

    centred_2C = ln_runs_2C - np.array(centre)[:, None]
    ln_loss_SC, jacobian_SCP = law.response_and_gradient(free_SP, centred_2C)
    share_SC = _reducible_share(law, theta_SP, ln_loss_SC)
    gradient_SCM = np.concatenate((jacobian_SCP, share_SC[..., None] * features_CH), axis=2)
    best_n, best_d = law.optimum(theta_SP, params_C * tokens_C, 1.0)
    best_SC = np.stack([law.predict(one, n, d) for one, n, d in zip(theta_SP, best_n, best_d, strict=True)])
    excess_SC = np.maximum(ln_loss_SC - np.log(best_SC), 0.0)

    target_SQM, unknown_SQ2 = _target(
        law, theta_SP, free_SP, centre, target_flops, flops_per_param_token, axis_c, axis_r
    )
    sd_SP = np.stack([law.prior(centred_2C, np.exp(ln_loss_C))[1] for ln_loss_C in ln_loss_SC])

    parts: list[tuple[FloatArray, ...]] = []
    hinges = features_CH.shape[1]
    truths = len(theta_SP)
    for tau_c, tau_r, _ in taus:
        drifting = tau_c > 0 or tau_r > 0
        hinge_H = np.where(np.arange(hinges) < knots_c, tau_c**2 * axis_c.step, tau_r**2 * axis_r.step)
        parts.append(
            (
                noise**2 + drifting * (excess_share * excess_SC) ** 2,
                unknown_SQ2 @ np.array([tau_c**2, tau_r**2]),
                np.concatenate((sd_SP**2, np.broadcast_to(hinge_H, (truths, hinges))), axis=1),
                np.full(truths, drifting),
            )
        )
    noise_KC, beyond_KQ, prior_KM, drifting_K = (np.concatenate(one) for one in zip(*parts, strict=True))
    weights = np.array([weight for _, _, weight in taus])
    return LinearStudy(
        gradient_SCM=gradient_SCM,
        noise_KC=noise_KC,
        target_KQM=np.tile(target_SQM, (len(taus), 1, 1)),
        beyond_KQ=beyond_KQ,
        prior_KM=prior_KM,
        constants=theta_SP.shape[1],
        drifting_K=drifting_K.astype(bool),
        weight_K=np.repeat(weights / weights.sum() / truths, truths),
        run_noise=noise,
    )


def _reducible_share(law: LossLaw, theta_SP: FloatArray, ln_loss_SC: FloatArray) -> FloatArray:
    if "E" not in law.NAMES:
        return np.ones_like(ln_loss_SC)
    return np.asarray(1 - theta_SP[:, [law.NAMES.index("E")]] / np.exp(ln_loss_SC))


def _target(
    law: LossLaw,
    theta_SP: FloatArray,
    free_SP: FloatArray,
    centre: tuple[float, ...],
    flops: float,
    factor: float,
    axis_c: Axis,
    axis_r: Axis,
) -> tuple[FloatArray, FloatArray]:
    """Gradients (S, Q, M) of ln L at N* and of ln N*, and the variance (S, Q, 2) of each that lies beyond the runs, in
    units of τ_C² and τ_R²."""

    def ln_optimum(free: FloatArray) -> FloatArray:
        return np.asarray(np.log(law.optimum(law.theta_of(law.uncentred(free, centre)), flops, factor)[0]))

    shifts_PP = _STEP * np.eye(free_SP.shape[1])
    moved_SP = np.stack([(ln_optimum(free_SP + s) - ln_optimum(free_SP - s)) / (2 * _STEP) for s in shifts_PP], axis=1)
    ln_n_S = ln_optimum(free_SP)
    ln_product = math.log(flops / factor)
    rows: list[FloatArray] = []
    unknown: list[list[list[float]]] = []
    for theta, free, ln_n, moved in zip(theta_SP, free_SP, ln_n_S, moved_SP, strict=True):
        at = np.array([[ln_n], [ln_product - ln_n]])
        ln_loss, jacobian_1P = law.response_and_gradient(free, at - np.array(centre)[:, None])
        share = float(_reducible_share(law, theta[None], ln_loss[None])[0, 0])
        around = ln_n + np.array([-0.05, 0.0, 0.05])
        loss = law.predict(theta, np.exp(around), np.exp(ln_product - around))
        bend = float(loss[0] - 2 * loss[1] + loss[2]) / 0.05**2
        # Where the reducible loss R drifts by exp(δ(log10 D/N)), R''·Δ ln N* = R·δ'·2/ln 10.
        lever = 2 / math.log(10) * share * math.exp(float(ln_loss[0])) / bend
        compute, ratio = ln_product / math.log(10), (ln_product - 2 * ln_n) / math.log(10)
        places = np.array([ratio - _SLOPE_OVER, ratio, ratio + _SLOPE_OVER])
        features_c, features_r = axis_c.features(np.array([compute]))[0], axis_r.features(places)
        slope_r = (features_r[2] - features_r[0]) / (2 * _SLOPE_OVER)
        rows.append(
            np.stack(
                (
                    np.concatenate((jacobian_1P[0], share * features_c, share * features_r[1])),
                    np.concatenate((moved, np.zeros(len(features_c)), lever * slope_r)),
                )
            )
        )
        outside = (3 * axis_r.beyond(ratio)) ** (1 / 3)
        unknown.append(
            [[share**2 * axis_c.beyond(compute), share**2 * axis_r.beyond(ratio)], [0.0, lever**2 * outside]]
        )
    return np.stack(rows), np.array(unknown)
