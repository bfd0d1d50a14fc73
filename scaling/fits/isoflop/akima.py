"""Akima interpolation of ln L over ln N, the procedure of Porian et al. (2406.19146).

The interpolant goes through every run, so no shape is assumed and no noise is averaged: the minimum is the median over
redrawn losses ("bootstrap median"), draws with their minimum at the line's end are rejected, and the optima are
weighted by the inverse variance of the rest. Akima's interpolant (1970) follows an outlier less far than a spline does.
Porian et al. take the minimum over 25 points between neighbouring runs; here it is that of the cubics themselves.

Shapes: S sizes of one budget, K draws.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from scaling.fits.isoflop.cubic import cubic_minimum
from scaling.fits.isoflop.line import Interpolator, Line, Minimum, Status
from scaling.laws.law import FloatArray

__all__ = ["Akima"]

_LEAST_SPREAD = 0.33
"""The spread of a minimum is taken as at least this part of the step between sizes, as Porian et al. do."""


class Akima(Interpolator):
    """Replicates of one size are averaged first; a line of S sizes has S − 1 cubics."""

    name: ClassVar[str] = "akima"
    FEWEST: ClassVar[int] = 4

    def window(self, line: Line) -> NDArray[np.int64]:
        return np.arange(len(line.loss))

    def status(self, line: Line) -> Status:
        if line.sizes < self.FEWEST:
            return "too few"
        _, inside = _lowest(*_by_size(line, line.loss[None]))
        return "ok" if inside[0] else "edge"

    def minimum(self, line: Line, shocks_KN: FloatArray, skew_K: FloatArray) -> Minimum | None:
        x_S, loss_KS = _by_size(line, line.loss + shocks_KN)
        (x_K, loss_K), inside_K = _lowest(x_S, loss_KS)
        valid = int(inside_K.sum())
        if 2 * valid < len(inside_K):
            return None
        step = float(x_S[-1] - x_S[0]) / (len(x_S) - 1)
        spread = max(float(x_K[inside_K].std()), _LEAST_SPREAD * step) * len(inside_K) / valid
        # Rejected draws take the place of valid ones, in turn: every budget keeps K of them.
        kept_K = np.resize(np.flatnonzero(inside_K), len(inside_K))
        x_K, loss_K = x_K[kept_K], loss_K[kept_K]
        return Minimum(float(np.median(x_K)), float(np.median(loss_K)), x_K, x_K, loss_K, spread)


def _by_size(line: Line, loss_KN: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The sizes (S,) in ln N and the losses (K, S), replicates averaged."""
    x_S, member_N, runs_S = np.unique(line.ln_params, return_inverse=True, return_counts=True)
    mean_NS = (member_N[:, None] == np.arange(len(x_S))) / runs_S
    return x_S, np.asarray(loss_KN @ mean_NS)


def _lowest(x_S: FloatArray, loss_KS: FloatArray) -> tuple[tuple[FloatArray, FloatArray], NDArray[np.bool_]]:
    """ln N and loss of each interpolant's lowest point, (K,) each, and whether it lies inside the line."""
    # Noise can take no loss to zero.
    from scipy.interpolate import Akima1DInterpolator  # a fifth of a second that the other interpolators don't need

    curves = Akima1DInterpolator(x_S, np.log(np.maximum(loss_KS, 1e-9)).T, axis=0)
    c3_K, c2_K, c1_K, c0_K = curves.c  # (S − 1, K) each, in powers of the distance from the segment's first size
    offset_K = cubic_minimum(c1_K, c2_K, c3_K)
    within = (offset_K >= 0) & (offset_K <= np.diff(x_S)[:, None])
    offset_K = np.where(within, offset_K, 0.0)
    value_K = c0_K + offset_K * (c1_K + offset_K * (c2_K + offset_K * c3_K))
    segment_K = value_K.argmin(axis=0)
    every_K = np.arange(len(segment_K))
    x_K = x_S[segment_K] + offset_K[segment_K, every_K]
    value_K = value_K[segment_K, every_K]
    last_K = np.log(np.maximum(loss_KS[:, -1], 1e-9))
    return (x_K, np.exp(value_K)), (x_K > x_S[0]) & (value_K < last_K)
