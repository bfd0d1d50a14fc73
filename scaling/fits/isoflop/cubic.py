"""A cubic of loss in ln N: the third coefficient takes up the asymmetry that biases a parabola over a wide window."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from scaling.fits.isoflop.polynomial import PolynomialInterpolator
from scaling.laws.law import FloatArray

__all__ = ["Cubic", "cubic_minimum"]


class Cubic(PolynomialInterpolator):
    """The four coefficients from the runs within a factor of 16 of the lowest one's size, at least the nearest six."""

    name: ClassVar[str] = "cubic"
    FEWEST: ClassVar[int] = 5
    DEGREE: ClassVar[int] = 3
    REACH: ClassVar[float] = math.log(16.0)
    NEAREST: ClassVar[int] = 6

    def lowest_offset(self, coefficients_KP: FloatArray) -> FloatArray:
        _, c1_K, c2_K, c3_K = coefficients_KP.T
        return cubic_minimum(c1_K, c2_K, c3_K)


def cubic_minimum(c1: FloatArray, c2: FloatArray, c3: FloatArray) -> FloatArray:
    """Where c1 u + c2 u² + c3 u³ has its local minimum, elementwise; infinite where it has none.

    Of c1 + 2 c2 u + 3 c3 u² = 0 the root with upward curvature, in whichever of its two forms does not cancel.
    """
    discriminant = c2 * c2 - 3 * c1 * c3
    root = np.sqrt(np.maximum(discriminant, 0.0))
    none = np.full_like(root, np.inf)
    with np.errstate(over="ignore"):
        forward = np.divide(-c1, c2 + root, out=none, where=(discriminant > 0) & (c2 >= 0))
        return np.divide(root - c2, 3 * c3, out=forward, where=(discriminant > 0) & (c2 < 0) & (c3 != 0))
