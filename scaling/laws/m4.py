"""(L − E)/(E0 − L)^a = b·x^c with c < 0: learning curves from chance to the limit (Alabdulmohsin et al. 2209.06640)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns

__all__ = ["M4", "LearningCurve"]

_LARGEST_A = 8.0
_STEEPEST, _FLATTEST = -4.0, -0.01
_NEWTON_STEPS = 60


def _sigmoid_root(s: FloatArray, a: FloatArray) -> FloatArray:
    """v with v + (a − 1)·ln(1 + e^v) = s, for a > 0.

    The left side is increasing in v, convex for a > 1 and concave for a < 1, and on one side of its asymptotes v and
    a·v; from where these meet s, Newton's iteration is monotone and can't overshoot.
    """
    v = np.where(s < 0, s, s / a)
    for _ in range(_NEWTON_STEPS):
        step = (v + (a - 1) * np.logaddexp(0, v) - s) / (1 + (a - 1) * _sigmoid(v))
        v = v - step
        if np.all(np.abs(step) <= 1e-14 * (1 + np.abs(v))):
            break
    return np.asarray(v)


def _sigmoid(v: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0, -v)))


@dataclass(frozen=True)
class LearningCurve(Law):
    """(L − E)/(E0 − L)^a = b·x^c

    E0 is the loss of a model that has learned nothing, E that of one with infinite x (ε_0 and ε_∞ of the paper, whose
    α, β, −c are a, b, c here). As a → 0 it is the saturating power law E + b·x^c.

    L is the root: with t = (L − E)/(E0 − E) = 1/(1 + e^−v) the law reads v + (a − 1)·ln(1 + e^v) = s,
    s = ln b + c·ln x − (1 − a)·ln(E0 − E); gradients are those of the implicit function.
    """

    name: ClassVar[str] = "m4"
    formula: ClassVar[str] = "(L − E)/(E0 − L)^a = b·x^c"
    citation: ClassVar[str] = "Alabdulmohsin et al. 2209.06640, M4"
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E"), Parameter("E0"), Parameter("a"), Parameter("b"), Parameter("c", log=False),
    )  # fmt: skip

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """dL = (1 − t) dE + t dE0 + (E0 − E) t (1 − t) dv with dv = (ds − ln(1 + e^v) da)/(1 + (a − 1) t)."""
        (x_n,) = ln_inputs_Vn
        ln_e, ln_e0, ln_a, ln_b, c = columns(free, x_n)
        e, e0, a = np.exp(ln_e), np.exp(ln_e0), np.exp(ln_a)
        ln_gap = np.log(e0 - e)
        v = _sigmoid_root(ln_b + c * x_n - (1 - a) * ln_gap, a)
        t = _sigmoid(v)
        loss = e + (e0 - e) * t
        by_s = (e0 - e) * t * _sigmoid(-v) / (1 + (a - 1) * t)
        by_gap = by_s * (a - 1) / (e0 - e)
        by_a = by_s * (ln_gap - np.logaddexp(0, v))
        gradient = (e * (_sigmoid(-v) - by_gap), e0 * (t + by_gap), a * by_a, by_s, by_s * x_n)
        return np.log(loss), np.stack(np.broadcast_arrays(*gradient), axis=-1) / loss[..., None]

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 3] -= moved[..., 4] * centre_V[0]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """E below every loss and E0 above: the law has no value outside them. a up to 8, c within −4 to −0.01."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        reach = 12.0 + _LARGEST_A * max(1.0, abs(high + 2))
        return Box(
            np.array([low - 7, high + 1e-4, np.log(1e-3), -reach, _STEEPEST]),
            np.array([low - 1e-6, high + 2, np.log(_LARGEST_A), reach, _FLATTEST]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given E, E0 and a the law is linear in ln b and c."""
        (x_n,) = ln_inputs_Vn
        low, high = float(value_n.min()), float(value_n.max())
        spread = high - low
        e_G, e0_G, a_G = (
            grid.ravel()
            for grid in np.meshgrid(
                low - spread * np.array([0.003, 0.03, 0.1, 0.3, 1.0, 3.0]),
                high + spread * np.array([0.003, 0.03, 0.1, 0.3, 1.0]),
                np.array([0.02, 0.2, 0.6, 1.0, 2.0, 4.0]),
                indexing="ij",
            )
        )
        possible = e_G > 1e-3 * low
        e_G, e0_G, a_G = e_G[possible], e0_G[possible], a_G[possible]
        ln_ratio_Gn = np.log(value_n - e_G[:, None]) - a_G[:, None] * np.log(e0_G[:, None] - value_n)
        # An error of L is so much of one of the left side's logarithm.
        share_Gn = 1 / (1 / (value_n - e_G[:, None]) + a_G[:, None] / (e0_G[:, None] - value_n))
        b_G, c_G = _weighted_lines(x_n, ln_ratio_Gn, share_Gn**2)
        return self.best_of(
            np.column_stack((np.log(e_G), np.log(e0_G), np.log(a_G), b_G, c_G)), ln_inputs_Vn, value_n, count
        )


def _weighted_lines(x_n: FloatArray, y_Gn: FloatArray, weight_Gn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intercepts and slopes (G,) of weighted least squares."""
    weight_Gn = weight_Gn / weight_Gn.sum(axis=1, keepdims=True)
    x_G, y_G = (weight_Gn * x_n).sum(axis=1), (weight_Gn * y_Gn).sum(axis=1)
    away_Gn = x_n - x_G[:, None]
    slope_G = (weight_Gn * away_Gn * y_Gn).sum(axis=1) / (weight_Gn * away_Gn * away_Gn).sum(axis=1)
    return y_G - slope_G * x_G, slope_G


M4 = LearningCurve()
