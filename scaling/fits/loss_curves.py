"""A schedule law through several loss curves, and what it then says of a schedule nobody has run.

    minimise over the law's constants   Σ_curves Σ_steps Huber_δ(ln L̂ − ln L),  δ = 1e-3

as Luo et al. (2503.12811) fit theirs. Neighbouring points of a curve share their error, so intervals take blocks of a
curve, not points, as what was drawn; and no curve tells how far the law is off under another schedule, so each curve is
left out and predicted from the others.

Shapes: n points of all curves, m steps of one, B blocks, P constants, S of them searched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from scaling.errors import UserError
from scaling.fits.estimate import Estimate, estimate
from scaling.laws.law import FloatArray
from scaling.laws.multi_power import MULTI_POWER
from scaling.laws.schedule import ScheduleLaw, SchedulePoints
from scaling.record import Interval

__all__ = ["CurvePrediction", "LossCurve", "LossCurvesFit", "fit_loss_curves"]

_BLOCKS = 12
"""Blocks a curve: the residuals' correlation along the published 25M curves is 0.2 at a twelfth of a curve."""
_FEWEST_CURVES = 3
"""With fewer none is left out: what one says of a fall alone is too little to predict the other."""


@dataclass(frozen=True, eq=False)
class LossCurve:
    """One run: its schedule ``lr`` (steps,) from step 0, and the ``loss`` (m,), nats, after ``at_steps`` (m,)."""

    name: str
    lr: FloatArray
    at_steps: FloatArray
    loss: FloatArray

    def __post_init__(self) -> None:
        loss = np.asarray(self.loss, np.float64)
        if loss.shape != np.shape(self.at_steps) or not (np.isfinite(loss) & (loss > 0)).all():
            raise UserError(
                f"curve {self.name}: loss must be one positive number for each of at_steps; drop steps without one"
            )
        object.__setattr__(self, "loss", loss)
        try:
            self.points  # noqa: B018  # says what is wrong with the schedule, if anything
        except UserError as error:
            raise UserError(f"curve {self.name}: {error}") from None

    @cached_property
    def points(self) -> SchedulePoints:
        """The steps along the schedule."""
        return SchedulePoints(self.lr, np.asarray(self.at_steps))


@dataclass(frozen=True, eq=False)
class CurvePrediction:
    """The loss along a schedule, (m,) each, with its interval at the level of the fit.

    The interval is None where no curve could be left out: nothing then says how far off the law is on another schedule.
    """

    at_steps: FloatArray
    loss: FloatArray
    low: FloatArray | None
    high: FloatArray | None


@dataclass(frozen=True, eq=False)
class LossCurvesFit:
    """A schedule law with its constants in the order of ``law.NAMES``."""

    law: ScheduleLaw
    theta: FloatArray
    parameters: dict[str, Interval]
    objective: float
    """Sum of Huber terms on log loss."""
    residual_sd: float
    """Root mean square of ln L − ln L̂ over the fitted points."""
    left_out: tuple[float, ...]
    """Root mean square error of log loss on each curve that could be left out, predicted from the others."""
    at_bound: tuple[str, ...]
    covariance: FloatArray
    """Of the searched coordinates, ``law.free_of(theta)``: (P, P)."""
    level: float

    def predict_curve(self, lr: ArrayLike, at_steps: ArrayLike) -> CurvePrediction:
        """The loss at ``at_steps`` (m,) of the schedule ``lr`` (steps,), warm-up included.

        The interval joins the constants' with the larger of the error on curves left out and the fit's own; it is
        Student's with as many degrees of freedom as curves left out, since so few say how far off the law is.
        """
        steps = np.asarray(at_steps, np.float64)
        loss = self.law.predict_curve(self.theta, lr, at_steps)
        if not self.left_out:
            return CurvePrediction(steps, loss, None, None)
        gradient_mP = self.law.curve_gradient(self.theta, lr, at_steps)
        constants_m = np.einsum("mp,pq,mq->m", gradient_mP, self.covariance, gradient_mP)
        model_sd = max(self.residual_sd, math.sqrt(float(np.mean(np.square(self.left_out)))))
        quantile = float(stdtrit(len(self.left_out), 0.5 + self.level / 2))
        spread = np.exp(quantile * np.sqrt(constants_m + model_sd**2))
        return CurvePrediction(steps, loss, loss / spread, loss * spread)


