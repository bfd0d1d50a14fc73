"""L(N, D) = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D, the law of Kaplan et al. (2001.08361, equation 1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.chinchilla import balanced
from scaling.laws.law import Box, FloatArray, LossLaw, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["KAPLAN", "Kaplan"]

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.005, 2.0
_EXPONENTS = np.geomspace(0.01, 1.2, 24)


@dataclass(frozen=True)
class Kaplan(LossLaw):
    """L(N, D) = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D

    N_c and D_c are the parameters (without embeddings, in the paper) and tokens at which the loss of the other's limit
    would be one nat: L(N, ∞) = (N_c/N)^α_N and L(∞, D) = (D_c/D)^α_D. There is no irreducible loss. It is Skaling's law
    with E = 0, β = 1, k = α_D.

    Its optimum along C = c·N·D is that of N^−(α_N/α_D) and D^−1: N* ∝ C^(α_D/(α_N+α_D)). That is of models trained to
    the end of their tokens; the paper's N ∝ C^0.73 comes from its law of loss in parameters and optimisation steps
    (equation 6.1).
    """

    name: ClassVar[str] = "kaplan"
    formula: ClassVar[str] = "L = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D"
    citation: ClassVar[str] = "Kaplan et al. 2001.08361, equation 1.5"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("N_c"), Parameter("D_c"), Parameter("alpha_N", log=False), Parameter("alpha_D", log=False),
    )  # fmt: skip

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L = α_D·w, w = logsumexp(r·u, v) with r = α_N/α_D, u = ln N_c − ln N, v = ln D_c − ln D.

        With the shares p_N, p_D of the two terms in w, the gradient is (α_N p_N, α_D p_D, u p_N, w − r u p_N).
        """
        x_n, y_n = ln_inputs_Vn
        ln_nc, ln_dc, alpha_n, alpha_d = columns(free, x_n)
        ratio, u, v = alpha_n / alpha_d, ln_nc - x_n, ln_dc - y_n
        w = np.logaddexp(ratio * u, v)
        p_n, p_d = np.exp(ratio * u - w), np.exp(v - w)
        return alpha_d * w, np.stack((alpha_n * p_n, alpha_d * p_d, u * p_n, w - ratio * u * p_n), axis=-1)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 0] += centre_V[0]
        moved[..., 1] += centre_V[1]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """N_c and D_c lie where a term alone could be the loss at the smallest exponent, or e^−60 of it."""
        reach = 5.0 + max(0.0, float(np.log(value_n).max())) / _SMALLEST_EXPONENT
        return Box(
            np.array([-60.0, -60.0, _SMALLEST_EXPONENT, _SMALLEST_EXPONENT]),
            np.array([reach, reach, _LARGEST_EXPONENT, _LARGEST_EXPONENT]),
        )

    def prior(
        self, ln_inputs_Vn: FloatArray, value_n: FloatArray, irreducible: tuple[float, float] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Without an irreducible loss exponents are a third of Chinchilla's (0.076 to 0.103 in the paper); N_c and D_c
        such that each limit is the loss."""
        exponent = 0.11
        reach = float(np.log(np.median(value_n))) / exponent
        return np.array([reach, reach, exponent, exponent]), np.array([8.0, 8.0, 0.08, 0.08])

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given exponents L^(1/α_D) is linear in N_c^r and D_c; an error of it is 1/α_D times one of ln L."""
        x_n, y_n = ln_inputs_Vn
        alpha_n_G, alpha_d_G = (grid.ravel() for grid in np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij"))
        ratio_G = alpha_n_G / alpha_d_G
        ln_target_Gn = np.log(value_n) / alpha_d_G[:, None]
        ln_terms_Gn2 = np.stack((-ratio_G[:, None] * x_n - ln_target_Gn, -y_n - ln_target_Gn), axis=-1)
        # Each term at most one, for its powers overflow over wide tables.
        ln_size_G2 = ln_terms_Gn2.max(axis=1)
        terms_Gn2 = np.exp(ln_terms_Gn2 - ln_size_G2[:, None, :])
        order, solution_G2 = best_projections(terms_Gn2, np.ones(len(value_n)), count, cost_G=alpha_d_G**2)
        logs_G2 = log_of_projected(solution_G2, 1e-4) - ln_size_G2[order]
        return np.column_stack((logs_G2[:, 0] / ratio_G[order], logs_G2[:, 1], alpha_n_G[order], alpha_d_G[order]))

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* at ``flops`` (shape S), in closed form: each (..., *S)."""
        product_S = np.asarray(flops, np.float64) / flops_per_param_token
        n_c, d_c, alpha_n, alpha_d = columns(theta, product_S)
        ratio = alpha_n / alpha_d
        return balanced(ratio * np.log(n_c), np.log(d_c), ratio, np.ones_like(ratio), product_S)

    def exponents(self, theta: ArrayLike, flops: float | None = None) -> tuple[FloatArray, FloatArray]:
        """a = α_D/(α_N+α_D) of N* ∝ C^a and b = 1 − a: each (...), the same at every compute."""
        _, _, alpha_n, alpha_d = columns(theta, 0.0)
        return alpha_d / (alpha_n + alpha_d), alpha_n / (alpha_n + alpha_d)


KAPLAN = Kaplan()
