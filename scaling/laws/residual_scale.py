"""A law with residuals of its value instead of the value's logarithm, as some publications fit (2403.08540)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.law import Box, FloatArray, Law

__all__ = ["on_value"]


def on_value(law: Law) -> Law:
    """``law`` with residuals of its value itself; the law as it is where it has them already."""
    return law if law.response == "identity" else _OnValue(law)


@dataclass(frozen=True)
class _OnValue(Law):
    law: Law

    def __post_init__(self) -> None:
        # A frozen instance takes what the law says of itself, except for its response.
        for name in ("name", "formula", "citation", "inputs", "parameters"):
            object.__setattr__(self, name, getattr(self.law, name))
        object.__setattr__(self, "response", "identity")

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        ln_value, gradient = self.law.response_and_gradient(free, ln_inputs_Vn)
        value = np.exp(ln_value)
        return value, gradient * value[..., None]

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        return self.law.box(ln_inputs_Vn, value_n)

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        return self.law.starts(ln_inputs_Vn, value_n, count)

    @property
    def centres(self) -> bool:
        return self.law.centres

    def centre(self, ln_inputs_Vn: FloatArray) -> FloatArray:
        return self.law.centre(ln_inputs_Vn)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        return self.law.uncentred(free, centre_V)

    def theta_of(self, free: FloatArray) -> FloatArray:
        return self.law.theta_of(free)

    def free_of(self, theta: ArrayLike) -> FloatArray:
        return self.law.free_of(theta)
