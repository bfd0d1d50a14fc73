"""Laws of the loss along a run: functions of its whole learning-rate schedule, warm-up and all.

Such a law is first told where it will be asked, ``law.on(SchedulePoints(lr, at_steps), …)``; it is then a law like any
other, of as many points, and the same solver fits it.

Shapes: P parameters, n points of all schedules one after the other; leading axes (...) are draws or starts.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import UserError
from scaling.laws.law import FloatArray, Law

__all__ = ["ScheduleLaw", "SchedulePoints"]

_POINTS_AT_ONCE = 256
_LEAST_LOSS = 1e-9
"""Where a trial of the solver predicts no positive loss: far from every target, so that it is rejected."""


@dataclass(frozen=True, eq=False)
class SchedulePoints:
    """Steps along one schedule: ``lr`` (steps,) is the rate of every step, ``at_steps`` (m,) counts them from 0.

    Ascending; the loss at step s is that after the update with ``lr[s]``. :class:`UserError` says what is wrong.
    """

    lr: FloatArray
    at_steps: NDArray[np.int64]

    def __post_init__(self) -> None:
        lr, at = np.asarray(self.lr, np.float64), np.asarray(self.at_steps)
        if lr.ndim != 1 or not np.isfinite(lr).all() or (lr < 0).any() or not lr.any():
            raise UserError("lr must be one learning rate a step, none negative: give the whole schedule from step 0")
        if at.ndim != 1 or not len(at) or (at != np.floor(at)).any() or (np.diff(at) <= 0).any():
            raise UserError("at_steps must be ascending whole numbers of steps, at least one")
        if at[0] < 0 or at[-1] >= len(lr):
            raise UserError(
                f"at_steps run from {at[0]:g} to {at[-1]:g} but the schedule has steps 0 to {len(lr) - 1}: give the "
                "whole schedule, warm-up included"
            )
        object.__setattr__(self, "lr", lr)
        object.__setattr__(self, "at_steps", at.astype(np.int64))
        if self.areas[0] <= 0:
            raise UserError(f"at_steps start at {at[0]:g}, before any learning rate above zero: ask from a later step")

    @cached_property
    def areas(self) -> FloatArray:
        """S1 (m,): the sum of learning rates up to and with each step."""
        return np.asarray(np.cumsum(self.lr)[self.at_steps])


@dataclass(frozen=True, eq=False)
class ScheduleLaw(Law):
    """A law with the term A·S1^−α and a response to the falls of the rate.

    While it is searched, rates are in units of the largest (ρ) and S1 in units of its geometric mean over the points
    (s), so that A's logarithm is that of the term itself; ``theta_of`` and ``free_of`` speak the citation's units.
    """

    inputs: ClassVar[tuple[str, ...]] = ("steps",)
    points: tuple[SchedulePoints, ...] = ()

    def on(self, *points: SchedulePoints) -> Self:
        """The law at these points."""
        return replace(self, points=points)

    def predict_curve(self, theta: ArrayLike, lr: ArrayLike, at_steps: ArrayLike) -> FloatArray:
        """The loss (..., m) at ``at_steps`` (m,) of the schedule ``lr`` (steps,); ``theta`` is (..., P).

        Raises :class:`UserError` for a schedule or steps that are none.
        """
        parts = []
        for here in self._pieces(lr, at_steps):
            response, _ = here.response_and_gradient(here.free_of(theta), np.log(here.points[0].at_steps + 1.0)[None])
            parts.append(response)
        return np.asarray(np.exp(np.concatenate(parts, axis=-1)))

    def curve_gradient(self, theta: ArrayLike, lr: ArrayLike, at_steps: ArrayLike) -> FloatArray:
        """The gradient (m, P) of ln L along a schedule in the citation's units, those of ``free_of`` before ``on``."""
        parts = []
        for here in self._pieces(lr, at_steps):
            _, gradient_nP = here.response_and_gradient(
                here.free_of(theta), np.log(here.points[0].at_steps + 1.0)[None]
            )
            parts.append(np.linalg.solve(here.change_of_units, gradient_nP.T).T)
        return np.concatenate(parts)

    @cached_property
    def change_of_units(self) -> FloatArray:
        """(P, P): the derivative of coordinate j in the citation's units in coordinate i as they are searched."""
        unit = np.eye(len(self.parameters))
        return self.in_units(unit, self.ln_rate, self.ln_area) - self.in_units(0 * unit, self.ln_rate, self.ln_area)

    def _pieces(self, lr: ArrayLike, at_steps: ArrayLike) -> list[Self]:
        """The law at ``at_steps`` in turn, so few at a time that what it keeps of the schedule for each stays small."""
        whole = SchedulePoints(np.asarray(lr, np.float64), np.asarray(at_steps))
        cuts = np.arange(_POINTS_AT_ONCE, len(whole.at_steps), _POINTS_AT_ONCE)
        return [self.on(SchedulePoints(whole.lr, part)) for part in np.split(whole.at_steps, cuts)]

    @cached_property
    def ln_rate(self) -> float:
        """ln ρ, the logarithm of the largest learning rate."""
        return float(np.log(max(part.lr.max() for part in self.points)))

    @cached_property
    def ln_areas(self) -> FloatArray:
        """ln(S1/s) at every point, (n,), of mean zero."""
        ln_n = np.log(np.concatenate([part.areas for part in self.points]))
        return np.asarray(ln_n - ln_n.mean())

    @cached_property
    def ln_area(self) -> float:
        """ln s, the mean of ln S1 over the points."""
        return float(np.log(np.concatenate([part.areas for part in self.points])).mean())

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L and its gradient at the points the law stands on; the steps in ``ln_inputs_Vn`` are those points'."""
        points = sum(len(part.at_steps) for part in self.points)
        if ln_inputs_Vn.shape[1] != points:
            raise ValueError(
                f"{self.name} stands on {points} points and was asked at {ln_inputs_Vn.shape[1]}: use on()"
            )
        leading, flat_KP = free.shape[:-1], free.reshape(-1, free.shape[-1])
        loss_Kn = np.empty((len(flat_KP), points))
        gradient_KnP = np.empty((len(flat_KP), points, free.shape[-1]))
        for k, row in enumerate(flat_KP):
            loss_Kn[k], gradient_KnP[k] = self.loss_and_gradient(row)
        loss_Kn = np.maximum(loss_Kn, _LEAST_LOSS)
        gradient_KnP /= loss_Kn[..., None]
        return (
            np.log(loss_Kn).reshape(*leading, points),
            gradient_KnP.reshape(*leading, points, free.shape[-1]),
        )

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """Left out (Gauss–Newton): hundreds of points a curve lie within a thousandth of the law, and differences of
        the gradient would cost 2P passes over the schedule a step."""
        return np.zeros((len(free_KP), free_KP.shape[1], free_KP.shape[1]))

    @abstractmethod
    def loss_and_gradient(self, free_P: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The loss (n,) at the points and its gradient (n, P) in the searched coordinates of one set of constants."""

    @abstractmethod
    def in_units(self, free: FloatArray, ln_rate: float, ln_area: float) -> FloatArray:
        """``free`` (..., P) in the citation's units, from that with rates over e^ln_rate and S1 over e^ln_area."""

    def theta_of(self, free: FloatArray) -> FloatArray:
        return super().theta_of(self.in_units(free, self.ln_rate, self.ln_area) if self.points else free)

    def free_of(self, theta: ArrayLike) -> FloatArray:
        free = super().free_of(theta)
        return self.in_units(free, -self.ln_rate, -self.ln_area) if self.points else free
