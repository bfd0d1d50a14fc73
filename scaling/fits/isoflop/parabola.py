"""A parabola of loss in ln N, as in Hoffmann et al. (2203.15556), over a *local* window.

Over a wide window the line's asymmetry moves the parabola's minimum (2603.22339).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from scaling.fits.isoflop.polynomial import PolynomialInterpolator
from scaling.laws.law import FloatArray

__all__ = ["LocalParabola"]


class LocalParabola(PolynomialInterpolator):
    """The three coefficients from the runs within a factor of four of the lowest one's size, at least the nearest
    five."""

    name: ClassVar[str] = "parabola"
    # Three runs fix a parabola exactly, noise and all, and could never show that it is a wrong one.
    FEWEST: ClassVar[int] = 4
    DEGREE: ClassVar[int] = 2
    REACH: ClassVar[float] = math.log(4.0)
    NEAREST: ClassVar[int] = 5

    def lowest_offset(self, coefficients_KP: FloatArray) -> FloatArray:
        _, c1_K, c2_K = coefficients_KP.T
        return np.asarray(np.divide(-c1_K, 2 * c2_K, out=np.full_like(c1_K, np.inf), where=c2_K > 0))

    def moved_by_skew(self, offset_N: FloatArray, minimum: float) -> float:
        """The line has skew/6 · L2 · u³ beside its curvature L2; what a parabola takes of that has a slope at the
        minimum: over evenly spaced runs within ±h of it, −h²/10 of skew."""
        _, q1, q2 = np.polynomial.polynomial.polyfit(offset_N, (offset_N - minimum) ** 3, 2)
        return -(float(q1) + 2 * float(q2) * minimum) / 6
