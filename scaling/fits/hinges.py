"""An integrated Wiener process as hinges: a function of one variable whose slope wanders."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scaling.laws.law import FloatArray

__all__ = ["Axis", "axis_through"]

_KNOTS = 24


@dataclass(frozen=True)
class Axis:
    """One δ as hinges: δ(u) = Σ_j z_j (u − t_j)₊ for u ≥ 0, z_j ~ N(0, τ²Δ); two sides have knots of their own."""

    origin: float
    step: float
    sides: tuple[float, ...]
    """Extent of the data to the right, and to the left where the axis has two sides."""

    def features(self, position: FloatArray) -> FloatArray:
        """(points, knots)"""
        offset = position - self.origin
        parts = []
        for sign, extent in zip((1.0, -1.0), self.sides, strict=False):
            knots = self.step * (np.arange(round(extent / self.step)) + 0.5)
            parts.append(np.maximum(sign * offset[:, None] - knots, 0.0))
        return np.concatenate(parts, axis=1)

    def beyond(self, position: float) -> float:
        """Variance of δ there that no data bear on, in units of τ²: a cubic of the distance to the data's edge."""
        offset = position - self.origin
        side = 0 if offset >= 0 else 1
        extent = self.sides[side] if side < len(self.sides) else 0.0
        return max(0.0, abs(offset) - extent) ** 3 / 3


def axis_through(position_n: FloatArray, origin: float, two_sided: bool, knots: int = _KNOTS) -> Axis:
    """The axis with about ``knots`` over positions (n,), which reach to both sides of ``origin`` if ``two_sided``."""
    right, left = float(position_n.max()) - origin, origin - float(position_n.min())
    step = max((right + left) / knots, 1e-6)
    # Whole numbers of knots, at least one: the last half step beyond the data costs nothing.
    extents = [math.ceil(max(right, step) / step - 1e-9) * step]
    if two_sided:
        extents.append(math.ceil(max(left, step) / step - 1e-9) * step)
    return Axis(origin, step, tuple(extents))
