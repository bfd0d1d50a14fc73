"""L(N, D) = E + A·(N^−α + R·D^−β)^k, the Skaling law of Videau et al. (2608.07222)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.chinchilla import CHINCHILLA, balanced
from scaling.laws.law import Box, FloatArray, LossLaw, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["SKALING", "Skaling"]

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.01, 10.0
_SMALLEST_COUPLING, _LARGEST_COUPLING = 0.05, 20.0
_COUPLING_SD = 0.4
_SLOPES = np.geomspace(0.05, 1.5, 11)
"""Exponents of the loss where one term dominates, αk and βk."""
_COUPLINGS = np.array([0.1, 0.3, 1.0, 3.0])
_LN_RATIOS = np.linspace(-3.0, 3.0, 7)
"""Logarithm of R^k: of what finite data cost over what finite size costs at the centre of the data."""


@dataclass(frozen=True)
class Skaling(LossLaw):
    """L(N, D) = E + A·(N^−α + R·D^−β)^k

    k couples what a finite model and finite data cost: k = 1 adds them as Chinchilla's law does (A, B = A·R), k < 1
    makes the larger of the two count for more. E = 0, β = 1 is Kaplan's law with k = α_D. Where the loss is a function
    of the sum in brackets, the optimum is Chinchilla's with A = 1, B = R, whatever k.
    """

    name: ClassVar[str] = "skaling"
    formula: ClassVar[str] = "L = E + A·(N^−α + R·D^−β)^k"
    citation: ClassVar[str] = "Videau et al. 2608.07222"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A"), Parameter("R"), Parameter("E"), Parameter("alpha", log=False), Parameter("beta", log=False),
        Parameter("k"),
    )  # fmt: skip

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L = logsumexp(e, a + k·w), w = logsumexp(−α ln N, ρ − β ln D) with ρ = ln R.

        With the shares p of the reducible loss in L, q of E, and s_N, s_D of the two terms in the bracket, the gradient
        in (a, ρ, e, α, β, ln k) is (p, p k s_D, q, −p k s_N ln N, −p k s_D ln D, p k w).
        """
        x_n, y_n = ln_inputs_Vn
        a, rho, e, alpha, beta, ln_k = columns(free, x_n)
        k = np.exp(ln_k)
        z_n, z_d = -alpha * x_n, rho - beta * y_n
        w = np.logaddexp(z_n, z_d)
        reducible = a + k * w
        ln_loss = np.logaddexp(e, reducible)
        pk, q = k * np.exp(reducible - ln_loss), np.exp(e - ln_loss)
        pk_n, pk_d = pk * np.exp(z_n - w), pk * np.exp(z_d - w)
        return ln_loss, np.stack((pk / k, pk_d, q, -pk_n * x_n, -pk_d * y_n, pk * w), axis=-1)

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """The Hessian of ln L is p q g gᵀ + p ∇²z with z = a + k·w, g = ∇(z − e), and k s_N s_D d dᵀ in ∇²z, where d is
        the difference of the two exponents' gradients; the rest of ∇²z is what ln k shares with the others, k ∇w."""
        x_n, y_n = ln_inputs_Vn
        _, rho, _, alpha, beta, ln_k = columns(free_KP, x_n)
        p_Kn, q_Kn = jacobian_KnP[..., 0], jacobian_KnP[..., 2]
        k, s_d = np.exp(ln_k), np.exp(-np.logaddexp(0, -alpha * x_n - rho + beta * y_n))
        kw = k * np.logaddexp(-alpha * x_n, rho - beta * y_n)
        one_Kn = np.ones_like(p_Kn)
        g_KnP = np.stack((one_Kn, k * s_d, -one_Kn, -k * (1 - s_d) * x_n, -k * s_d * y_n, kw), axis=-1)
        hessian_KPP = np.matmul(np.swapaxes(g_KnP * (psi_Kn * p_Kn * q_Kn)[..., None], 1, 2), g_KnP)
        weight_Kn = psi_Kn * p_Kn
        d_Kn3 = np.stack(np.broadcast_arrays(one_Kn, x_n, -y_n), axis=-1)
        scale_Kn = weight_Kn * k * s_d * (1 - s_d)
        inner = np.array([1, 3, 4])
        hessian_KPP[:, inner[:, None], inner] += np.matmul(np.swapaxes(d_Kn3 * scale_Kn[..., None], 1, 2), d_Kn3)
        shared_KP = np.matmul(weight_Kn[:, None, :], g_KnP)[:, 0]
        for i in inner:
            hessian_KPP[:, i, 5] += shared_KP[:, i]
            hessian_KPP[:, 5, i] += shared_KP[:, i]
        hessian_KPP[:, 5, 5] += shared_KP[:, 5]
        return np.asarray(hessian_KPP)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        by_params, by_tokens = moved[..., 3] * centre_V[0], moved[..., 4] * centre_V[1]
        moved[..., 0] += np.exp(moved[..., 5]) * by_params
        moved[..., 1] += by_tokens - by_params
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Neither cost is more than e^3 times the other at the centre; α and β within 0.01 to 10, k within 0.05 to 20.

        At the centre the reducible loss is A·(1 + R)^k.
        """
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        ratio = 3.0 / _SMALLEST_COUPLING
        both = 3.0 + np.log(2.0) * _LARGEST_COUPLING
        exponents = np.array([_SMALLEST_EXPONENT, _LARGEST_EXPONENT])
        couplings = np.log([_SMALLEST_COUPLING, _LARGEST_COUPLING])
        bounds = np.array(
            [[low - 12 - both, high + 3], [-ratio, ratio], [low - 7, low + 0.05], exponents, exponents, couplings]
        )
        return Box(bounds[:, 0], bounds[:, 1])

    def prior(
        self, ln_inputs_Vn: FloatArray, value_n: FloatArray, irreducible: tuple[float, float] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Chinchilla's of exponents and E, the two costs alike within a factor of five, and k near 1."""
        mean, sd = CHINCHILLA.prior(ln_inputs_Vn, value_n, irreducible)
        return (
            np.array([mean[0], 0.0, mean[2], mean[3], mean[4], 0.0]),
            np.array([sd[0], 1.6, sd[2], sd[3], sd[4], _COUPLING_SD]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given exponents, R and k the law is linear in A and E."""
        x_n, y_n = ln_inputs_Vn
        slope_n_G, slope_d_G, k_G, ratio_G = (
            grid.ravel() for grid in np.meshgrid(_SLOPES, _SLOPES, _COUPLINGS, _LN_RATIOS, indexing="ij")
        )
        alpha_G, beta_G, rho_G = slope_n_G / k_G, slope_d_G / k_G, ratio_G / k_G
        ln_sum_Gn = np.logaddexp(-alpha_G[:, None] * x_n, rho_G[:, None] - beta_G[:, None] * y_n)
        terms_Gn2 = np.stack(np.broadcast_arrays(np.exp(k_G[:, None] * ln_sum_Gn), 1.0), axis=-1) / value_n[:, None]
        order, solution_G2 = best_projections(terms_Gn2, np.ones(len(value_n)), count)
        logs_G2 = log_of_projected(solution_G2, 1e-3 * float(value_n.min()))
        rows = (logs_G2[:, 0], rho_G[order], logs_G2[:, 1], alpha_G[order], beta_G[order], np.log(k_G[order]))
        return np.column_stack(rows)

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* at ``flops`` (shape S), in closed form: each (..., *S)."""
        product_S = np.asarray(flops, np.float64) / flops_per_param_token
        _, ratio, _, alpha, beta, _ = columns(theta, product_S)
        return balanced(np.zeros_like(ratio), np.log(ratio), alpha, beta, product_S)

    def exponents(self, theta: ArrayLike, flops: float | None = None) -> tuple[FloatArray, FloatArray]:
        """a = β/(α+β) of N* ∝ C^a and b = α/(α+β) of D* ∝ C^b: each (...), the same at every compute."""
        _, _, _, alpha, beta, _ = columns(theta, 0.0)
        return beta / (alpha + beta), alpha / (alpha + beta)


SKALING = Skaling()
