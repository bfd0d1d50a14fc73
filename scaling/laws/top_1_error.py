"""err = ε − k·exp(−γ·L): average top-1 error of downstream tasks from the loss (Gadre et al. 2403.08540)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["TOP_1_ERROR", "Top1Error"]

_SLOWEST, _FASTEST = 0.01, 20.0
_RATES = np.geomspace(0.02, 15.0, 120)


@dataclass(frozen=True)
class Top1Error(Law):
    """err = ε − k·exp(−γ·L)

    ε is the error at no skill at all (high loss), k and γ say how fast skill comes as the loss L, in nats a token,
    falls. Residuals are those of the error itself.
    """

    name: ClassVar[str] = "top-1-error"
    formula: ClassVar[str] = "err = ε − k·exp(−γ·L)"
    citation: ClassVar[str] = "Gadre et al. 2403.08540"
    inputs: ClassVar[tuple[str, ...]] = ("loss",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("epsilon"), Parameter("k"), Parameter("gamma"))
    response: ClassVar[Literal["log", "identity"]] = "identity"

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The gradient in (ln ε, ln k, ln γ) is (ε, −s, s γ L) with s = k·exp(−γL)."""
        loss_n = np.exp(ln_inputs_Vn[0])
        ln_epsilon, ln_k, ln_gamma = columns(free, loss_n)
        epsilon, fall = np.exp(ln_epsilon), np.exp(ln_gamma) * loss_n
        skill = np.exp(ln_k - fall)
        gradient = np.stack((np.broadcast_to(epsilon, skill.shape), -skill, skill * fall), axis=-1)
        return epsilon - skill, gradient

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """ε within e^±3 of the largest error; γ 0.01 to 20 a nat; k up to what a γ of 20 needs."""
        worst = float(np.log(value_n.max()))
        best_loss = float(np.exp(ln_inputs_Vn[0].min()))
        return Box(
            np.array([worst - 3, worst - 12, np.log(_SLOWEST)]),
            np.array([worst + 3, worst + 5 + _FASTEST * best_loss, np.log(_FASTEST)]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given γ the law is linear in ε and k."""
        loss_n = np.exp(ln_inputs_Vn[0])
        # At the lowest loss, so that k of any size is told from zero.
        lowest = loss_n.min()
        terms_Gn2 = np.stack(np.broadcast_arrays(1.0, -np.exp(-_RATES[:, None] * (loss_n - lowest))), axis=-1)
        order, solution_G2 = best_projections(terms_Gn2, value_n, count)
        logs_G2 = log_of_projected(solution_G2, 1e-3 * float(value_n.max()))
        return np.column_stack((logs_G2[:, 0], logs_G2[:, 1] + _RATES[order] * lowest, np.log(_RATES[order])))


TOP_1_ERROR = Top1Error()