def fit_loss_curves(
    curves: Sequence[LossCurve],
    law: ScheduleLaw = MULTI_POWER,
    *,
    huber_delta: float = 1e-3,
    fixed: Mapping[str, float] | None = None,
    level: float = 0.9,
) -> LossCurvesFit:
    """The law through all ``curves``; ``fixed`` holds constants by name.

    Raises :class:`UserError` where no rate falls along any curve: then nothing is said of what a fall is worth.
    """
    if not _falls(curves):
        raise UserError(
            f"{law.name} needs a curve whose learning rate falls (cosine, cooldown or step): none of {len(curves)} does"
        )
    found, here = _estimate(curves, law, huber_delta, fixed)
    blocks = np.concatenate(
        [i * _BLOCKS + np.arange(len(curve.loss)) * _BLOCKS // len(curve.loss) for i, curve in enumerate(curves)]
    )
    covariance = _covariance(found, here, blocks, huber_delta)
    spare = max(1, len(np.unique(blocks)) - found.unknowns)
    return LossCurvesFit(
        law=law,
        theta=found.theta,
        parameters=_intervals(law, found.theta, covariance, float(stdtrit(spare, 0.5 + level / 2))),
        objective=found.objective,
        residual_sd=math.sqrt(float(np.mean(found.residuals**2))),
        left_out=tuple(_left_out_errors(curves, law, huber_delta, fixed)),
        at_bound=found.at_bound,
        covariance=covariance,
        level=level,
    )


def _estimate(
    curves: Sequence[LossCurve], law: ScheduleLaw, huber_delta: float, fixed: Mapping[str, float] | None
) -> tuple[Estimate, ScheduleLaw]:
    """The estimate, and the law at the points it was fitted to."""
    here = law.on(*(curve.points for curve in curves))
    steps = np.concatenate([curve.points.at_steps for curve in curves]) + 1.0
    loss = np.concatenate([curve.loss for curve in curves])
    return estimate(here, (steps,), loss, huber_delta, fixed=fixed), here


def _falls(curves: Sequence[LossCurve]) -> bool:
    """Whether a rate falls along any of the curves."""
    return any((np.diff(curve.lr) < 0).any() for curve in curves)


def _left_out_errors(
    curves: Sequence[LossCurve], law: ScheduleLaw, huber_delta: float, fixed: Mapping[str, float] | None
) -> list[float]:
    """Root mean square error of log loss on each curve that can be left out, of the law through the others."""
    errors = []
    for curve in curves:
        others = [other for other in curves if other is not curve]
        if len(others) < _FEWEST_CURVES - 1 or not _falls(others):
            continue
        found, _ = _estimate(others, law, huber_delta, fixed)
        predicted = law.predict_curve(found.theta, curve.lr, curve.points.at_steps)
        errors.append(math.sqrt(float(np.mean(np.log(predicted / curve.loss) ** 2))))
    return errors


def _covariance(found: Estimate, law: ScheduleLaw, blocks: NDArray[np.int64], huber_delta: float) -> FloatArray:
    """Of the searched coordinates in the citation's units, (P, P): that of an M-estimator, A⁻¹BA⁻¹, A the reweighted
    curvature and B that of the blocks' scores (Liang & Zeger 1986); zero where a constant is held."""
    _, jacobian_nP = law.response_and_gradient(found.free, np.zeros((1, len(blocks))))
    searched = np.flatnonzero(found.box.low < found.box.high)
    jacobian_nS = jacobian_nP[:, searched]
    psi_n = np.clip(found.residuals, -huber_delta, huber_delta)
    weight_n = huber_delta / np.maximum(np.abs(found.residuals), huber_delta)
    score_BS = np.stack([psi_n[blocks == block] @ jacobian_nS[blocks == block] for block in np.unique(blocks)])
    inverse_SS = np.linalg.pinv((jacobian_nS * weight_n[:, None]).T @ jacobian_nS, rcond=1e-12, hermitian=True)
    root_BS = score_BS @ inverse_SS * math.sqrt(len(score_BS) / max(1, len(score_BS) - len(searched)))
    root_BP = np.zeros((len(root_BS), len(found.free)))
    root_BP[:, searched] = root_BS
    root_BP = root_BP @ law.change_of_units
    return np.asarray(root_BP.T @ root_BP)


def _intervals(law: ScheduleLaw, theta: FloatArray, covariance: FloatArray, quantile: float) -> dict[str, Interval]:
    """Each constant with its interval; an exponent's ends at zero."""
    free = law.free_of(theta)
    reach = quantile * np.sqrt(np.diag(covariance))
    low, high = law.theta_of(free - reach), law.theta_of(free + reach)
    return {
        name: Interval(estimate=float(theta[i]), low=max(0.0, float(low[i])), high=float(high[i]))
        for i, name in enumerate(law.NAMES)
    }
