"""L = A·X^−α·D_f^−β + E: loss after fine-tuning on D_f examples (Zhang et al. 2402.17193)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["FINE_TUNING", "FineTuning"]

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.002, 2.0
_EXPONENTS = np.geomspace(0.004, 1.6, 24)


@dataclass(frozen=True)
class FineTuning(Law):
    """L = A·X^−α·D_f^−β + E

    X is what else was scaled: the model's parameters, its pretraining tokens, or the parameters that are tuned; D_f
    the examples (or tokens) of fine-tuning. The paper fits one E for all three X of a task and method, and finds this
    product better than a sum of two powers. β is mostly 0.01 to 0.2 there: small exponents are searched too.
    """

    name: ClassVar[str] = "fine-tuning"
    formula: ClassVar[str] = "L = A·X^−α·D_f^−β + E"
    citation: ClassVar[str] = "Zhang et al. 2402.17193, equation 1"
    inputs: ClassVar[tuple[str, ...]] = ("x", "finetuning_examples")
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A"), Parameter("alpha", log=False), Parameter("beta", log=False), Parameter("E"),
    )  # fmt: skip

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L = logsumexp(a − α ln X − β ln D_f, e); with the power's share p the gradient is (p, −p ln X, −p ln D_f,
        1 − p)."""
        x_n, d_n = ln_inputs_Vn
        a, alpha, beta, e = columns(free, x_n)
        z = a - alpha * x_n - beta * d_n
        ln_loss = np.logaddexp(z, e)
        p, p_e = np.exp(z - ln_loss), np.exp(e - ln_loss)
        return ln_loss, np.stack((p, -p * x_n, -p * d_n, p_e), axis=-1)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 0] += moved[..., 1] * centre_V[0] + moved[..., 2] * centre_V[1]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Each term is at most e^3 times the loss and at least e^-12 of it; exponents lie within 0.002 to 2."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 12, _SMALLEST_EXPONENT, _SMALLEST_EXPONENT, low - 7]),
            np.array([high + 3, _LARGEST_EXPONENT, _LARGEST_EXPONENT, low + 0.05]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given α and β the law is linear in A and E."""
        x_n, d_n = ln_inputs_Vn
        alpha_G, beta_G = (grid.ravel() for grid in np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij"))
        power_Gn = np.exp(-alpha_G[:, None] * x_n - beta_G[:, None] * d_n)
        terms_Gn2 = np.stack(np.broadcast_arrays(power_Gn, 1.0), axis=-1) / value_n[:, None]
        order, solution_G2 = best_projections(terms_Gn2, np.ones(len(value_n)), count)
        logs_G2 = log_of_projected(solution_G2, 1e-3 * float(value_n.min()))
        return np.column_stack((logs_G2[:, 0], alpha_G[order], beta_G[order], logs_G2[:, 1]))


FINE_TUNING = FineTuning()
