"""y = E + A·x^−α: a power law that levels off, in one variable (such as compute, parameters or tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["SATURATING_POWER", "SaturatingPower"]

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.01, 3.0
_EXPONENTS = np.geomspace(0.015, 2.8, 120)


@dataclass(frozen=True)
class SaturatingPower(Law):
    """y = E + A·x^−α

    Henighan et al.'s form (2010.14701, equation 1.1, their (x0/x)^α with A = x0^α): E is what is left at infinite x,
    the entropy of the data if y is a loss; A·x^−α is reducible. M2 of Alabdulmohsin et al. (2209.06640).
    """

    name: ClassVar[str] = "saturating-power"
    formula: ClassVar[str] = "y = E + A·x^−α"
    citation: ClassVar[str] = "Henighan et al. 2010.14701, equation 1.1"
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("E"), Parameter("A"), Parameter("alpha", log=False))

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln y = logsumexp(e, a − α ln x); with the shares p of the two terms its gradient is (p_E, p_A, −p_A ln x)."""
        (x_n,) = ln_inputs_Vn
        e, a, alpha = columns(free, x_n)
        z = a - alpha * x_n
        ln_y = np.logaddexp(e, z)
        p_e, p_a = np.exp(e - ln_y), np.exp(z - ln_y)
        return ln_y, np.stack((p_e, p_a, -p_a * x_n), axis=-1)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 1] += moved[..., 2] * centre_V[0]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Each term is at most e^3 times the value and at least e^-12 of it; E is no more than the lowest value."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 7, low - 12, _SMALLEST_EXPONENT]), np.array([low + 0.05, high + 3, _LARGEST_EXPONENT])
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given α the law is linear in E and A."""
        (x_n,) = ln_inputs_Vn
        terms_Gn2 = np.stack(np.broadcast_arrays(1.0, np.exp(-_EXPONENTS[:, None] * x_n)), axis=-1)
        order, solution_G2 = best_projections(terms_Gn2 / value_n[:, None], np.ones(len(value_n)), count)
        logs_G2 = log_of_projected(solution_G2, 1e-3 * float(value_n.min()))
        return np.column_stack((logs_G2, _EXPONENTS[order]))


SATURATING_POWER = SaturatingPower()
