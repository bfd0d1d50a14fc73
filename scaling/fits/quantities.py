"""What a law says that can be held: a constant, the exponent of N*, the loss at a target.

A derived quantity takes the place of one of the law's searched coordinates, which is then solved for, so that the
solver can hold it by a box of no width like any constant.

Shapes: n points, V inputs, P constants, K problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaling.fits.estimate import Estimate
from scaling.laws.law import Box, FloatArray, Law, LossLaw

__all__ = ["InPlaceOf", "Quantity", "constant", "has_one_exponent", "log_loss_at", "n_exponent"]

_ITERATIONS = 60
_SMALLEST_SLOPE = 1e-12


@dataclass(frozen=True)
class Quantity:
    """Something a law says, as a function of its searched coordinates (K, P): values (K,) and gradients (K, P)."""

    name: str
    evaluate: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
    index: int | None = None
    """The coordinate that it is, if it is one."""
    log: bool = False
    """Whether ``evaluate`` gives its logarithm."""


def constant(found: Estimate, name: str) -> Quantity:
    """One of the law's exponents, or a scale that centring does not change, such as E."""
    index = found.law.NAMES.index(name)

    def evaluate(free_KP: FloatArray) -> tuple[FloatArray, FloatArray]:
        gradient_KP = np.zeros_like(free_KP)
        gradient_KP[:, index] = 1.0
        return free_KP[:, index], gradient_KP

    return Quantity(name, evaluate, index, found.law.parameters[index].log)


def has_one_exponent(found: Estimate) -> bool:
    """Whether N* ∝ C^a with the same a at every compute."""
    try:
        return isinstance(found.law, LossLaw) and bool(np.isfinite(found.law.exponents(found.theta)[0]))
    except ValueError:
        return False


def n_exponent(found: Estimate) -> Quantity:
    """a of N* ∝ C^a, of a law with one exponent."""
    law, step = found.law, 1e-5
    assert isinstance(law, LossLaw)

    def evaluate(free_KP: FloatArray) -> tuple[FloatArray, FloatArray]:
        shifts_P1P = step * np.eye(free_KP.shape[-1])[:, None, :]
        # Far corners of the box can overflow a scale of the law; there the exponent is no number, and not held.
        with np.errstate(over="ignore", invalid="ignore"):
            above_PK = law.exponents(found.theta_of(free_KP + shifts_P1P))[0]
            below_PK = law.exponents(found.theta_of(free_KP - shifts_P1P))[0]
            return law.exponents(found.theta_of(free_KP))[0], np.asarray((above_PK - below_PK).T / (2 * step))

    return Quantity("n_exponent", evaluate)


def log_loss_at(found: Estimate, params: float, tokens: float) -> Quantity:
    """The log of the loss of a run of ``params`` and ``tokens``."""
    ln_target_V1 = found.centred(np.array([params]), np.array([tokens]))

    def evaluate(free_KP: FloatArray) -> tuple[FloatArray, FloatArray]:
        response_K1, gradient_K1P = found.law.response_and_gradient(free_KP, ln_target_V1)
        return response_K1[:, 0], gradient_K1P[:, 0]

    return Quantity("loss", evaluate, log=True)


class InPlaceOf(Law):
    """``law`` with ``quantity`` in the place of one coordinate, which is solved for between its bounds.

    With x the coordinate replaced and g the quantity, ∂x/∂g = 1/g_x and ∂x/∂q = −g_q/g_x for the other coordinates q.
    Where no x gives the value, the response is NaN and the solver turns back.
    """

    def __init__(self, law: Law, quantity: Quantity, pivot: int, box: Box) -> None:
        self._law, self._quantity, self._pivot = law, quantity, pivot
        self._low, self._high = float(box.low[pivot]), float(box.high[pivot])

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        inner_KP, slope_KP, possible_K = self.inner(free)
        response_Kn, jacobian_KnP = self._law.response_and_gradient(inner_KP, ln_inputs_Vn)
        response_Kn = np.where(possible_K[:, None], response_Kn, np.nan)
        return response_Kn, self._chained(jacobian_KnP, slope_KP[:, None, :])

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """Tᵀ H T, with T the Jacobian of the change of coordinates. What the bend of x adds is left out: it costs ten
        more solves a step, three times the time for the same minimum."""
        inner_KP, slope_KP, _ = self.inner(free_KP)
        _, inner_jacobian_KnP = self._law.response_and_gradient(inner_KP, ln_inputs_Vn)
        hessian_KPP = self._law.curvature(inner_KP, ln_inputs_Vn, inner_jacobian_KnP, psi_Kn)
        change_KPP = np.broadcast_to(np.eye(free_KP.shape[-1]), hessian_KPP.shape).copy()
        change_KPP[:, self._pivot, :] = slope_KP
        return np.asarray(np.swapaxes(change_KPP, 1, 2) @ hessian_KPP @ change_KPP)

    def inner(self, free_KP: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """The law's own coordinates (K, P), the gradient of the one replaced in the new ones (K, P), and whether some
        value of it gives the quantity (K,)."""
        inner_KP = np.array(free_KP)
        wanted_K = free_KP[:, self._pivot]
        low_K, high_K = np.full(len(free_KP), self._low), np.full(len(free_KP), self._high)
        inner_KP[:, self._pivot] = self._low
        at_low_K, _ = self._quantity.evaluate(inner_KP)
        inner_KP[:, self._pivot] = self._high
        at_high_K, _ = self._quantity.evaluate(inner_KP)
        rising = at_high_K > at_low_K
        possible_K = (np.minimum(at_low_K, at_high_K) <= wanted_K) & (wanted_K <= np.maximum(at_low_K, at_high_K))
        x_K = 0.5 * (low_K + high_K)
        for _ in range(_ITERATIONS):
            inner_KP[:, self._pivot] = x_K
            value_K, gradient_KP = self._quantity.evaluate(inner_KP)
            miss_K = value_K - wanted_K
            beyond_K = (miss_K > 0) == rising
            low_K, high_K = np.where(beyond_K, low_K, x_K), np.where(beyond_K, x_K, high_K)
            slope_K = gradient_KP[:, self._pivot]
            newton_K = x_K - miss_K / np.where(np.abs(slope_K) < _SMALLEST_SLOPE, np.inf, slope_K)
            inside_K = (newton_K >= low_K) & (newton_K <= high_K)
            new_K = np.where(inside_K, newton_K, 0.5 * (low_K + high_K))
            moved, x_K = float(np.abs(new_K - x_K).max()), new_K
            if moved < 1e-10:
                break
        inner_KP[:, self._pivot] = x_K
        _, gradient_KP = self._quantity.evaluate(inner_KP)
        usable_K = possible_K & (np.abs(gradient_KP[:, self._pivot]) > _SMALLEST_SLOPE)
        per_unit_K1 = np.where(usable_K, 1 / np.where(usable_K, gradient_KP[:, self._pivot], 1.0), 0.0)[:, None]
        slope_KP = -np.where(usable_K[:, None], gradient_KP, 0.0) * per_unit_K1
        slope_KP[:, self._pivot] = per_unit_K1[:, 0]
        return inner_KP, slope_KP, usable_K

    def _chained(self, jacobian: FloatArray, slope: FloatArray) -> FloatArray:
        along = jacobian[..., [self._pivot]]
        chained = jacobian + along * slope
        chained[..., self._pivot] = along[..., 0] * slope[..., self._pivot]
        return np.asarray(chained)

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        raise NotImplementedError("its bounds are those of the law it stands for")
