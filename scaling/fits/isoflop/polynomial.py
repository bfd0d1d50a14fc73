"""Least-squares polynomials of loss in ln N around a line's lowest run: what parabola and cubic have in common.

Shapes: n_window runs used, K draws, P = degree + 1 coefficients in ascending powers of u = ln N − centre.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from scaling.fits.isoflop.line import Interpolator, Line, Minimum, Status
from scaling.laws.law import FloatArray

__all__ = ["PolynomialInterpolator"]


@dataclass(frozen=True)
class _Fitted:
    """One line's polynomial over its window."""

    centre: float
    design_NP: FloatArray
    loss_N: FloatArray

    @property
    def offset_N(self) -> FloatArray:
        return np.asarray(self.design_NP[:, 1])

    @property
    def projector_PN(self) -> FloatArray:
        return np.asarray(np.linalg.pinv(self.design_NP))

    @property
    def coefficients_P(self) -> FloatArray:
        return np.asarray(self.projector_PN @ self.loss_N)


class PolynomialInterpolator(Interpolator):
    """Loss as a polynomial of ``DEGREE`` in ln N, over the runs within ``REACH`` of the lowest run's size."""

    DEGREE: ClassVar[int]
    REACH: ClassVar[float]
    """In ln N: narrower is noise, wider is bias."""
    NEAREST: ClassVar[int]
    """Runs used at least, however far apart they lie."""

    @abstractmethod
    def lowest_offset(self, coefficients_KP: FloatArray) -> FloatArray:
        """u of the minimum of each polynomial (K,), infinite or NaN where it has none."""

    def moved_by_skew(self, offset_N: FloatArray, minimum: float) -> float:
        """How far a unit of the line's skew moves the polynomial's minimum, at u = ``minimum``, from the line's."""
        return 0.0

    def window(self, line: Line) -> NDArray[np.int64]:
        return line.around_the_lowest(self.REACH, self.NEAREST)

    def _fitted(self, line: Line) -> _Fitted:
        used = self.window(line)
        x_N = line.ln_params[used]
        centre = float(x_N.mean())
        return _Fitted(centre, np.vander(x_N - centre, self.DEGREE + 1, increasing=True), line.loss[used])

    def status(self, line: Line) -> Status:
        if line.sizes < self.FEWEST:
            return "too few"
        fitted = self._fitted(line)
        offset = float(self.lowest_offset(fitted.coefficients_P[None])[0])
        if not np.isfinite(offset):
            return "curvature"
        if line.lowest_at_edge or not line.ln_params[0] < fitted.centre + offset < line.ln_params[-1]:
            return "edge"
        return "ok"

    def residuals(self, line: Line) -> FloatArray:
        """Loss less the polynomial's over the window, in nats."""
        fitted = self._fitted(line)
        return np.asarray(fitted.loss_N - fitted.design_NP @ fitted.coefficients_P)

    def minimum(self, line: Line, shocks_KN: FloatArray, skew_K: FloatArray) -> Minimum:
        """Draws are kept within one window's width of the runs: a draw without a minimum lies at that limit."""
        fitted = self._fitted(line)
        shift = fitted.centre
        used = line.ln_params[self.window(line)]
        width = float(used[-1] - used[0])
        coefficients_KP = fitted.coefficients_P + shocks_KN @ fitted.projector_PN.T
        with np.errstate(divide="ignore", invalid="ignore"):
            offset_K = self.lowest_offset(coefficients_KP)
            downhill_K = np.nan_to_num(np.inf * -np.sign(coefficients_KP[:, 1]))
        offset_K = np.where(np.isfinite(offset_K), offset_K, downhill_K)
        offset_K = np.clip(offset_K, used[0] - width - shift, used[-1] + width - shift)
        x_K = shift + offset_K
        loss_K = _values(coefficients_KP, offset_K)
        best_1 = self.lowest_offset(fitted.coefficients_P[None])
        spread = float(np.subtract(*np.quantile(x_K, (0.84, 0.16)))) / 2
        loss = float(_values(fitted.coefficients_P[None], best_1)[0])
        shape_K = x_K + skew_K * self.moved_by_skew(fitted.offset_N, float(best_1[0]))
        return Minimum(shift + float(best_1[0]), loss, x_K, shape_K, loss_K, max(spread, 1e-3))

    def polynomial(self, line: Line) -> tuple[float, ...]:
        fitted = self._fitted(line)
        about_centre = np.polynomial.Polynomial(fitted.coefficients_P)
        expanded = about_centre(np.polynomial.Polynomial([-fitted.centre, 1.0]))
        return tuple(float(c) for c in expanded.coef)


def _values(coefficients_KP: FloatArray, offset_K: FloatArray) -> FloatArray:
    powers_KP = offset_K[:, None] ** np.arange(coefficients_KP.shape[1])
    return np.asarray((coefficients_KP * powers_KP).sum(axis=1))
