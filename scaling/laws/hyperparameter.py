"""What a law of a hyperparameter is: a power of sizes, fitted on a range and refused outside it.

    y = k · Π_v x_v^e_v

Shapes: P = 1 + V constants, V inputs, n points; leading axes (...) are draws or starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from scaling.compute import flops_6nd
from scaling.errors import UserError
from scaling.laws.law import Box, FloatArray, Law

__all__ = ["HyperparameterLaw", "sizes_of"]


def sizes_of(params: float, tokens: float) -> dict[str, float]:
    """Every size that a law of hyperparameters may be a function of; compute is 6ND."""
    flops = float(flops_6nd(params, tokens))
    return {"params": params, "tokens": tokens, "flops": flops, "tokens_per_param": tokens / params}


class HyperparameterLaw(Law):
    """A power law of one hyperparameter; its first constant is k, the others are the exponents of ``inputs``.

    ``params`` are counted without embeddings, as all of these laws do.
    """

    title: ClassVar[str]
    quantity: ClassVar[str]
    """What it gives, as an error names it: learning-rate, batch, timescale."""
    published: ClassVar[tuple[float, ...] | None]
    """The constants as their authors have them; None where only the form was published, or is known here."""
    ranges: ClassVar[dict[str, tuple[float, float]]]
    """Where they were fitted, by size (``sizes_of``)."""

    def at(self, params: float, tokens: float) -> float:
        """The published value at one size and length; :class:`UserError` outside the range it was fitted on."""
        self.refuse_outside(self.ranges, sizes_of(params, tokens))
        return self.extended(params, tokens)

    def extended(self, params: float, tokens: float) -> float:
        """The published value wherever it is asked for: whoever shows it says that it may lie outside the range."""
        if self.published is None:
            raise UserError(f"{self.quantity} law {self.name} has no published constants: fit it to a sweep")
        sizes = sizes_of(params, tokens)
        return float(self.predict(self.published, *(sizes[name] for name in self.inputs)))

    def refuse_outside(self, ranges: dict[str, tuple[float, float]], sizes: dict[str, float]) -> None:
        """:class:`UserError` if any of ``sizes`` lies outside ``ranges``."""
        for name, (low, high) in ranges.items():
            if not low <= sizes[name] <= high:
                cure = (
                    "probe the rate at two sizes (hyperparameters.learning_rate: probe)"
                    if self.quantity == "learning-rate"
                    else "measure it at two sizes"
                )
                raise UserError(
                    f"{self.quantity} law {self.name} at {sizes[name]:.3g} {name}: it was fitted on {low:.3g} to "
                    f"{high:.3g} and is refused outside; {cure}"
                )

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln y = ln k + Σ e·ln x is linear: its gradient is (1, ln x)."""
        design_nP = np.column_stack((np.ones(ln_inputs_Vn.shape[1]), *ln_inputs_Vn))
        return free @ design_nP.T, np.broadcast_to(design_nP, (*free.shape[:-1], *design_nP.shape))

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        return np.zeros((len(free_KP), free_KP.shape[1], free_KP.shape[1]))

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 0] -= moved[..., 1:] @ np.asarray(centre_V, np.float64)
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Exponents from −3 to 3, and the level within 20 e-folds of what was seen."""
        exponents, ln_value = len(self.inputs), np.log(value_n)
        return Box(
            np.array([ln_value.min() - 20.0, *[-3.0] * exponents]),
            np.array([ln_value.max() + 20.0, *[3.0] * exponents]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """Least squares: every other start leads to the same place."""
        design_nP = np.column_stack((np.ones(ln_inputs_Vn.shape[1]), *ln_inputs_Vn))
        return np.asarray(np.linalg.lstsq(design_nP, np.log(value_n), rcond=None)[0][None])
