"""What a law of loss in parameters and tokens must offer, so that another can be added as one frozen class."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FloatArray", "Law"]

FloatArray = NDArray[np.float64]


class Law(Protocol):
    """Parameters ``theta`` have shape (..., P): leading axes are draws, and results keep them."""

    name: str
    NAMES: tuple[str, ...]

    def predict(self, theta: ArrayLike, params: ArrayLike, tokens: ArrayLike) -> FloatArray:
        """Loss in nats a token. ``params`` and ``tokens`` of one shape S (or scalars): (..., *S)."""
        ...

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* that minimise the loss at ``flops`` = flops_per_param_token · N · D: each (..., *shape of
        flops)."""
        ...

    def exponents(self, theta: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """a and b of N* ∝ C^a and D* ∝ C^b: each (...)."""
        ...
