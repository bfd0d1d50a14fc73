"""Power laws of compute through optima: ln N* = ln k + a ln C by weighted least squares.

Shapes: M optima; ``...`` any leading axes, such as K draws.
"""

from __future__ import annotations

import math

import numpy as np

from scaling.fits.bootstrap import interval_of
from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = ["log_interval", "power_law", "scatter_beyond_noise"]

_EXP = 700.0


def log_interval(estimate: float, draws_K: FloatArray, level: float) -> Interval:
    """An interval of exp(value), from values in logs; kept within what a float can hold."""
    return interval_of(math.exp(np.clip(estimate, -_EXP, _EXP)), np.exp(np.clip(draws_K, -_EXP, _EXP)), level)


def power_law(ln_flops_M: FloatArray, values: FloatArray, weight_M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted lines through ``values`` (..., M) over ln C: intercepts (ln k) and slopes (a), each (...)."""
    weight_M = weight_M / weight_M.sum()
    centre = float(weight_M @ ln_flops_M)
    offset_M = ln_flops_M - centre
    slope = (values * (weight_M * offset_M)).sum(axis=-1) / float(weight_M @ offset_M**2)
    return np.asarray((values * weight_M).sum(axis=-1) - slope * centre), np.asarray(slope)


def scatter_beyond_noise(ln_flops_M: FloatArray, best_M: FloatArray, weight_M: FloatArray) -> float:
    """Factor by which optima scatter around their line beyond their own noise (Birge 1932), at least 1.

    The weights are the inverse variances; with under four optima the scatter says nothing, and the factor is 1.
    """
    if len(best_M) < 4:
        return 1.0
    ln_k, a = power_law(ln_flops_M, best_M, weight_M)
    chi_square = float((weight_M * (best_M - ln_k - a * ln_flops_M) ** 2).sum())
    return max(1.0, math.sqrt(chi_square / (len(best_M) - 2)))
