"""accuracy = a/(1 + exp(−k(x − x0))) + b, a task's accuracy in its own loss: step 2 of Bhagia et al. (2412.04403)."""

from __future__ import annotations

from itertools import product
from typing import ClassVar, Literal

import numpy as np
from scipy.special import expit

from scaling.laws.law import Box, FloatArray, Law, Parameter

__all__ = ["ACCURACY_SIGMOID", "AccuracySigmoid"]


class AccuracySigmoid(Law):
    """accuracy = a/(1 + exp(−k(x − x0))) + b

    x is the task's own loss, in bits per byte of the right answer; a (negative) is chance less perfection, so that
    accuracy falls from b, at no loss, to a + b, at guessing; x0 is the loss midway and k how fast it falls there.
    """

    name: ClassVar[str] = "accuracy-sigmoid"
    formula: ClassVar[str] = "accuracy = a/(1 + exp(−k(x − x0))) + b"
    citation: ClassVar[str] = "Bhagia et al. 2412.04403, equation 3"
    inputs: ClassVar[tuple[str, ...]] = ("bits_per_byte",)
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", log=False), Parameter("x0"), Parameter("k"), Parameter("b", log=False),
    )  # fmt: skip
    response: ClassVar[Literal["log", "identity"]] = "identity"

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """With s the sigmoid of k(x − x0) the gradient is (s, −a·s(1−s)·k·x0, a·s(1−s)·k(x − x0), 1)."""
        x_n = np.exp(ln_inputs_Vn[0])
        a, ln_x0, ln_k, b = (free[..., i, None] for i in range(4))
        x0, k = np.exp(ln_x0), np.exp(ln_k)
        along = k * (x_n - x0)
        share = expit(along)
        slope = a * share * expit(-along)
        return a * share + b, np.stack((share, -slope * k * x0, slope * along, np.ones_like(share)), axis=-1)

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """The midpoint within a factor of three of the losses seen, and accuracies between none and all."""
        low, high = float(np.quantile(ln_inputs_Vn[0], 0.1)), float(ln_inputs_Vn[0].max())
        return Box(np.array([-1.0, low - 1.1, -1.0, 0.0]), np.array([0.0, high + 1.1, 5.0, 1.0]))

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given x0 and k the law is linear in a and b: the best of a grid over the two."""
        box = self.box(ln_inputs_Vn, value_n)
        found = []
        for ln_x0, ln_k in product(np.linspace(box.low[1], box.high[1], 24), np.linspace(0.0, 3.5, 12)):
            share_n = expit(np.exp(ln_k) * (np.exp(ln_inputs_Vn[0]) - np.exp(ln_x0)))
            (a, b), *_ = np.linalg.lstsq(np.column_stack((share_n, np.ones_like(share_n))), value_n, rcond=None)
            a, b = np.clip(a, -0.999, -1e-3), np.clip(b, 1e-3, 0.999)
            found.append((float(((a * share_n + b - value_n) ** 2).sum()), a, ln_x0, ln_k, b))
        return np.array(sorted(found))[:count, 1:]


ACCURACY_SIGMOID = AccuracySigmoid()
