"""L(N, D, U) = E + A·N'^−α + B·D'^−β: what repeats and excess parameters are worth (Muennighoff et al. 2305.16264)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import Box, FloatArray, Law, Parameter, columns
from scaling.laws.variable_projection import projected_starts

__all__ = ["DATA_CONSTRAINED", "DataConstrained"]

_DECAYS = np.array([1.0, 5.0, 20.0, 100.0])
_FASTEST, _SLOWEST = 0.05, 1e4


@dataclass(frozen=True)
class DataConstrained(Law):
    """L(N, D, U) = E + A·N'^−α + B·D'^−β,  D' = U + U·R_D·(1 − e^(−r_D/R_D)),  N' = U_N + U_N·R_N·(1 − e^(−r_N/R_N))

    of N parameters trained on D tokens, U of them unique, with r_D = D/U − 1 repetitions and r_N = N/U_N − 1. R_D and
    R_N are the paper's R_D* and R_N*: how many repetitions, and how many times the parameters that the unique tokens
    call for, are worth having. U_N is that size: the compute-optimal N of Chinchilla's law for U tokens, αA·U_N^−α =
    βB·U^−β. Up to U and U_N, D' = D and N' = N. Where U exceeds D the D tokens seen are the unique ones.

    With R_D and R_N infinite, or nothing repeated and N at most U_N, it is Chinchilla's law.
    """

    name: ClassVar[str] = "data-constrained"
    formula: ClassVar[str] = "L = E + A·N'^−α + B·D'^−β, D' = U + U·R_D·(1 − e^(−(D/U − 1)/R_D)), N' likewise"
    citation: ClassVar[str] = "Muennighoff et al. 2305.16264"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")
    parameters: ClassVar[tuple[Parameter, ...]] = (*CHINCHILLA.parameters, Parameter("R_D"), Parameter("R_N"))

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Chinchilla's gradient at (ln N', ln D'), and by the chain rule what these owe to U_N, R_D and R_N."""
        x_n, y_n = ln_inputs_Vn[0], ln_inputs_Vn[1]
        u_n = np.minimum(ln_inputs_Vn[2], y_n)
        a, b, e, alpha, beta, ln_rd, ln_rn = columns(free, x_n)
        ln_optimal = (np.log(alpha) + a - np.log(beta) - b + beta * u_n) / alpha
        n_worth, n_by_threshold, n_by_decay = _worth(x_n, ln_optimal, ln_rn)
        d_worth, _, d_by_decay = _worth(y_n, u_n, ln_rd)
        z_n, z_d = a - alpha * n_worth, b - beta * d_worth
        ln_loss = np.logaddexp(np.logaddexp(z_n, z_d), e)
        p_n, p_d, p_e = (np.exp(term - ln_loss) for term in (z_n, z_d, e))
        by_n, by_d = -alpha * p_n, -beta * p_d
        by_optimal = by_n * n_by_threshold
        gradient = (
            p_n + by_optimal / alpha,
            p_d - by_optimal / alpha,
            p_e,
            -p_n * n_worth + by_optimal * (1 / alpha - ln_optimal) / alpha,
            -p_d * d_worth + by_optimal * (u_n - 1 / beta) / alpha,
            by_d * d_by_decay,
            by_n * n_by_decay,
        )
        return ln_loss, np.stack(gradient, axis=-1)

    def centre(self, ln_inputs_Vn: FloatArray) -> FloatArray:
        """Tokens and unique tokens are rescaled together: their ratio is the number of epochs."""
        params, tokens = ln_inputs_Vn[:2].mean(axis=1)
        return np.array([params, tokens, tokens])

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        return CHINCHILLA.uncentred(free, centre_V)

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Chinchilla's, and R_D and R_N within 0.05 to 10,000."""
        base, decays = CHINCHILLA.box(ln_inputs_Vn[:2], value_n), np.log([_FASTEST, _SLOWEST])
        return Box(np.append(base.low, decays[[0, 0]]), np.append(base.high, decays[[1, 1]]))

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given R_D the law is linear in A, B and E while no size exceeds U_N; each such start with every R_N."""
        x_n, y_n, _ = ln_inputs_Vn
        u_n = np.minimum(ln_inputs_Vn[2], y_n)
        found: list[FloatArray] = []
        for ln_rd in np.log(_DECAYS):
            worth_n, _, _ = _worth(y_n, u_n, np.asarray(ln_rd))
            base = projected_starts(x_n, worth_n, np.log(value_n), count)
            found.extend(np.column_stack((base, np.full((len(base), 2), (ln_rd, ln_rn)))) for ln_rn in np.log(_DECAYS))
        return self.best_of(np.concatenate(found), ln_inputs_Vn, value_n, count)


def _worth(
    amount: FloatArray, threshold: FloatArray, ln_decay: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """ln of what exp(``amount``) is worth, and its derivatives by ``threshold`` and ``ln_decay`` (all logarithms).

    As ``effective_data`` has it: w = T·h, h = 1 + R·(1 − g), g = e^(−r/R), r = amount/T − 1; w is of degree one in the
    amount and T, so that the two derivatives of ln w by their logarithms sum to one.
    """
    over = amount > threshold
    # e^300 times the threshold is as good as infinite, and its products with what is left are still zero.
    excess = np.where(over, np.expm1(np.clip(amount - threshold, 0.0, 300.0)), 0.0)
    decay = np.exp(ln_decay)
    left, lost = np.exp(-excess / decay), -np.expm1(-excess / decay)
    h = 1 + decay * lost
    worth = np.where(over, threshold + np.log(h), amount)
    by_threshold = np.where(over, 1 - (1 + excess) * left / h, 0.0)
    by_decay = np.where(over, (decay * lost - excess * left) / h, 0.0)
    return worth, by_threshold, by_decay


DATA_CONSTRAINED = DataConstrained()
